"""The arithmetic of partitioners, against known values of Kafka's own clients."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpath.partitioner import _murmur2, partition_for, partitions_for

# From the tests of Kafka's Java client (UtilsTest.testMurmur2), as unsigned numbers.
JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "digest"), JAVA_MURMUR2.items())
def test_murmur2_agrees_with_the_java_client(key, digest):
    assert _murmur2(key) == digest & 0xFFFFFFFF


@given(st.lists(st.binary(max_size=40)), st.integers(1, 1000), st.sampled_from(["murmur2", "crc32"]))
def test_many_keys_go_where_each_of_them_goes(keys, partitions, partitioner):
    one_by_one = [partition_for(key, partitions, partitioner) for key in keys]
    expected = [-1 if partition is None else partition for partition in one_by_one]
    assert partitions_for(keys, partitions, partitioner).tolist() == expected


def test_a_null_key_has_no_partition_of_its_own():
    assert partition_for(None, 16) is None
    assert partition_for(None, 16, "crc32") is None


def test_an_empty_key_is_a_key_to_murmur2_and_none_to_crc32():
    assert partition_for(b"", 16) is not None
    assert partition_for(b"", 16, "crc32") is None
