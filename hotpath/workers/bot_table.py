"""Counts by 64-bit key, in numpy: how often each (user, second) of a stretch of event time has been counted.

An `Epoch` has two parts. The hot part is an open-addressing hash table, probed for all rows of a chunk at
once; the frozen part is a pair of sorted arrays, a third of the size, into which the hot part is merged when
the epoch is no longer in the middle of things. A key is in one of the two.

Invariants: no key is 0, which marks an empty slot; no stored count is above the limit; the hot part is never
fuller than `LOAD_MAX`, so that a probe always ends.
"""

import numpy as np

from hotpath.hash_table import HashTable

LOAD_MAX = 0.4
"""Share of the slots in use at which the table doubles. 500 rows take 51 µs; at 0.3 43 µs, at 0.5 59, at 0.6 72, at
0.75 92: the longest probe among the rows decides. The price is small, as only the last few epochs are tables."""

ROWS_MAX = 5_000
"""Rows counted at once. A count is an uint16 and at most 60,000 (`Rules.bot_page_views_max`) before it is cut
back to the limit, so that this many more cannot overflow it."""

_ONE = np.uint16(1)


def _new_table() -> HashTable:
    # A log with a trickle of events keeps dozens of epochs: they begin small.
    return HashTable(np.uint16, LOAD_MAX)


class Epoch:
    """The counts of one stretch of event time of one log."""

    def __init__(self) -> None:
        self.hot: HashTable | None = None
        self.frozen_keys = np.zeros(0, np.int64)
        self.frozen_counts = np.zeros(0, np.uint16)
        self.touched = True
        """Whether keys were counted since `BotCounts.forget` last looked."""

    def count(self, keys: np.ndarray, limit: int) -> np.ndarray:
        """Count rows with these keys (int64, at most ROWS_MAX), in their order.

        Returns a bool per row: whether it is among the first `limit` of its key.
        """
        self.touched = True
        if self.frozen_keys.size == 0:
            return self._count_hot(keys, limit)
        kept = np.empty(keys.size, np.bool_)
        places = np.searchsorted(self.frozen_keys, keys)
        known = self.frozen_keys.take(places, mode="clip") == keys
        kept[known] = _count(self.frozen_counts, places[known], limit)
        fresh = ~known
        if fresh.any():
            kept[fresh] = self._count_hot(keys[fresh], limit)
        return kept

    def _count_hot(self, keys: np.ndarray, limit: int) -> np.ndarray:
        if self.hot is None:
            self.hot = _new_table()
        slots = self.hot.slots_of(keys)
        return _count(self.hot.values, slots, limit)  # the table may have grown meanwhile: take it now

    def put(self, keys: np.ndarray, counts: np.ndarray) -> None:
        """Set the counts (uint16) of distinct keys (int64) that have none yet."""
        if self.hot is None:
            self.hot = _new_table()
        slots = self.hot.slots_of(keys)
        self.hot.values[slots] = counts

    def counts_of(self, keys: np.ndarray) -> np.ndarray:
        """The counts (int64) of keys (int64) that have been counted."""
        counts = np.zeros(keys.size, np.int64)
        places = np.searchsorted(self.frozen_keys, keys)
        frozen = np.zeros(keys.size, np.bool_)
        if self.frozen_keys.size:
            frozen = self.frozen_keys.take(places, mode="clip") == keys
            counts[frozen] = self.frozen_counts[places[frozen]]
        if self.hot is not None:
            slots = self.hot.slots_of(keys[~frozen])
            counts[~frozen] = self.hot.values[slots]
        return counts

    def freeze(self) -> None:
        """Merge the hot part into the frozen one."""
        if self.hot is None:
            return
        keys, counts = self.hot.entries()
        self.hot = None
        keys = np.concatenate([self.frozen_keys, keys])
        order = np.argsort(keys)
        self.frozen_keys = keys[order]
        self.frozen_counts = np.concatenate([self.frozen_counts, counts])[order]

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        hot = self.hot.nbytes if self.hot else 0
        return self.frozen_keys.nbytes + self.frozen_counts.nbytes + hot


def _count(counts: np.ndarray, places: np.ndarray, limit: int) -> np.ndarray:
    """Add one to `counts` (uint16) at each of `places`; whether each row is among the first `limit` there."""
    before = counts[places]
    np.add.at(counts, places, _ONE)  # not counts[places] += 1, which counts repeated places once
    kept = np.ones(places.size, np.bool_)
    over = np.flatnonzero(counts[places] > limit)
    if over.size == 0:
        return kept
    # Only these rows need to know how many of their own kind come before them in this chunk.
    order = over[np.argsort(places[over], kind="stable")]
    sorted_places = places[order]
    first = np.flatnonzero(np.append(True, sorted_places[1:] != sorted_places[:-1]))
    group_sizes = np.diff(np.append(first, order.size))
    rank = np.arange(order.size) - np.repeat(first, group_sizes)
    kept[order] = before[order] + rank < limit
    counts[places[over]] = limit
    return kept
