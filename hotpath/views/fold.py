"""From rows to changes of the views: what one log's views must learn of a range of its offsets.

Two sources, one shape: the accepted rows of committed blocks, and aggregates that Postgres made of the same
rows. Work per event is vectorised, and so is what is said of distinct things in blocks.

Hashes stand for strings when rows are grouped (64 bits, salted per process: see shm/block.py); the strings
are read for one row of each group.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from hotpath.events import TEXT_FIELDS, EventClass
from hotpath.shm.block import Block
from hotpath.views import packed
from hotpath.views.keys import STEP_US
from hotpath.views.packed import Strings
from hotpath.views.slots import Slots

PAIRS_MAX = 750
"""Distinct (step, page) pairs of one piece: a script adds them in 2 to 3.5 ms. 1,000 were over 5 on a busy machine,
for which readers would have to wait."""

USER, PAGE, SESSION = (TEXT_FIELDS.index(name) for name in ("user_id", "page_url", "session_id"))
_STEP_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: spreads steps over a hash's bits


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class CountPiece:
    """Page views of the offsets [first_offset, next_offset), applied all or not at all.

    counts: packed, [[step, [page_url, n, page_url, n, ...]], ...].
    """

    first_offset: int
    next_offset: int
    counts: bytes = packed.array(0)


@dataclass
class Seen:
    """Sessions that are raised by name: parallel columns, one entry per (user, session).

    users, sessions: the session_id behind its length, see `session_of`. user_hashes: int64, the same for the same user;
    a user's further sessions stand behind the first ones of all (see `in_rounds`). steps: int64, last seen.
    """

    users: Strings
    sessions: Strings
    user_hashes: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, flat: list) -> "Seen":
        """Of [user_id, session, step, ...] as bytes and numbers, in rounds."""
        users = flat[0::3]
        hashes = np.fromiter(map(hash, users), np.int64, len(users))
        return cls(Strings.of(users), Strings.of(flat[1::3]), hashes, np.array(flat[2::3], np.int64))

    def __len__(self) -> int:
        return self.steps.size


@dataclass
class LogChanges:
    """What the views of one log learn from the offsets [first_offset, next_offset).

    pieces: adjoining, from first_offset to next_offset; never none.
    watermark_s: greatest second of the log once all this is applied.

    Of blocks' changes only, all int64: session_hashes: of the entries of `seen`. slots, slot_steps: of the sessions
    whose slots are known and which are not in `seen`; the same one may come more than once.
    """

    log_id: int
    first_offset: int
    next_offset: int
    watermark_s: int
    seen: Seen
    pieces: list[CountPiece]
    session_hashes: np.ndarray = field(default_factory=_none)
    slots: np.ndarray = field(default_factory=_none)
    slot_steps: np.ndarray = field(default_factory=_none)


@dataclass(frozen=True)
class _Rows:
    """The accepted rows of some blocks that count, block by block, of each by log and then by offset: parallel arrays.

    blocks, rows: where each stands. The others are the blocks' columns of these names; steps: of their times.
    bounds: of each block where its rows begin here, and where those of the last one end.
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
    bounds: list[int]

    def places_of(self, log_index: int) -> np.ndarray:
        """Where the rows of a log stand, by rising offset."""
        ranges = []
        for start, end in pairwise(self.bounds):
            first, last = np.searchsorted(self.logs[start:end], (log_index, log_index + 1)).tolist()
            ranges.append(np.arange(start + first, start + last))
        return np.concatenate(ranges)


# (places, steps, counts) of the pairs of a piece: texts are cut out for all pieces of a log at once.
_Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def fold_blocks(
    blocks: Sequence[Block], from_offsets: dict[int, int], slots: dict[int, Slots] | None = None
) -> list[LogChanges]:
    """Changes by the accepted rows of some logs (indexes into `block.logs`) of blocks that follow each other, in the
    order of `from_offsets`.

    from_offsets: the offset of each from which on its rows count. slots: what is known of each; None: nothing.
    """
    rows = _accepted(blocks, from_offsets)
    return [
        _changes(blocks, log_index, start, rows, None if slots is None else slots[log_index])
        for log_index, start in from_offsets.items()
    ]


