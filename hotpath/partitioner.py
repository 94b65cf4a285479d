"""Which partition a key belongs to: the arithmetic of Kafka's own producers, so that others can check it.

The generator routes by it (it must know each log's watermark before it can send a late event), and workers
sample their messages with it to find producers that route otherwise. Two families are in use:

    murmur2   Java clients' default; librdkafka's `murmur2_random`
    crc32     librdkafka's default, `consistent_random`

Keys that say nothing: a null key has no partition of its own (Java clients and librdkafka pick any), which is
returned as None. An empty key is hashed like any other by murmur2, but counts as no key in librdkafka's
`consistent_random`, so crc32 returns None for it too.

Pure functions; no state.
"""

import zlib
from collections.abc import Sequence

import numpy as np

PARTITIONERS = ("murmur2", "crc32")
LIBRDKAFKA_NAMES = {"murmur2": "murmur2_random", "crc32": "consistent_random"}
"""Our name of a partitioner to librdkafka's, for its setting `partitioner`."""

# Constants of 32-bit MurmurHash2, with the seed that Kafka's Java client fixed.
_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_SHIFT = 24
_MASK = 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF  # Java's toPositive(): drops the sign bit instead of negating


def partition_for(key: bytes | None, partitions: int, partitioner: str = "murmur2") -> int | None:
    """The partition, 0 to `partitions` - 1, of a message with this key; None when any will do."""
    if key is None:
        return None
    if partitioner == "crc32":
        return zlib.crc32(key) % partitions if key else None
    return (_murmur2(key) & _POSITIVE) % partitions


def partitions_for(keys: Sequence[bytes], partitions: int, partitioner: str = "murmur2") -> np.ndarray:
    """`partition_for` of many keys: int32, one per key; -1 where any partition will do.

    Vectorised over keys of equal length, so it is fast (0.1 µs a key) when the lengths are few.
    """
    result = np.empty(len(keys), np.int32)
    if partitioner == "crc32":
        result[:] = [zlib.crc32(key) % partitions if key else -1 for key in keys]
        return result
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        joined = b"".join([keys[row] for row in rows.tolist()])
        matrix = np.frombuffer(joined, np.uint8).reshape(len(rows), length)
        result[rows] = (_murmur2_rows(matrix) & np.uint32(_POSITIVE)) % np.uint32(partitions)
    return result


def _murmur2(key: bytes) -> int:
    """32-bit MurmurHash2 of `key`, as an unsigned number."""
    whole = len(key) & ~3
    digest = _SEED ^ len(key)
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> _SHIFT) * _MULTIPLIER & _MASK
        digest = (digest * _MULTIPLIER & _MASK) ^ word
    if whole < len(key):
        digest = (digest ^ int.from_bytes(key[whole:], "little")) * _MULTIPLIER & _MASK
    digest = (digest ^ digest >> 13) * _MULTIPLIER & _MASK
    return digest ^ digest >> 15


def _murmur2_rows(keys: np.ndarray) -> np.ndarray:
    """`_murmur2` of each row of a byte matrix: uint32, whose products wrap as the algorithm wants."""
    count, length = keys.shape
    multiplier = np.uint32(_MULTIPLIER)
    digest = np.full(count, _SEED ^ length, np.uint32)
    whole = length & ~3
    for word in np.ascontiguousarray(keys[:, :whole]).view("<u4").T if whole else ():
        word = word * multiplier
        word = (word ^ word >> np.uint32(_SHIFT)) * multiplier
        digest = digest * multiplier ^ word
    if whole < length:
        for at in range(length - 1, whole - 1, -1):
            digest = digest ^ keys[:, at].astype(np.uint32) << np.uint32(8 * (at - whole))
        digest = digest * multiplier
    digest = (digest ^ digest >> np.uint32(13)) * multiplier
    return digest ^ digest >> np.uint32(15)
