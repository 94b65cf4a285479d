"""What a block adds to the history by minute: two streams of Postgres's binary COPY, of a few rows each.

Counted as the block stands when it is stored, in the same transaction, so that rows which Postgres refused are not in.
Work per event is vectorised and does not sort: 0.03 µs an event of full blocks. Pages are told apart by their hashes,
and an element of the array of pages is a piece of the arena as it is: its length stands before each string (see
shm/block.py).
"""

import struct
from dataclasses import dataclass

import numpy as np

from hotpath.events import EPOCH_2000_US, TEXT_FIELDS, EventClass
from hotpath.shm.block import LENGTH_BYTES, Block
from hotpath.workers.copy_format import HEADER, TRAILER

MINUTE_US = 60_000_000
PAGE = TEXT_FIELDS.index("page_url")
CELLS_MAX = 1 << 16
"""(minute, log) pairs that are counted in a table; blocks with events of years have more, and are sorted."""
SLOTS = 1 << 16
"""Slots of the table of pages: with a thousand pages hardly one in a hundred shares its slot."""

_MINUTE_FACTOR = np.int64(
    0x1E3779B97F4A7C15
)  # odd, from the golden ratio: spreads minutes over a hash's bits
_HAS_MINUTE = np.zeros(256, bool)
_HAS_MINUTE[[EventClass.ACCEPTED, EventClass.BOT, EventClass.LATE]] = True
_MINUTES_ROW = np.dtype(
    [
        ("columns", ">i2"),
        ("minute_bytes", ">i4"),
        ("minute", ">i8"),
        ("log_id_bytes", ">i4"),
        ("log_id", ">i4"),
    ]
    + [
        pair
        for name in ("accepted", "page_views", "bot", "late")
        for pair in ((f"{name}_bytes", ">i4"), (name, ">i8"))
    ]
)
_VIEWS_ELEMENT = np.dtype([("bytes", ">i4"), ("views", ">i8")])
_PAGES_HEAD = struct.Struct(">hiq")  # columns, length and value of the minute
_LENGTH = struct.Struct(">i")
_ARRAY_HEAD = struct.Struct(
    ">iiIii"
)  # dimensions, no nulls, type of the elements, how many, the first's number
_TEXT_OID, _INT8_OID = 25, 20


@dataclass(frozen=True)
class MinuteCounts:
    """Events by log and minute, n pairs: `minutes` since 1970 and `log_indexes` (into the block's logs), int64[n];
    `counts`: int64[n] for each of accepted, page_views (of those), bot, late."""

    minutes: np.ndarray
    log_indexes: np.ndarray
    counts: dict[str, np.ndarray]


def minute_counts(block: Block) -> MinuteCounts | None:
    """What a block has by log and minute of event time; None for nothing."""
    classes = block.classes[: block.rows]
    rows = np.flatnonzero(_HAS_MINUTE[classes])
    if not rows.size:
        return None
    minutes = block.times_us[rows] // MINUTE_US
    least = int(minutes.min())
    cells = (minutes - least) * block.log_count + block.log_indexes[rows]
    known = None
    if int(cells.max()) >= CELLS_MAX:
        known, cells = np.unique(cells, return_inverse=True)
    of = classes[rows]
    accepted = of == EventClass.ACCEPTED
    counted = {
        "accepted": accepted,
        "page_views": accepted & block.page_views[rows],
        "bot": of == EventClass.BOT,
        "late": of == EventClass.LATE,
    }
    length = int(cells.max()) + 1
    counts = {name: np.bincount(cells[which], minlength=length) for name, which in counted.items()}
    used = np.flatnonzero(counts["accepted"] + counts["bot"] + counts["late"])
    where = used if known is None else known[used]
    counts = {name: count[used] for name, count in counts.items()}
    return MinuteCounts(where // block.log_count + least, where % block.log_count, counts)


def minute_rows(block: Block) -> bytes | None:
    """The COPY stream for `history_minutes`. None for no rows."""
    found = minute_counts(block)
    if found is None:
        return None
    stream = np.zeros(found.minutes.size, _MINUTES_ROW)
    stream["columns"] = 6
    stream["minute_bytes"], stream["log_id_bytes"] = 8, 4
    stream["minute"] = found.minutes * MINUTE_US - EPOCH_2000_US
    stream["log_id"] = block.logs["log_id"][found.log_indexes]
    for name, count in found.counts.items():
        stream[f"{name}_bytes"], stream[name] = 8, count
    return HEADER + stream.tobytes() + TRAILER


def page_rows(block: Block) -> bytes | None:
    """The COPY stream for `history_pages`: page views of accepted events by minute and page. None for none."""
    rows = np.flatnonzero(
        (block.classes[: block.rows] == EventClass.ACCEPTED) & block.page_views[: block.rows]
    )
    if not rows.size:
        return None
    minutes = block.times_us[rows] // MINUTE_US
    firsts, counts = _grouped(block.page_hashes[rows] ^ (minutes * _MINUTE_FACTOR))
    arena = memoryview(block.arena)
    parts = [HEADER]
    for minute in np.unique(minutes[firsts]).tolist():
        mine = minutes[firsts] == minute
        parts += _page_row(block, arena, minute, rows[firsts[mine]], counts[mine])
    parts.append(TRAILER)
    return b"".join(parts)


def _page_row(
    block: Block, arena: memoryview, minute: int, rows: np.ndarray, counts: np.ndarray
) -> list[bytes | memoryview]:
    starts = block.text_starts(PAGE, rows) - LENGTH_BYTES
    ends = starts + LENGTH_BYTES + block.lengths[PAGE, rows]
    pages = [arena[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    views = np.empty(rows.size, _VIEWS_ELEMENT)
    views["bytes"], views["views"] = 8, counts
    return [
        _PAGES_HEAD.pack(3, 8, minute * MINUTE_US - EPOCH_2000_US),
        _LENGTH.pack(_ARRAY_HEAD.size + int(np.sum(ends - starts))),
        _ARRAY_HEAD.pack(1, 0, _TEXT_OID, rows.size, 1),
        *pages,
        _LENGTH.pack(_ARRAY_HEAD.size + views.nbytes),
        _ARRAY_HEAD.pack(1, 0, _INT8_OID, rows.size, 1),
        views.tobytes(),
    ]


def _grouped(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where one of each group of equal keys stands, and the sizes of the groups.

    Each key writes its place into its slot; what reads its own key there is of the slot's group. The others share a
    slot with another key, and are few enough to be sorted.
    """
    slots = keys & (SLOTS - 1)
    table = np.empty(SLOTS, np.int32)
    table[slots] = np.arange(keys.size, dtype=np.int32)
    owners = table[slots]
    settled = keys[owners] == keys
    sizes = np.bincount(owners[settled], minlength=keys.size)
    firsts = np.flatnonzero(sizes)
    sizes = sizes[firsts]
    left = np.flatnonzero(~settled)
    if left.size:
        _, others, counts = np.unique(keys[left], return_index=True, return_counts=True)
        firsts, sizes = np.concatenate((firsts, left[others])), np.concatenate((sizes, counts))
    return firsts, sizes