def _accepted(blocks: Sequence[Block], from_offsets: dict[int, int]) -> _Rows:
    starts = np.full(blocks[0].logs.size, np.iinfo(np.int64).max)
    starts[list(from_offsets)] = list(from_offsets.values())
    found = []
    for block in blocks:
        logs, offsets = block.log_indexes[: block.rows], block.offsets[: block.rows]
        rows = np.flatnonzero(
            (block.classes[: block.rows] == EventClass.ACCEPTED) & (offsets >= starts[logs])
        )
        found.append(rows[np.argsort(logs[rows], kind="stable")])
    bounds = np.cumsum([0, *(rows.size for rows in found)]).tolist()

    def gathered(name: str) -> np.ndarray:
        column = np.empty(bounds[-1], getattr(blocks[0], name).dtype)
        for block, rows, start, end in zip(blocks, found, bounds, bounds[1:], strict=False):
            np.take(getattr(block, name), rows, out=column[start:end], mode="clip")
        return column

    steps = gathered("times_us")
    steps //= STEP_US
    return _Rows(
        np.repeat(np.arange(len(blocks)), np.diff(bounds)),
        np.concatenate(found),
        gathered("log_indexes"),
        gathered("offsets"),
        steps,
        gathered("page_views"),
        gathered("page_hashes"),
        gathered("user_hashes"),
        gathered("session_hashes"),
        bounds,
    )


def _changes(
    blocks: Sequence[Block], log_index: int, from_offset: int, rows: _Rows, known: Slots | None
) -> LogChanges:
    """The changes of one log, up to where it ends in the last block."""
    entry = blocks[-1].logs[log_index]
    next_offset = int(entry["next_offset"])
    places = rows.places_of(log_index)
    split = _split(rows, places[rows.page_views[places]], CountPiece(from_offset, next_offset))
    _cut_out_pages(blocks, rows, split)

    steps, hashes = rows.steps[places], rows.session_hashes[places]
    slots, slot_steps = _none(), _none()
    if known is not None:
        stood = known.of(hashes)
        there = np.flatnonzero(stood >= 0)
        rises = there[known.rises(stood[there], steps[there])]
        slots, slot_steps = stood[rises], steps[rises]
        named = np.flatnonzero(stood < 0)
        places, steps, hashes = places[named], steps[named], hashes[named]
    order, starts = _groups(hashes)
    if starts.size:
        steps = np.maximum.reduceat(steps[order], starts)
    firsts = order[starts]
    rounds = _rounds(rows.user_hashes[places[firsts]], firsts)
    firsts, steps = firsts[rounds], steps[rounds]
    places = places[firsts]
    seen = Seen(
        _cut_out(blocks, rows, places, USER),
        _cut_out(blocks, rows, places, SESSION, behind_length=True),
        rows.user_hashes[places],
        steps,
    )
    pieces = [piece for piece, _ in split]
    watermark_s, log_id = int(entry["watermark_s"]), int(entry["log_id"])
    return LogChanges(
        log_id, from_offset, next_offset, watermark_s, seen, pieces, hashes[firsts], slots, slot_steps
    )


