"""A block: a columnar batch of events, laid out in one slot of shared memory.

A block owns no memory: it is numpy arrays over a slice of a buffer that somebody else keeps. Beside the
columns it has an arena of bytes, in which each event that passed decoding is stored as one row, already in
the layout of Postgres's binary COPY, so that the sink sends slices of the arena as they are::

    row_starts[i]
    │
    ▼
    00 07 │ 00 00 00 04 · log_id │ 00 00 00 08 · kafka_offset │ 00 00 00 08 · ts │
    len · user_id │ len · event_type │ len · page_url │ len · session_id

All numbers are big-endian; ts is in microseconds since 2000-01-01; each len is an int32. The strings of a row
are found from `row_starts` and `lengths` (see `text_starts`). Raw bytes of refused messages lie in the same
arena, found by `payload_starts` and `payload_lengths`.

Rows stand in the order in which they were appended: within one log by rising offset. `logs` has one entry per
log that the block touches, in the order of the worker's logs; it holds what the ledger will say.

Invariants: 0 <= rows <= capacity; 0 <= arena_used <= arena.size; each offset of a log lies in
[first_offset, next_offset); received == counts.sum() == number of rows of that log.
"""

from dataclasses import dataclass

import numpy as np

from hotpath.events import CLASS_COUNT, TEXT_FIELDS

ROW_PREFIX_BYTES = 2 + (4 + 4) + (4 + 8) + (4 + 8)
"""Bytes of a COPY row before its first string: field count, log_id, kafka_offset, ts."""
LENGTH_BYTES = 4
ROW_FIXED_BYTES = ROW_PREFIX_BYTES + LENGTH_BYTES * len(TEXT_FIELDS)
"""Bytes of a COPY row beside its strings."""

LOG_DTYPE = np.dtype(
    [
        ("log_id", np.int64),
        ("epoch", np.int64),
        ("first_offset", np.int64),
        ("next_offset", np.int64),
        ("watermark_s", np.int64),  # greatest second so far, 0 before the first event
        ("received", np.int64),
        ("counts", np.int64, (CLASS_COUNT,)),
    ]
)

HEADER_FIELDS = ("rows", "arena_used", "log_count", "opened_at_us")

_ALIGNMENT = 64  # a cache line: columns never share one


