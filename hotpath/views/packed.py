"""Payloads of scripts, packed column by column as msgpack has them: no object is made of what is only handed on.

A block's strings go from its arena into a payload by a few numpy calls for all of them. As objects of Python each
costs several times as much, to be cut out and to be packed.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np

STRING_MAX = 0xFFFF
"""Bytes of a string, which stands behind one byte of its kind and two of its length."""
STRING_HEAD_BYTES = 3

# Kinds of msgpack's specification, each of the one length that all of its kind have here.
_STRING, _ARRAY, _NUMBER = 0xDA, 0xDD, 0xCE
_ARRAY_HEAD = struct.Struct(">BI")
_STRING_HEAD = struct.Struct(">BH")
_NUMBERS = np.dtype([("kind", np.uint8), ("value", ">u4")])


def pack(value: Any) -> bytes:
    """Any value. Strings are raw ones: Redis's cmsgpack hands them to Lua byte for byte."""
    return msgpack.packb(value, use_bin_type=False)


def array(count: int, *items: bytes) -> bytes:
    """An array of `count` items that are packed already."""
    return b"".join((_ARRAY_HEAD.pack(_ARRAY, count), *items))


def numbers(values: np.ndarray) -> bytes:
    """An array of whole numbers from 0 to 2^32 - 1."""
    return array(values.size, _numbers(values).tobytes())


def _numbers(values: np.ndarray) -> np.ndarray:
    items = np.empty(values.size, _NUMBERS)
    items["kind"], items["value"] = _NUMBER, values
    return items


class Strings:
    """Strings one behind the other, packed; item i lies between `bounds[i]` and `bounds[i + 1]` (int64) of `data`.

    With numbers (see `cut_out`) an item is a string and the number that belongs to it.
    """

    def __init__(self, data: bytes, bounds: np.ndarray) -> None:
        self.data = data
        self.bounds = bounds

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "Strings":
        """Of strings that are objects already, STRING_MAX bytes each at most."""
        items = [_STRING_HEAD.pack(_STRING, len(text)) + text for text in texts]
        return cls(b"".join(items), np.cumsum([0, *map(len, items)]))

    def __len__(self) -> int:
        return self.bounds.size - 1

    def part(self, start: int, stop: int) -> bytes:
        """The items from `start` to before `stop`, without what would make an array of them."""
        return self.data[self.bounds[start] : self.bounds[stop]]


def cut_out(
    arenas: Sequence[np.ndarray],
    which: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    *,
    behind_length: bool = False,
    counts: np.ndarray | None = None,
) -> Strings:
    """Strings of n places: of `arenas[which]` (uint8) the bytes from `starts` on, `lengths` (int64) of them.

    Before each string must stand its length in four bytes, as in sealed rows, and behind it as many more bytes as a
    number takes. behind_length: have the length, in one byte, as the first of the string itself. counts: a number
    that belongs to each. Fast where neighbours lie in one arena, and in the order in which they lie there.
    """
    head = STRING_HEAD_BYTES + behind_length
    tail = _NUMBERS.itemsize if counts is not None else 0
    sizes = lengths + (head + tail)
    bounds = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    data = np.empty(bounds[-1], np.uint8)
    begins = bounds[:-1]
    sources = np.arange(data.size)
    sources += np.repeat(starts - head - begins, sizes)
    runs = np.flatnonzero(np.diff(which, prepend=-1, append=-1))
    for arena, (first, end) in zip(which[runs[:-1]].tolist(), pairwise(bounds[runs].tolist()), strict=True):
        np.take(arenas[arena], sources[first:end], out=data[first:end], mode="clip")
    # The two low bytes of the length in the arena are in their places; the first ones are 0.
    data[begins] = _STRING
    if behind_length:
        data[begins + 2] = lengths + 1
    if counts is not None and counts.size:
        items = np.ndarray((data.size - tail + 1,), f"V{tail}", data, 0, (1,))
        items[bounds[1:] - tail] = _numbers(counts).view(f"V{tail}")
    return Strings(data.tobytes(), bounds)
