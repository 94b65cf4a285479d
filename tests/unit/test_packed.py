"""Packed payloads: what msgpack reads out of them is what was put in."""

import msgpack
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from hotpath.views import packed

ENTRIES = st.lists(
    st.tuples(st.integers(0, 2), st.binary(max_size=300), st.integers(0, 2**32 - 1)), max_size=30
)


def read(data: bytes) -> object:
    return msgpack.unpackb(data, raw=True)


def arenas_of(entries: list[tuple[int, bytes, int]]) -> tuple[list[np.ndarray], np.ndarray]:
    """Three arenas with the strings of the entries, each behind its length as in sealed rows; where each begins."""
    arenas, starts = [bytearray(), bytearray(), bytearray()], []
    for arena, text, _ in entries:
        arenas[arena] += b"\xff" * 3 + len(text).to_bytes(4, "big")
        starts.append(len(arenas[arena]))
        arenas[arena] += text
    return [np.frombuffer(arena + b"\xff" * 8, np.uint8) for arena in arenas], np.array(starts, np.int64)


@given(ENTRIES, st.data())
def test_strings_that_are_cut_out_and_their_numbers_are_those_of_the_arenas(entries, data):
    arenas, starts = arenas_of(entries)
    which = np.array([arena for arena, _, _ in entries], np.int64)
    lengths = np.array([len(text) for _, text, _ in entries], np.int64)
    counts = np.array([count for _, _, count in entries], np.int64)
    start = data.draw(st.integers(0, len(entries)))
    stop = data.draw(st.integers(start, len(entries)))
    texts = packed.cut_out(arenas, which, starts, lengths)
    assert len(texts) == len(entries)
    assert read(packed.array(stop - start, texts.part(start, stop))) == [t for _, t, _ in entries[start:stop]]
    counted = packed.cut_out(arenas, which, starts, lengths, counts=counts).part(start, stop)
    wanted = [part for _, text, count in entries[start:stop] for part in (text, count)]
    assert read(packed.array(2 * (stop - start), counted)) == wanted


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=128), st.just(0)), max_size=30))
def test_a_length_can_be_the_first_byte_of_a_string(entries):
    arenas, starts = arenas_of(entries)
    which = np.array([arena for arena, _, _ in entries], np.int64)
    lengths = np.array([len(text) for _, text, _ in entries], np.int64)
    texts = packed.cut_out(arenas, which, starts, lengths, behind_length=True)
    wanted = [bytes([len(text)]) + text for _, text, _ in entries]
    assert read(packed.array(len(texts), texts.part(0, len(texts)))) == wanted
    objects = packed.Strings.of(wanted)
    assert texts.data == objects.data
    assert texts.bounds.tolist() == objects.bounds.tolist()


@given(st.lists(st.integers(0, 2**32 - 1)))
@example([2**32 - 1])
def test_numbers(values):
    assert read(packed.numbers(np.array(values, np.int64))) == values


def test_the_longest_string():
    text = b"x" * packed.STRING_MAX
    assert read(packed.array(1, packed.Strings.of([text]).part(0, 1))) == [text]
