"""Bots: page views beyond what a person makes in one second, to the class bot.

`BotCounts` owns the counts of one log, by user and second of event time, for as long as an event of that
second can still be anything but late. Pure: no I/O, no clock, no log; what a former owner of the log has
counted comes in by `load`.

Invariants: after rows have been counted, the count of each (user, second) is the number of its accepted page
views at lower offsets, or the limit; nothing is forgotten that is not over `late_max_s` behind the watermark.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from hotpath.events import Detail, EventClass
from hotpath.shm.block import Block
from hotpath.workers.bot_table import ROWS_MAX, Epoch

EPOCH_BITS = 3
"""An epoch is 2^3 = 8 seconds: short enough to be forgotten on time (38 of them hold 300 s), long enough that
the rows of a chunk rarely fall into more than two."""

FREEZE_KEYS_MIN = 4_096
"""An epoch that still gets events is frozen when its hot part holds this many keys and a quarter of the
frozen part, so that merging costs a constant amount per key however the events trickle in."""

# Odd, with about half of its bits set: consecutive seconds differ all over the key.
_SECOND_MULTIPLIER = np.int64(-7046029254386353131)

SecondCounts = tuple[int, Sequence[str], Sequence[int]]
"""A second, user_ids, and how many accepted page views each has in it."""

Recall = Callable[[int, list[int]], Iterable[SecondCounts]]
"""(index into the block's logs, seconds) to what was counted in them before the log was taken over; for
seconds in which nothing was counted it may return nothing."""

Share = Callable[[Block, int, np.ndarray, np.ndarray], np.ndarray]
"""(block, index into its logs, one row per (user, second), page views of it that this log has accepted so far, these
included) to how many the other logs have: int64. For topics whose logs share users."""


class BotCounts:
    """How many page views each user has in each second of one log, as far as they were accepted."""

    def __init__(self, limit: int, late_max_s: int, taken_over_at_s: int = 0) -> None:
        """`limit`: page views of one user in one second that are kept, at most 60,000.

        `taken_over_at_s`: the log's watermark when it was taken over, 0 when it had none. Seconds up to it
        may have been counted by somebody else, and have to be loaded before they are counted on.
        """
        self.limit = limit
        self.late_max_s = late_max_s
        self.taken_over_at_s = taken_over_at_s
        self.epochs: dict[int, Epoch] = {}
        self._loaded: set[int] = set()

    def missing_seconds(self, seconds: np.ndarray) -> list[int]:
        """Those of `seconds` (int64) that have to be loaded first, rising.

        The events to be loaded are those at offsets before the one at which the log was taken over.
        """
        if seconds.size == 0 or seconds.min() > self.taken_over_at_s:
            return []
        old = np.unique(seconds[seconds <= self.taken_over_at_s]).tolist()
        return [second for second in old if second not in self._loaded]

    def load(self, second: int, user_ids: Sequence[str], counts: Sequence[int]) -> None:
        """Set what distinct users have in `second`, before anything was counted in it; once only."""
        if second in self._loaded:
            return
        self._loaded.add(second)
        if not len(user_ids):
            return
        hashes = np.fromiter(map(hash, user_ids), np.int64, len(user_ids))
        keys = _keys(hashes, np.full(hashes.size, second))
        self._epoch(second >> EPOCH_BITS).put(keys, np.minimum(counts, self.limit).astype(np.uint16))

    def count(self, user_hashes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Count page views, in offset order; both arrays int64, n.

        Returns bool, n: whether each is among the first `limit` of its user and second.
        """
        keys = _keys(user_hashes, seconds)
        numbers = seconds >> EPOCH_BITS
        kept = np.empty(keys.size, np.bool_)
        for start in range(0, keys.size, ROWS_MAX):
            part = slice(start, start + ROWS_MAX)
            kept[part] = self._count_part(keys[part], numbers[part])
        return kept

    def counts_of(self, user_hashes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """What has been counted of these users and seconds, the limit at most: int64; both arrays int64, n."""
        keys = _keys(user_hashes, seconds)
        numbers = seconds >> EPOCH_BITS
        counts = np.zeros(keys.size, np.int64)
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            counts[rows] = self._epoch(number).counts_of(keys[rows])
        return counts

    def _count_part(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        first = int(numbers[0])
        if (numbers == first).all():
            return self._epoch(first).count(keys, self.limit)
        kept = np.empty(keys.size, np.bool_)
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            kept[rows] = self._epoch(number).count(keys[rows], self.limit)
        return kept

    def _epoch(self, number: int) -> Epoch:
        epoch = self.epochs.get(number)
        if epoch is None:
            epoch = self.epochs[number] = Epoch()
        return epoch

    def forget(self, watermark_s: int) -> None:
        """Drop what can only be late from now on, and pack what is no longer in the middle of things.

        `watermark_s`: the log's watermark as committed to Postgres: what is not committed may yet be read
        and counted again by somebody who loads from there. Meant to be called once per flush.
        """
        oldest_s = watermark_s - self.late_max_s
        current = watermark_s >> EPOCH_BITS
        for number in list(self.epochs):
            epoch = self.epochs[number]
            if (number + 1) << EPOCH_BITS <= oldest_s:
                del self.epochs[number]
            elif number < current - 1 and epoch.hot is not None:
                large = epoch.hot.used > max(FREEZE_KEYS_MIN, epoch.frozen_keys.size // 4)
                if large or not epoch.touched:
                    epoch.freeze()
            epoch.touched = False
        if self._loaded and self.taken_over_at_s < oldest_s:
            self._loaded.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all counts."""
        return sum(epoch.nbytes for epoch in self.epochs.values())


def _keys(user_hashes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """int64 keys of (user, second), never 0; two of the n kept collide with a chance of about n² / 2^65."""
    keys = user_hashes ^ seconds * _SECOND_MULTIPLIER
    keys[keys == 0] = 1
    return keys


def classify_bots(
    block: Block,
    rows: slice,
    counts: Sequence[BotCounts],
    recall: Recall | None = None,
    share: Share | None = None,
) -> None:
    """Count the page views among `rows` that stand as accepted, and make those over the limit bots.

    `counts`: one per entry of `block.logs`. `rows`: any rows in which those of a log stand in offset order
    and next to each other. `share`: asked what the other logs have of the same users. Raises LookupError when
    counts have to be loaded and `recall` is None.
    """
    views = np.flatnonzero(block.page_views[rows] & (block.classes[rows] == EventClass.ACCEPTED))
    if views.size == 0:
        return
    views += rows.start
    logs = block.log_indexes[views]
    seconds = block.times_us[views] // 1_000_000
    user_hashes = block.user_hashes[views]
    kept = np.empty(views.size, np.bool_)
    bounds = [0, *(np.flatnonzero(np.diff(logs)) + 1).tolist(), views.size]
    for start, stop in pairwise(bounds):
        part = slice(start, stop)
        log = int(logs[start])
        missing = counts[log].missing_seconds(seconds[part])
        if missing:
            _load(counts[log], log, missing, recall)
        kept[part] = counts[log].count(user_hashes[part], seconds[part])
        if share is not None:
            kept[part] &= _kept_among_all(block, log, views[part], counts[log], kept[part], share)
    if not kept.all():
        bots = views[~kept]
        block.classes[bots] = EventClass.BOT
        block.details[bots] = Detail.BOT_RATE


def _load(counts: BotCounts, log: int, missing: list[int], recall: Recall | None) -> None:
    if recall is None:
        raise LookupError(f"the bot counts of {len(missing)} seconds have to be loaded, and nothing does it")
    for second, user_ids, user_counts in recall(log, missing):
        counts.load(second, user_ids, user_counts)
    for second in missing:  # also where nothing was counted
        counts.load(second, (), ())


def _kept_among_all(
    block: Block, log: int, views: np.ndarray, counts: BotCounts, kept: np.ndarray, share: Share
) -> np.ndarray:
    """Which page views are within the limit when those of the other logs are counted, too: bool, one per view."""
    seconds = block.times_us[views] // 1_000_000
    keys = _keys(block.user_hashes[views], seconds)
    _, firsts, pairs = np.unique(keys, return_index=True, return_inverse=True)
    own = counts.counts_of(block.user_hashes[views[firsts]], seconds[firsts])
    others = share(block, log, views[firsts], own)
    own_before = own - np.bincount(pairs, kept, firsts.size).astype(np.int64)
    room = np.maximum(counts.limit - others - own_before, 0)
    order = np.argsort(pairs, kind="stable")
    starts = np.searchsorted(pairs[order], np.arange(firsts.size))
    ranks = np.empty(views.size, np.int64)
    ranks[order] = np.arange(views.size) - starts[pairs[order]]
    return ranks < room[pairs]
