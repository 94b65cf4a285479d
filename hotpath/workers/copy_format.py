"""From a block to the bytes of Postgres's binary COPY: no connection, no clock, no log.

Events lie in the block's arena in the layout of a COPY row already (drawn in shm/block.py). `seal_rows` fills in
what only the later stages know; after that a stream of events is slices of the arena, one per run of neighbours:
about one for every hundred events in ordinary traffic, so that nothing here costs Python time per event. Streams
are gathered in a `CopyBuffer` that is reused: fresh memory of several MiB per flush costs page faults.

Messages that are not events are rare or capped, and are written one by one.
"""

import struct
from dataclasses import dataclass

import numpy as np

from hotpath.events import DETAIL_TEXTS, EPOCH_2000_US, QUARANTINED, TEXT_FIELDS, EventClass
from hotpath.shm.block import LENGTH_BYTES, ROW_PREFIX_BYTES, Block

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
"""Signature, flags, length of the header's extension."""
TRAILER = struct.pack(">h", -1)

COLUMNS = 3 + len(TEXT_FIELDS)

_PREFIX_DTYPE = np.dtype(
    [
        ("columns", ">i2"),
        ("log_id_bytes", ">i4"),
        ("log_id", ">i4"),
        ("offset_bytes", ">i4"),
        ("offset", ">i8"),
        ("ts_bytes", ">i4"),
        ("ts", ">i8"),
    ]
)
assert _PREFIX_DTYPE.itemsize == ROW_PREFIX_BYTES

_QUARANTINE_HEAD = struct.Struct(">h ii iq i")  # ... up to the length of the class's name
_LENGTH = struct.Struct(">i")
_SIZE_COLUMN = struct.Struct(">ii")
_QUARANTINE_COLUMNS = 6
_LABELS = {int(c): c.label.encode() for c in EventClass}
_DETAILS = {code: text.encode() for code, text in DETAIL_TEXTS.items()}