def _columns(capacity: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Name, dtype and shape of each column."""
    rows = (capacity,)
    return {
        "times_us": (np.dtype(np.int64), rows),  # event time, microseconds since 1970
        "offsets": (np.dtype(np.int64), rows),
        "user_hashes": (np.dtype(np.int64), rows),  # of user_id; salted per process, never stored
        "session_hashes": (np.dtype(np.int64), rows),  # of (user_id, session_id)
        "page_hashes": (np.dtype(np.int64), rows),  # of page_url
        "row_starts": (np.dtype(np.int64), rows),  # into the arena; -1 when the message is no event
        "row_lengths": (np.dtype(np.int32), rows),
        "lengths": (np.dtype(np.int32), (len(TEXT_FIELDS), capacity)),  # of each string, by TEXT_FIELDS
        "payload_starts": (np.dtype(np.int32), rows),  # into the arena; -1 when none is kept
        "payload_lengths": (np.dtype(np.int32), rows),
        "payload_sizes": (np.dtype(np.int32), rows),  # of the whole message, where a payload is kept
        "log_indexes": (np.dtype(np.int16), rows),  # into `logs`
        "classes": (np.dtype(np.uint8), rows),  # EventClass
        "details": (np.dtype(np.uint8), rows),  # events.Detail
        "page_views": (np.dtype(np.bool_), rows),
    }


@dataclass(frozen=True)
class BlockShape:
    """How large the blocks of a ring are: `rows_max` events, `arena_bytes` of strings, `logs_max` logs."""

    rows_max: int
    arena_bytes: int
    logs_max: int

    @property
    def nbytes(self) -> int:
        """Bytes of one slot, a multiple of a cache line."""
        return sum(nbytes for _, _, _, nbytes in self.layout())

    def layout(self) -> list[tuple[str, np.dtype, tuple[int, ...], int]]:
        """(name, dtype, shape, bytes with padding) of every part of a slot, in order."""
        parts = {
            "header": (np.dtype(np.int64), (len(HEADER_FIELDS),)),
            "logs": (LOG_DTYPE, (self.logs_max,)),
            **_columns(self.rows_max),
            "arena": (np.dtype(np.uint8), (self.arena_bytes,)),
        }
        return [
            (name, dtype, shape, -(-dtype.itemsize * int(np.prod(shape)) // _ALIGNMENT) * _ALIGNMENT)
            for name, (dtype, shape) in parts.items()
        ]


class Block:
    """One slot as numpy arrays; every public array attribute is a view into the slot's memory."""

    times_us: np.ndarray
    offsets: np.ndarray
    user_hashes: np.ndarray
    session_hashes: np.ndarray
    page_hashes: np.ndarray
    row_starts: np.ndarray
    row_lengths: np.ndarray
    lengths: np.ndarray
    payload_starts: np.ndarray
    payload_lengths: np.ndarray
    payload_sizes: np.ndarray
    log_indexes: np.ndarray
    classes: np.ndarray
    details: np.ndarray
    page_views: np.ndarray
    logs: np.ndarray
    arena: np.ndarray

    def __init__(self, shape: BlockShape, buffer: memoryview | bytearray, at: int = 0) -> None:
        """Map `shape.nbytes` bytes of `buffer`, from byte `at` on. Raises ValueError when it is too small."""
        self.shape = shape
        self.capacity = shape.rows_max
        for name, dtype, dims, nbytes in shape.layout():
            count = int(np.prod(dims))
            setattr(self, name, np.frombuffer(buffer, dtype, count, at).reshape(dims))
            at += nbytes

    @classmethod
    def private(cls, rows_max: int, arena_bytes: int, logs_max: int = 64) -> "Block":
        """A block over memory of its own: for tests and benchmarks."""
        shape = BlockShape(rows_max, arena_bytes, logs_max)
        return cls(shape, bytearray(shape.nbytes))

    # The header's fields, by name.
    @property
    def rows(self) -> int:
        return int(self.header[0])

    @rows.setter
    def rows(self, value: int) -> None:
        self.header[0] = value

    @property
    def arena_used(self) -> int:
        return int(self.header[1])

    @arena_used.setter
    def arena_used(self, value: int) -> None:
        self.header[1] = value

    @property
    def log_count(self) -> int:
        return int(self.header[2])

    @log_count.setter
    def log_count(self, value: int) -> None:
        self.header[2] = value

    @property
    def opened_at_us(self) -> int:
        """When the first message of the block was consumed, microseconds since 1970."""
        return int(self.header[3])

    @opened_at_us.setter
    def opened_at_us(self, value: int) -> None:
        self.header[3] = value

    def clear(self) -> None:
        """Make the slot an empty block; columns beyond `rows` are never read, so they keep their bytes."""
        self.header[:] = 0

    def fits(self, messages: int, message_bytes: int) -> bool:
        """Whether `messages` more messages with `message_bytes` bytes in all are sure to fit.

        The strings of a message are never longer than the message, and at most as much again is kept of
        it as raw bytes when it is refused.
        """
        arena_needed = messages * ROW_FIXED_BYTES + 2 * message_bytes
        return self.rows + messages <= self.capacity and self.arena_used + arena_needed <= self.arena.size

    def text_starts(self, field: int, rows: np.ndarray | slice) -> np.ndarray:
        """Where string `field` (an index into TEXT_FIELDS) of `rows` begins in the arena: int64, bytes."""
        starts = self.row_starts[rows] + (ROW_PREFIX_BYTES + LENGTH_BYTES)
        for before in range(field):
            starts += self.lengths[before, rows] + LENGTH_BYTES
        return starts

    def text(self, field: int, row: int) -> bytes:
        """String `field` (an index into TEXT_FIELDS) of one row, as UTF-8."""
        start = int(self.text_starts(field, slice(row, row + 1))[0])
        return self.arena[start : start + int(self.lengths[field, row])].tobytes()

    def payload(self, row: int) -> bytes:
        """The raw bytes kept of a refused message."""
        start = int(self.payload_starts[row])
        return self.arena[start : start + int(self.payload_lengths[row])].tobytes()
