"""From rows to changes of the views: what one log's views must learn of a range of its offsets.

Two sources, one shape: the accepted rows of a committed block, and aggregates that Postgres made of the same
rows. Work per event is vectorised; Python touches only distinct things.

Hashes stand for strings when rows are grouped (64 bits, salted per process: see shm/block.py); the strings
are read for one row of each group.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from hotpath.events import TEXT_FIELDS, EventClass
from hotpath.shm.block import Block
from hotpath.views.keys import STEP_US
from hotpath.views.slots import Slots

PAIRS_MAX = 500
"""Distinct (step, page) pairs of one piece: a script adds them in 2 to 3 ms. 1,000 were over 5 on a busy machine,
for which readers would have to wait."""

USER, PAGE, SESSION = (TEXT_FIELDS.index(name) for name in ("user_id", "page_url", "session_id"))
_STEP_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: spreads steps over a hash's bits

Counts = list[list]
"""[[step, [page_url, n, page_url, n, ...]], ...] with page_url as bytes."""


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class CountPiece:
    """Page views of the offsets [first_offset, next_offset), applied all or not at all."""

    first_offset: int
    next_offset: int
    counts: Counts = field(default_factory=list)


@dataclass
class LogChanges:
    """What the views of one log learn from the offsets [first_offset, next_offset).

    seen: [user_id, session_id, step, ...] flat, ids as bytes, one entry per (user, session).
    pieces: adjoining, from first_offset to next_offset; never none.
    watermark_s: greatest second of the log once all this is applied.

    Of a block's changes only, all int64: session_hashes, seen_steps: of the entries of `seen`. slots, slot_steps: of
    the sessions whose slots are known and which are not in `seen`; the same one may come more than once.
    """

    log_id: int
    first_offset: int
    next_offset: int
    watermark_s: int
    seen: list
    pieces: list[CountPiece]
    session_hashes: np.ndarray = field(default_factory=_none)
    seen_steps: np.ndarray = field(default_factory=_none)
    slots: np.ndarray = field(default_factory=_none)
    slot_steps: np.ndarray = field(default_factory=_none)


@dataclass
class _Draft:
    """Changes of one log with rows of the block in place of texts, which are cut out for all logs at once.

    rows, steps: of `seen`. pieces: each with (rows, steps, counts) of its pairs.
    """

    changes: LogChanges
    rows: np.ndarray
    steps: np.ndarray
    pieces: list[tuple[CountPiece, np.ndarray, np.ndarray, np.ndarray]]


def fold_block(
    block: Block, from_offsets: dict[int, int], slots: dict[int, Slots] | None = None
) -> list[LogChanges]:
    """Changes by the accepted rows of some of the block's logs (indexes into `block.logs`), in their order.

    from_offsets: the offset of each from which on its rows count. slots: what is known of each; None: nothing.
    """
    starts = np.full(block.logs.size, np.iinfo(np.int64).max)
    starts[list(from_offsets)] = list(from_offsets.values())
    logs = block.log_indexes[: block.rows]
    rows = np.flatnonzero(
        (block.classes[: block.rows] == EventClass.ACCEPTED) & (block.offsets[: block.rows] >= starts[logs])
    )
    rows = rows[np.argsort(logs[rows], kind="stable")]
    steps = block.times_us[rows] // STEP_US
    firsts = np.searchsorted(logs[rows], list(from_offsets), side="left").tolist()
    ends = np.searchsorted(logs[rows], list(from_offsets), side="right").tolist()
    drafts = [
        _draft(block, log_index, start, rows[first:end], steps[first:end], slots)
        for (log_index, start), first, end in zip(from_offsets.items(), firsts, ends, strict=True)
    ]
    _cut_out_texts(block, drafts)
    return [draft.changes for draft in drafts]


def _draft(
    block: Block,
    log_index: int,
    from_offset: int,
    rows: np.ndarray,
    steps: np.ndarray,
    slots: dict[int, Slots] | None,
) -> _Draft:
    """The changes of one log, of which these are the rows by rising offset."""
    entry = block.logs[log_index]
    next_offset = int(entry["next_offset"])
    changes = LogChanges(int(entry["log_id"]), from_offset, next_offset, int(entry["watermark_s"]), [], [])
    views = block.page_views[rows]
    draft = _Draft(changes, rows, steps, [])
    _split(block, rows[views], steps[views], CountPiece(from_offset, next_offset), draft.pieces)
    changes.pieces = [piece for piece, *_ in draft.pieces]
    hashes = block.session_hashes[rows]
    if slots is not None:
        known = slots[log_index]
        places = known.of(hashes)
        there = np.flatnonzero(places >= 0)
        rises = there[known.rises(places[there], steps[there])]
        changes.slots, changes.slot_steps = places[rises], steps[rises]
        named = np.flatnonzero(places < 0)
        rows, steps, hashes = rows[named], steps[named], hashes[named]
    order, starts = _groups(hashes)
    if starts.size:
        steps = np.maximum.reduceat(steps[order], starts)
    firsts = order[starts]
    draft.rows, draft.steps = rows[firsts], steps
    changes.session_hashes, changes.seen_steps = hashes[firsts], steps
    return draft


def _split(
    block: Block,
    rows: np.ndarray,
    steps: np.ndarray,
    piece: CountPiece,
    pieces: list[tuple[CountPiece, np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    """Append `piece` with the counts of `rows`, or its halves by offset where it has too many pairs."""
    pairs = block.page_hashes[rows].view(np.uint64) ^ (steps.astype(np.uint64) * _STEP_FACTOR)
    order, starts = _groups(pairs)
    if starts.size > PAIRS_MAX:
        middle = rows.size // 2
        border = int(block.offsets[rows[middle]])
        lower = CountPiece(piece.first_offset, border)
        _split(block, rows[:middle], steps[:middle], lower, pieces)
        _split(block, rows[middle:], steps[middle:], CountPiece(border, piece.next_offset), pieces)
        return
    firsts = order[starts]
    firsts_by_step = np.argsort(steps[firsts], kind="stable")
    counts = np.diff(starts, append=rows.size)[firsts_by_step]
    firsts = firsts[firsts_by_step]
    pieces.append((piece, rows[firsts], steps[firsts], counts))


def _cut_out_texts(block: Block, drafts: list[_Draft]) -> None:
    """Fill in `seen` and the pieces' counts."""
    if not drafts:
        return
    # One copy: slicing bytes costs half of what slicing a memoryview and copying that does.
    arena = block.arena[: block.arena_used].tobytes()
    rows = np.concatenate([draft.rows for draft in drafts])
    users = iter(_texts(block, arena, USER, rows))
    sessions = iter(_texts(block, arena, SESSION, rows))
    rows = np.concatenate([rows for draft in drafts for _, rows, _, _ in draft.pieces])
    pages = iter(_texts(block, arena, PAGE, rows))
    for draft in drafts:
        count = draft.rows.size
        flat: list = [None] * (3 * count)
        flat[0::3], flat[1::3] = islice(users, count), islice(sessions, count)
        flat[2::3] = draft.steps.tolist()
        draft.changes.seen = flat
        for piece, _, steps, counts in draft.pieces:
            first = 0
            for end in (np.flatnonzero(np.diff(steps, append=-1)) + 1).tolist():
                increments: list = [None] * (2 * (end - first))
                increments[0::2], increments[1::2] = islice(pages, end - first), counts[first:end].tolist()
                piece.counts.append([int(steps[first]), increments])
                first = end


def _groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order that brings equal values together, and where in it each group starts."""
    order = np.argsort(values)
    ordered = values[order]
    return order, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: values.size])


def _texts(block: Block, arena: bytes, text_field: int, rows: np.ndarray) -> list[bytes]:
    starts = block.text_starts(text_field, rows)
    ends = starts + block.lengths[text_field, rows]
    return [arena[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def fold_seen(rows: Iterable[tuple[str, str, int]]) -> list:
    """Last-seen updates of (user_id, session_id, step) rows, each pair once, in the shape of LogChanges.seen."""
    return [value for user, session, step in rows for value in (user.encode(), session.encode(), step)]


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
