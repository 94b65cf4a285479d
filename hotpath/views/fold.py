"""From rows to changes of the views: what one log's views must learn of a range of its offsets.

Two sources, one shape: the accepted rows of committed blocks, and aggregates that Postgres made of the same
rows. Work per event is vectorised; Python touches only distinct things.

Hashes stand for strings when rows are grouped (64 bits, salted per process: see shm/block.py); the strings
are read for one row of each group.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from hotpath.events import TEXT_FIELDS, EventClass
from hotpath.shm.block import Block
from hotpath.views.keys import STEP_US
from hotpath.views.slots import Slots

PAIRS_MAX = 750
"""Distinct (step, page) pairs of one piece: a script adds them in 2 to 3.5 ms. 1,000 were over 5 on a busy machine,
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

    seen: [user_id, session, step, ...] flat, one entry per (user, session), as bytes, the session_id behind its length
    (see `session_of`); a user's further sessions stand behind the first ones of all (see `in_rounds`).
    pieces: adjoining, from first_offset to next_offset; never none.
    watermark_s: greatest second of the log once all this is applied.

    Of blocks' changes only, all int64: session_hashes, seen_steps: of the entries of `seen`. slots, slot_steps: of
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


@dataclass(frozen=True)
class _Rows:
    """The accepted rows of some blocks that count, by log, of each by rising offset: parallel arrays.

    blocks, rows: where each stands. The others are the blocks' columns of these names; steps: of their times.
    """

    blocks: np.ndarray
    rows: np.ndarray
    logs: np.ndarray
    offsets: np.ndarray
    steps: np.ndarray
    page_views: np.ndarray
    page_hashes: np.ndarray
    user_hashes: np.ndarray
    session_hashes: np.ndarray


@dataclass
class _Draft:
    """Changes of one log with places in `_Rows` instead of texts, which are cut out for all logs at once.

    places, steps: of `seen`. pieces: each with (places, steps, counts) of its pairs.
    """

    changes: LogChanges
    places: np.ndarray
    steps: np.ndarray
    pieces: list[tuple[CountPiece, np.ndarray, np.ndarray, np.ndarray]]


def fold_blocks(
    blocks: Sequence[Block], from_offsets: dict[int, int], slots: dict[int, Slots] | None = None
) -> list[LogChanges]:
    """Changes by the accepted rows of some logs (indexes into `block.logs`) of blocks that follow each other, in the
    order of `from_offsets`.

    from_offsets: the offset of each from which on its rows count. slots: what is known of each; None: nothing.
    """
    rows = _accepted(blocks, from_offsets)
    firsts = np.searchsorted(rows.logs, list(from_offsets), side="left").tolist()
    ends = np.searchsorted(rows.logs, list(from_offsets), side="right").tolist()
    drafts = [
        _draft(blocks[-1], log_index, start, rows, np.arange(first, end), slots)
        for (log_index, start), first, end in zip(from_offsets.items(), firsts, ends, strict=True)
    ]
    _cut_out_texts(blocks, rows, drafts)
    return [draft.changes for draft in drafts]