def _rounds(hashes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """An order in which the first of each hash come first, then the second ones, and so on; within those by place.

    Texts are cut out in this order, a fifth faster than in any other: they lie by place in memory.
    """
    order, starts = _groups(hashes)
    numbers = np.empty(hashes.size, np.int64)
    numbers[order] = np.arange(hashes.size) - np.repeat(starts, np.diff(starts, append=hashes.size))
    return np.lexsort((places, numbers))


def _split(rows: _Rows, places: np.ndarray, whole: CountPiece) -> list[tuple[CountPiece, _Pairs]]:
    """The page views in these places as pieces: `whole`, or its halves by offset where it has too many pairs, or
    theirs."""
    steps = rows.steps[places]
    hashes = rows.page_hashes[places].view(np.uint64) ^ (steps.astype(np.uint64) * _STEP_FACTOR)
    order, starts = _groups(hashes)
    firsts = order[starts]
    by_step = np.lexsort((firsts, steps[firsts]))
    ranks = np.empty(by_step.size, np.int64)
    ranks[by_step] = np.arange(by_step.size)
    pairs = np.empty(places.size, np.int64)  # of each page view its pair, numbered by step
    pairs[order] = np.repeat(ranks, np.diff(starts, append=places.size))
    firsts = firsts[by_step]
    pair_places, pair_steps = places[firsts], steps[firsts]
    pieces: list[tuple[CountPiece, _Pairs]] = []

    def cut(start: int, end: int, piece: CountPiece) -> None:
        counts = np.bincount(pairs[start:end])
        there = np.flatnonzero(counts)
        if there.size <= PAIRS_MAX:
            pieces.append((piece, (pair_places[there], pair_steps[there], counts[there])))
            return
        middle = (start + end) // 2
        border = int(rows.offsets[places[middle]])
        cut(start, middle, CountPiece(piece.first_offset, border))
        cut(middle, end, CountPiece(border, piece.next_offset))

    cut(0, places.size, whole)
    return pieces


def _cut_out_pages(blocks: Sequence[Block], rows: _Rows, pieces: list[tuple[CountPiece, _Pairs]]) -> None:
    """Fill in the counts of the pieces of one log."""
    places = np.concatenate([places for _, (places, _, _) in pieces])
    counts = np.concatenate([counts for _, (_, _, counts) in pieces])
    entries = _cut_out(blocks, rows, places, PAGE, counts=counts)
    first = 0
    for piece, (_, steps, _) in pieces:
        of_steps = []
        ends = np.flatnonzero(np.diff(steps, append=-1)) + 1
        for step, end in zip(steps[ends - 1].tolist(), (first + ends).tolist(), strict=True):
            page_counts = packed.array(2 * (end - first), entries.part(first, end))
            of_steps.append(packed.array(2, packed.pack(step), page_counts))
            first = end
        piece.counts = packed.array(len(of_steps), *of_steps)


def _groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order that brings equal values together, and where in it each group starts."""
    order = np.argsort(values)
    ordered = values[order]
    return order, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: values.size])


def _cut_out(
    blocks: Sequence[Block],
    rows: _Rows,
    places: np.ndarray,
    text_field: int,
    behind_length: bool = False,
    counts: np.ndarray | None = None,
) -> Strings:
    """String `text_field` (an index into TEXT_FIELDS) of the rows in these places; the rest as in `packed.cut_out`."""
    starts, lengths = np.empty((2, places.size), np.int64)
    numbers, within = rows.blocks[places], rows.rows[places]
    for number, block in enumerate(blocks):
        of_block = np.flatnonzero(numbers == number) if len(blocks) > 1 else slice(None)
        starts[of_block] = block.text_starts(text_field, within[of_block])
        lengths[of_block] = block.lengths[text_field, within[of_block]]
    arenas = [block.arena for block in blocks]
    return packed.cut_out(arenas, numbers, starts, lengths, behind_length=behind_length, counts=counts)


def fold_seen(rows: Iterable[tuple[str, str, int]]) -> Seen:
    """Last-seen updates of (user_id, session_id, step) rows, each pair once."""
    flat = [value for user, session, step in rows for value in (user.encode(), session_of(session), step)]
    return Seen.of(in_rounds(flat))


def session_of(session_id: str) -> bytes:
    """A session_id behind its length in one byte (it has 128 bytes at most), as records have it."""
    name = session_id.encode()
    return bytes([len(name)]) + name


def in_rounds(seen: list) -> list:
    """[user_id, session, step, ...] with the first entries of all users first, then their second ones, and so on.

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


def counts_by_step(pairs: Iterable[tuple[tuple[int, str], int]]) -> bytes:
    """Counts of (step, page_url) pairs as `CountPiece` has them."""
    by_step: dict[int, list] = {}
    for (step, page), count in pairs:
        by_step.setdefault(step, []).extend((page.encode(), count))
    return packed.pack([[step, increments] for step, increments in by_step.items()])