class CopyBuffer:
    """Memory that a stream is gathered in, grown when one does not fit and never given back."""

    def __init__(self, nbytes: int = 1 << 20) -> None:
        self._bytes = bytearray(nbytes)

    def view(self, nbytes: int) -> memoryview:
        """The first `nbytes` bytes, to be overwritten. Earlier views keep their own bytes when it grows."""
        if len(self._bytes) < nbytes:
            self._bytes = bytearray(nbytes + nbytes // 2)
        return memoryview(self._bytes)[:nbytes]


@dataclass(frozen=True)
class BotActivity:
    """Dropped page views by log, user and second: four lists of one length, as the columns of `bot_activity`."""

    log_ids: list[int]
    user_ids: list[str]
    seconds: list[int]
    dropped: list[int]


def seal_rows(block: Block, rows: slice) -> None:
    """Complete the arena rows of the events among `rows`: their fixed columns and the lengths of their strings.

    Needs row_starts, lengths, offsets, times_us and log_indexes of these rows, and log_id of their logs.
    """
    starts = block.row_starts[rows]
    events = np.flatnonzero(starts >= 0) + (rows.start or 0)
    if not events.size:
        return
    starts = block.row_starts[events]
    prefix = np.empty(events.size, _PREFIX_DTYPE)
    prefix["columns"] = COLUMNS
    prefix["log_id_bytes"] = 4
    prefix["log_id"] = block.logs["log_id"][block.log_indexes[events]]
    prefix["offset_bytes"] = 8
    prefix["offset"] = block.offsets[events]
    prefix["ts_bytes"] = 8
    prefix["ts"] = block.times_us[events] - EPOCH_2000_US
    _windows(block.arena, ROW_PREFIX_BYTES)[starts] = prefix.view(f"V{ROW_PREFIX_BYTES}")
    length_windows = _windows(block.arena, LENGTH_BYTES)
    at = starts + ROW_PREFIX_BYTES
    for index in range(len(TEXT_FIELDS)):
        lengths = block.lengths[index, events]
        length_windows[at] = lengths.astype(">i4").view(f"V{LENGTH_BYTES}")
        at += lengths
        at += LENGTH_BYTES


def _windows(arena: np.ndarray, nbytes: int) -> np.ndarray:
    """Every `nbytes` neighbours of the arena as one item, so that a scatter moves them in one piece.

    A matrix of byte indexes does the same at four times the cost.
    """
    return np.ndarray((arena.size - nbytes + 1,), f"V{nbytes}", arena, 0, (1,))


def event_rows(block: Block, event_class: EventClass, buffer: CopyBuffer) -> memoryview | None:
    """The COPY stream of the rows of one class, sorted by log and within a log as they came; None for no rows.

    The view is into `buffer` and good until that is used again.
    """
    rows = rows_of(block, event_class)
    return stream(block, rows, buffer) if rows.size else None


def rows_of(block: Block, event_class: EventClass) -> np.ndarray:
    """Row numbers of one class, sorted by log and within a log as they came: int64[n]."""
    rows = np.flatnonzero(block.classes[: block.rows] == event_class)
    log_indexes = block.log_indexes[rows]
    if np.any(log_indexes[1:] < log_indexes[:-1]):
        rows = rows[np.argsort(log_indexes, kind="stable")]
    return rows


def stream(block: Block, rows: np.ndarray, buffer: CopyBuffer) -> memoryview:
    """The COPY stream of these rows, in this order: slices of the arena between header and trailer."""
    starts = block.row_starts[rows]
    ends = starts + block.row_lengths[rows]
    breaks = np.flatnonzero(starts[1:] != ends[:-1])
    run_starts = np.concatenate((starts[:1], starts[breaks + 1])).tolist()
    run_ends = np.concatenate((ends[breaks], ends[-1:])).tolist()
    size = len(HEADER) + int(np.sum(ends - starts)) + len(TRAILER)
    out = buffer.view(size)
    arena = memoryview(block.arena)
    at = len(HEADER)
    out[:at] = HEADER
    for start, end in zip(run_starts, run_ends, strict=True):
        until = at + end - start
        out[at:until] = arena[start:end]
        at = until
    out[at:] = TRAILER
    return out


def quarantine_rows(block: Block) -> bytes | None:
    """The COPY stream of the messages whose raw bytes are kept; None when there are none.

    Columns: log_id, kafka_offset, class, detail, payload, payload_size.
    """
    count = block.rows
    quarantined = np.isin(block.classes[:count], QUARANTINED) & (block.payload_starts[:count] >= 0)
    rows = np.flatnonzero(quarantined)
    if not rows.size:
        return None
    rows = rows[np.argsort(block.log_indexes[rows], kind="stable")]
    parts = [HEADER]
    columns = (
        block.logs["log_id"][block.log_indexes[rows]],
        block.offsets[rows],
        block.classes[rows],
        block.details[rows],
        block.payload_starts[rows],
        block.payload_lengths[rows],
        block.payload_sizes[rows],
    )
    arena = memoryview(block.arena)
    for log_id, offset, event_class, detail, start, length, size in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        label = _LABELS[event_class]
        text = _DETAILS[detail]
        parts += (
            _QUARANTINE_HEAD.pack(_QUARANTINE_COLUMNS, 4, log_id, 8, offset, len(label)),
            label,
            _LENGTH.pack(len(text)),
            text,
            _LENGTH.pack(length),
            arena[start : start + length],
            _SIZE_COLUMN.pack(4, size),
        )
    parts.append(TRAILER)
    return b"".join(parts)


def bot_activity_rows(block: Block) -> BotActivity | None:
    """What the bots of the block add to `bot_activity`; None when there are none.

    Users are told apart by `user_hashes`, as the bot filter tells them apart.
    """
    rows = np.flatnonzero(block.classes[: block.rows] == EventClass.BOT)
    if not rows.size:
        return None
    seconds = block.times_us[rows] // 1_000_000
    logs = block.log_indexes[rows]
    order = np.lexsort((block.user_hashes[rows], seconds, logs))
    rows, seconds, logs = rows[order], seconds[order], logs[order]
    hashes = block.user_hashes[rows]
    begins = np.ones(rows.size, bool)
    begins[1:] = (hashes[1:] != hashes[:-1]) | (seconds[1:] != seconds[:-1]) | (logs[1:] != logs[:-1])
    firsts = np.flatnonzero(begins)
    return BotActivity(
        log_ids=block.logs["log_id"][logs[firsts]].tolist(),
        user_ids=[block.text(0, row).decode() for row in rows[firsts].tolist()],
        seconds=seconds[firsts].tolist(),
        dropped=np.diff(np.append(firsts, rows.size)).tolist(),
    )