def _accepted(blocks: Sequence[Block], from_offsets: dict[int, int]) -> _Rows:
    starts = np.full(blocks[0].logs.size, np.iinfo(np.int64).max)
    starts[list(from_offsets)] = list(from_offsets.values())
    parts = []
    for number, block in enumerate(blocks):
        logs, offsets = block.log_indexes[: block.rows], block.offsets[: block.rows]
        rows = np.flatnonzero(
            (block.classes[: block.rows] == EventClass.ACCEPTED) & (offsets >= starts[logs])
        )
        columns = (
            block.offsets,
            block.times_us,
            block.page_views,
            block.page_hashes,
            block.user_hashes,
            block.session_hashes,
        )
        parts.append(
            [np.full(rows.size, number, np.int16), rows, logs[rows], *(column[rows] for column in columns)]
        )
    gathered = [np.concatenate(part) for part in zip(*parts, strict=True)]
    order = np.argsort(gathered[2], kind="stable")
    numbers, rows, logs, offsets, times_us, *rest = (column[order] for column in gathered)
    return _Rows(numbers, rows, logs, offsets, times_us // STEP_US, *rest)


def _draft(
    last: Block,
    log_index: int,
    from_offset: int,
    rows: _Rows,
    places: np.ndarray,
    slots: dict[int, Slots] | None,
) -> _Draft:
    """The changes of one log, whose rows stand in these places of `rows`, up to where it ends in the `last` block."""
    entry = last.logs[log_index]
    next_offset = int(entry["next_offset"])
    changes = LogChanges(int(entry["log_id"]), from_offset, next_offset, int(entry["watermark_s"]), [], [])
    steps = rows.steps[places]
    draft = _Draft(changes, places, steps, [])
    _split(rows, places[rows.page_views[places]], CountPiece(from_offset, next_offset), draft.pieces)
    changes.pieces = [piece for piece, *_ in draft.pieces]
    hashes = rows.session_hashes[places]
    if slots is not None:
        known = slots[log_index]
        stood = known.of(hashes)
        there = np.flatnonzero(stood >= 0)
        rises = there[known.rises(stood[there], steps[there])]
        changes.slots, changes.slot_steps = stood[rises], steps[rises]
        named = np.flatnonzero(stood < 0)
        places, steps, hashes = places[named], steps[named], hashes[named]
    order, starts = _groups(hashes)
    if starts.size:
        steps = np.maximum.reduceat(steps[order], starts)
    firsts = order[starts]
    rounds = _rounds(rows.user_hashes[places[firsts]], firsts)
    firsts, steps = firsts[rounds], steps[rounds]
    draft.places, draft.steps = places[firsts], steps
    changes.session_hashes, changes.seen_steps = hashes[firsts], steps
    return draft


def _rounds(hashes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """An order in which the first of each hash come first, then the second ones, and so on; within those by place.

    Texts are cut out in this order, a fifth faster than in any other: they lie by place in memory.
    """
    order, starts = _groups(hashes)
    numbers = np.empty(hashes.size, np.int64)
    numbers[order] = np.arange(hashes.size) - np.repeat(starts, np.diff(starts, append=hashes.size))
    return np.lexsort((places, numbers))


def _split(
    rows: _Rows,
    places: np.ndarray,
    piece: CountPiece,
    pieces: list[tuple[CountPiece, np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    """Append `piece` with the counts of these places, or its halves by offset where it has too many pairs."""
    steps = rows.steps[places]
    pairs = rows.page_hashes[places].view(np.uint64) ^ (steps.astype(np.uint64) * _STEP_FACTOR)
    order, starts = _groups(pairs)
    if starts.size > PAIRS_MAX:
        middle = places.size // 2
        border = int(rows.offsets[places[middle]])
        _split(rows, places[:middle], CountPiece(piece.first_offset, border), pieces)
        _split(rows, places[middle:], CountPiece(border, piece.next_offset), pieces)
        return
    firsts = order[starts]
    firsts_by_step = np.lexsort((firsts, steps[firsts]))
    counts = np.diff(starts, append=places.size)[firsts_by_step]
    firsts = firsts[firsts_by_step]
    pieces.append((piece, places[firsts], steps[firsts], counts))


def _cut_out_texts(blocks: Sequence[Block], rows: _Rows, drafts: list[_Draft]) -> None:
    """Fill in `seen` and the pieces' counts."""
    if not drafts:
        return
    texts = _Texts(blocks)
    places = np.concatenate([draft.places for draft in drafts])
    users = iter(texts.of(USER, rows, places))
    sessions = iter(texts.of(SESSION, rows, places, 1))
    places = np.concatenate([places for draft in drafts for _, places, _, _ in draft.pieces])
    pages = iter(texts.of(PAGE, rows, places))
    for draft in drafts:
        count = draft.places.size
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


class _Texts:
    """The strings of some blocks, from one copy of their arenas."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        used = [block.arena_used for block in blocks]
        self._bases = np.cumsum([0, *used[:-1]])
        # Slicing bytes costs half of what slicing a memoryview and copying that does.
        self._bytes = b"".join(
            [memoryview(block.arena[:end]) for block, end in zip(blocks, used, strict=True)]
        )

    def of(self, text_field: int, rows: _Rows, places: np.ndarray, length_bytes: int = 0) -> list[bytes]:
        """String `text_field` (an index into TEXT_FIELDS) of the rows in these places.

        length_bytes: how many bytes of its length, which stands before it in sealed rows, come with it.
        """
        starts, ends = np.empty((2, places.size), np.int64)
        numbers, within = rows.blocks[places], rows.rows[places]
        for number, block in enumerate(self._blocks):
            of_block = np.flatnonzero(numbers == number) if len(self._blocks) > 1 else slice(None)
            begins = block.text_starts(text_field, within[of_block]) + self._bases[number]
            starts[of_block] = begins - length_bytes
            ends[of_block] = begins + block.lengths[text_field, within[of_block]]
        text = self._bytes
        return [text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def fold_seen(rows: Iterable[tuple[str, str, int]]) -> list:
    """Last-seen updates of (user_id, session_id, step) rows, each pair once, in the shape of LogChanges.seen."""
    return in_rounds(
        [value for user, session, step in rows for value in (user.encode(), session_of(session), step)]
    )


def session_of(session_id: str) -> bytes:
    """A session_id behind its length in one byte (it has 128 bytes at most), as records have it."""
    name = session_id.encode()
    return bytes([len(name)]) + name


def in_rounds(seen: list) -> list:
    """`seen` with the first entries of all users first, then their second ones, and so on.

    A script takes no user twice, so entries of one user that stood together would each take one of their own.
    """
    rounds: list[list] = []
    entries: dict[bytes, int] = defaultdict(int)
    for at in range(0, len(seen), 3):
        number = entries[seen[at]]
        entries[seen[at]] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number] += seen[at : at + 3]
    return [value for entry in rounds for value in entry]


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
