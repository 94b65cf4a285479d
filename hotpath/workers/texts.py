"""Texts: what decoding leaves for validation, beside the block's columns.

A chunk's strings lie in the block's arena; these arrays say where. Everything is per row of the chunk, in its
order, and lives only until the chunk has been validated.

Invariants: `starts` rises; a row that is no event has four empty strings and a good timestamp; every byte
of `row_bytes` below U+0020 is either the mark before a string (see `MARK`) or a fault, and those are in `controls`.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from hotpath.events import TEXT_FIELDS, EventClass
from hotpath.shm.block import LENGTH_BYTES, ROW_FIXED_BYTES, ROW_PREFIX_BYTES, Block

MARK = "\x01..."
"""Stands in the arena where a COPY row has the four bytes of a string's length, until the row is sealed.

It begins with the only control character that a good row holds, so that one scan for control characters finds
both where the strings begin and whether any of them has one. The rest must be neither control nor space.
"""

MARK_VALUE = np.frombuffer(MARK.encode(), np.uint32)[0]
"""The four bytes as one number, so that many places are compared with it at once."""

ROW_HEAD = "." * ROW_PREFIX_BYTES + MARK
"""What stands in the arena before the first string of a row."""


@dataclass(slots=True)
class Texts:
    """Where the strings of a chunk of n messages are; offsets and lengths in bytes."""

    rows: slice
    """The chunk's rows of the block."""
    row_bytes: bytes
    """A copy of the chunk's part of the arena."""
    starts: np.ndarray
    """int64, n: where each row begins in `row_bytes`, also those that are no events."""
    string_starts: np.ndarray
    """int64, (TEXT_FIELDS, n): where each string begins in `row_bytes`."""
    lengths: np.ndarray
    """int64, (TEXT_FIELDS, n): of each string."""
    controls: np.ndarray
    """int64: rising positions in `row_bytes` of the bytes below U+0020, without those marks that are known as such."""
    stamp_bytes: bytes
    """The timestamps, each followed by a newline."""
    stamp_starts: np.ndarray
    """int64, n: where each timestamp begins in `stamp_bytes`."""
    stamp_lengths: np.ndarray
    """int64, n."""
    stamp_marks: np.ndarray
    """int64: positions in `stamp_bytes` of all bytes below U+0020."""
    event_types_allowed: np.ndarray
    """bool, n: whether event_type is of the form that is allowed."""

    @property
    def count(self) -> int:
        return self.rows.stop - self.rows.start


def place(
    block: Block,
    rows: slice,
    columns: list[list[str]],
    row_bytes: bytes,
    stamp_bytes: bytes,
    event_types_allowed: np.ndarray,
) -> Texts:
    """Copy a chunk's rows into the arena, set where they and their strings are, and return the same for validation.

    `columns`: timestamps and the TEXT_FIELDS, a string per row; `row_bytes`: the rows, each ROW_HEAD and its strings
    with a MARK before each but the first; `stamp_bytes`: the timestamps, each with a newline behind it;
    `event_types_allowed`: bool per row. Raises ValueError when the arena has no room.
    """
    stamps, *strings = columns
    at = block.arena_used
    if at + len(row_bytes) > block.arena.size:
        raise ValueError(f"an arena of {block.arena.size} bytes has no room for {len(row_bytes)} after {at}")
    region = np.frombuffer(row_bytes, np.uint8)
    block.arena[at : at + region.size] = region
    block.arena_used = at + region.size

    string_starts, lengths, controls = _find_strings(region, strings)
    starts = string_starts[0] - len(ROW_HEAD)
    block.lengths[:, rows] = lengths
    block.row_lengths[rows] = lengths.sum(axis=0) + ROW_FIXED_BYTES
    block.row_starts[rows] = starts + at
    block.row_starts[rows][block.classes[rows] != EventClass.ACCEPTED] = -1

    stamp_marks = np.flatnonzero(np.frombuffer(stamp_bytes, np.uint8) < 0x20)
    stamp_ends = stamp_marks
    if stamp_marks.size != len(stamps):
        stamp_ends = np.cumsum(_encoded_lengths([stamps])[0] + 1) - 1
    stamp_starts = np.zeros(len(stamps), np.int64)
    stamp_starts[1:] = stamp_ends[:-1] + 1
    return Texts(
        rows=rows,
        row_bytes=row_bytes,
        starts=starts,
        string_starts=string_starts,
        lengths=lengths,
        controls=controls,
        stamp_bytes=stamp_bytes,
        stamp_starts=stamp_starts,
        stamp_lengths=stamp_ends - stamp_starts,
        stamp_marks=stamp_marks,
        event_types_allowed=event_types_allowed,
    )


def _find_strings(region: np.ndarray, strings: list[list[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the strings lie in the rows `region`: starts and lengths, both int64 (TEXT_FIELDS, n); and `controls`.

    The marks tell, unless somebody has put whole marks into a string.
    """
    count = len(strings[0])
    fields = len(TEXT_FIELDS)
    marks = np.flatnonzero(region < 0x20)
    controls = marks[:0]
    if marks.size != fields * count:
        # Our own are among those that look like one: when these are as many as ours, they are ours.
        places = region.size - len(MARK) + 1
        values = np.ndarray((places,), f"V{len(MARK)}", region, 0, (1,))[np.minimum(marks, places - 1)]
        own = values.view(np.uint32) == MARK_VALUE
        marks, controls = marks[own], marks[~own]
    if marks.size == fields * count:
        starts = np.ascontiguousarray(marks.reshape(count, fields).T)
        starts += LENGTH_BYTES
        # A string reaches to the next mark, the last one of a row to the next row or the end of all.
        lengths = np.empty((fields, count), np.int64)
        lengths[:-1] = starts[1:] - starts[:-1] - LENGTH_BYTES
        lengths[-1, :-1] = starts[0, 1:] - starts[-1, :-1] - len(ROW_HEAD)
        lengths[-1, -1:] = region.size - starts[-1, -1:]
        return starts, lengths, controls
    lengths = _encoded_lengths(strings)
    starts = np.empty_like(lengths)
    row_lengths = lengths.sum(axis=0) + ROW_FIXED_BYTES
    starts[0] = np.cumsum(row_lengths) - row_lengths + len(ROW_HEAD)
    for field in range(1, fields):
        starts[field] = starts[field - 1] + lengths[field - 1] + LENGTH_BYTES
    return starts, lengths, np.sort(np.concatenate([marks, controls]))


def _encoded_lengths(columns: list[list[str]]) -> np.ndarray:
    """int64, (columns, rows): bytes of each string as UTF-8."""
    flat = map(len, map(str.encode, chain.from_iterable(columns)))
    return np.fromiter(flat, np.int64, sum(map(len, columns))).reshape(len(columns), -1)
