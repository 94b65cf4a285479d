"""From rows to changes of the views: what one log's views must learn of a range of its offsets.

Two sources, one shape: the accepted rows of a committed block, and aggregates that Postgres made of the same
rows. Work per event is vectorised; Python touches only distinct things.

Hashes stand for strings when rows are grouped (64 bits, salted per process: see shm/block.py); the strings
are read for one row of each group.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hotpath.events import TEXT_FIELDS, EventClass
from hotpath.shm.block import Block
from hotpath.views.keys import STEP_US

PAIRS_MAX = 500
"""Distinct (step, page) pairs of one piece: a script adds them in 2 to 3 ms. 1,000 were over 5 on a busy machine,
for which readers would have to wait."""

USER, PAGE, SESSION = (TEXT_FIELDS.index(name) for name in ("user_id", "page_url", "session_id"))
_STEP_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: spreads steps over a hash's bits

Counts = list[list]
"""[[step, [page_url, n, page_url, n, ...]], ...] with page_url as bytes."""


@dataclass
class CountPiece:
    """Page views of the offsets [first_offset, next_offset), applied all or not at all."""

    first_offset: int
    next_offset: int
    counts: Counts = field(default_factory=list)


@dataclass
class LogChanges:
    """What the views of one log learn from the offsets [first_offset, next_offset).

    seen: [user_id, session_id, step, ...] flat, ids as bytes, one entry per (user, session), a user's together.
    pieces: adjoining, from first_offset to next_offset; never none.
    watermark_s: greatest second of the log once all this is applied.
    """

    log_id: int
    first_offset: int
    next_offset: int
    watermark_s: int
    seen: list
    pieces: list[CountPiece]


def fold_block(block: Block, from_offsets: dict[int, int]) -> list[LogChanges]:
    """Changes by the accepted rows of some of the block's logs (indexes into `block.logs`), in their order.

    from_offsets: the offset of each from which on its rows count.
    """
    # One copy: slicing bytes costs half of what slicing a memoryview and copying that does.
    arena = block.arena[: block.arena_used].tobytes()
    return [_fold_log(block, arena, log_index, start) for log_index, start in from_offsets.items()]


def _fold_log(block: Block, arena: bytes, log_index: int, from_offset: int) -> LogChanges:
    entry = block.logs[log_index]
    next_offset = int(entry["next_offset"])
    rows = np.flatnonzero(
        (block.log_indexes[: block.rows] == log_index)
        & (block.classes[: block.rows] == EventClass.ACCEPTED)
        & (block.offsets[: block.rows] >= from_offset)
    )
    steps = block.times_us[rows] // STEP_US
    seen = _last_seen(block, arena, rows, steps)
    views = block.page_views[rows]
    pieces: list[CountPiece] = []
    _split(block, arena, rows[views], steps[views], CountPiece(from_offset, next_offset), pieces)
    return LogChanges(int(entry["log_id"]), from_offset, next_offset, int(entry["watermark_s"]), seen, pieces)


def _last_seen(block: Block, arena: bytes, rows: np.ndarray, steps: np.ndarray) -> list:
    if not rows.size:
        return []
    order, starts = _groups(block.session_hashes[rows])
    newest = np.maximum.reduceat(steps[order], starts)
    kept = rows[order[starts]]
    by_user = np.argsort(block.user_hashes[kept], kind="stable")
    kept = kept[by_user]
    users = _texts(block, arena, USER, kept)
    sessions = _texts(block, arena, SESSION, kept)
    flat: list = [None] * (3 * len(kept))
    flat[0::3], flat[1::3], flat[2::3] = users, sessions, newest[by_user].tolist()
    return flat


def _split(
    block: Block,
    arena: bytes,
    rows: np.ndarray,
    steps: np.ndarray,
    piece: CountPiece,
    pieces: list[CountPiece],
) -> None:
    """Append `piece` with the counts of `rows`, or its halves by offset where it has too many pairs."""
    if not rows.size:
        pieces.append(piece)
        return
    pairs = block.page_hashes[rows].view(np.uint64) ^ (steps.astype(np.uint64) * _STEP_FACTOR)
    order, starts = _groups(pairs)
    if starts.size > PAIRS_MAX:
        middle = rows.size // 2
        border = int(block.offsets[rows[middle]])
        lower = CountPiece(piece.first_offset, border)
        _split(block, arena, rows[:middle], steps[:middle], lower, pieces)
        _split(block, arena, rows[middle:], steps[middle:], CountPiece(border, piece.next_offset), pieces)
        return
    counts = np.diff(starts, append=rows.size)
    firsts = order[starts]
    pages = _texts(block, arena, PAGE, rows[firsts])
    by_step: dict[int, list] = {}
    for step, page, count in zip(steps[firsts].tolist(), pages, counts.tolist(), strict=True):
        by_step.setdefault(step, []).extend((page, count))
    piece.counts = [[step, increments] for step, increments in by_step.items()]
    pieces.append(piece)


def _groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order that brings equal values together, and where in it each group starts."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def _texts(block: Block, arena: bytes, text_field: int, rows: np.ndarray) -> list[bytes]:
    starts = block.text_starts(text_field, rows)
    ends = starts + block.lengths[text_field, rows]
    return [arena[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def fold_seen(rows: Iterable[tuple[str, str, int]]) -> list:
    """Last-seen updates of (user_id, session_id, step) rows, each pair once, in the shape of LogChanges.seen."""
    by_user: dict[str, list] = {}
    for user, session, step in rows:
        by_user.setdefault(user, []).extend((user.encode(), session.encode(), step))
    return [value for entries in by_user.values() for value in entries]


def fold_counts(
    rows: Iterable[tuple[int, int, str, int]], first_offset: int, next_offset: int, bucket_offsets: int
) -> list[CountPiece]:
    """Adjoining pieces of (bucket, step, page_url, n) rows, the buckets rising; at most PAIRS_MAX pairs each.

    A bucket is `bucket_offsets` offsets, counted from `first_offset`, and at most PAIRS_MAX of them, so that one
    bucket always fits a piece.
    """
    pieces: list[CountPiece] = []
    start = first_offset
    pairs: dict[tuple[int, str], int] = {}
    held, held_bucket = {}, -1  # the bucket being read: whole buckets only go into a piece

    def close(border: int) -> None:
        nonlocal start, pairs
        pieces.append(CountPiece(start, border, counts_by_step(pairs.items())))
        start, pairs = border, {}

    def merge() -> None:
        nonlocal pairs
        if len(pairs.keys() | held.keys()) > PAIRS_MAX:
            close(first_offset + held_bucket * bucket_offsets)
        for pair, count in held.items():
            pairs[pair] = pairs.get(pair, 0) + count

    for bucket, step, page, count in rows:
        if bucket != held_bucket:
            merge()
            held, held_bucket = {}, bucket
        held[(step, page)] = count
    merge()
    close(next_offset)
    return pieces


def counts_by_step(pairs: Iterable[tuple[tuple[int, str], int]]) -> Counts:
    """Counts in the shape that scripts take."""
    by_step: dict[int, list] = {}
    for (step, page), count in pairs:
        by_step.setdefault(step, []).extend((page.encode(), count))
    return [[step, increments] for step, increments in by_step.items()]
