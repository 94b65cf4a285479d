"""Counts by 64-bit key, in numpy: how often each (user, second) of a stretch of event time has been counted.

An `Epoch` has two parts. The hot part is an open-addressing hash table, probed for all rows of a chunk at
once; the frozen part is a pair of sorted arrays, a third of the size, into which the hot part is merged when
the epoch is no longer in the middle of things. A key is in one of the two.

Invariants: no key is 0, which marks an empty slot; no stored count is above the limit; the hot part is never
fuller than `LOAD_MAX`, so that a probe always ends.
"""

import numpy as np

LOAD_MAX = 0.4
"""Share of the slots in use at which the table doubles. 500 rows take 51 µs; at 0.3 43 µs, at 0.5 59, at 0.6 72, at
0.75 92: the longest probe among the rows decides. The price is small, as only the last few epochs are tables."""

SLOTS_MIN = 256
"""Slots of a new table: a log with a trickle of events keeps dozens of epochs."""

FOUND_SINGLY_MAX = 12
"""Keys left at which the rest are found one by one, at 0.4 µs a step: a step for all of them at once takes 10 µs, and
the last few need five of those."""

ROWS_MAX = 5_000
"""Rows counted at once. A count is an uint16 and at most 60,000 (`Rules.bot_page_views_max`) before it is cut
back to the limit, so that this many more cannot overflow it."""

_ONE = np.uint16(1)


class HotTable:
    """An open-addressing hash table with linear probing: int64 keys (never 0) to uint16 counts."""

    def __init__(self, slots: int = SLOTS_MIN) -> None:
        self.keys = np.zeros(slots, np.int64)
        self.counts = np.zeros(slots, np.uint16)
        self.used = 0
        """An upper bound of the keys in it: a key that comes twice in one chunk may be counted twice."""

    def slots_of(self, keys: np.ndarray) -> np.ndarray:
        """The slot of each key (int64), which is made where there is none."""
        self._reserve(keys.size)
        mask = self.keys.size - 1
        slots = keys & mask
        found = self._claim(slots, keys)
        pending = np.flatnonzero(found != keys)
        while pending.size > FOUND_SINGLY_MAX:
            wanted = keys[pending]
            next_slots = (slots[pending] + 1) & mask
            slots[pending] = next_slots
            pending = pending[self._claim(next_slots, wanted) != wanted]
        for row in pending.tolist():
            slots[row] = self._slot_after(slots.item(row), keys.item(row), mask)
        return slots

    def _slot_after(self, slot: int, key: int, mask: int) -> int:
        """The slot of one key, which is not in `slot` although it would begin there."""
        item = self.keys.item
        while True:
            slot = (slot + 1) & mask
            found = item(slot)
            if found == key:
                return slot
            if found == 0:
                self.keys[slot] = key
                self.used += 1
                return slot

    def _claim(self, slots: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The keys that stand in `slots` when each empty one has been given to one of those that want it."""
        found = self.keys[slots]
        empty = np.flatnonzero(found == 0)
        if empty.size:
            self.keys[slots[empty]] = keys[empty]
            self.used += empty.size
            found = self.keys[slots]
        return found

    def _reserve(self, more: int) -> None:
        """Make sure that `more` keys fit."""
        if self.used + more <= LOAD_MAX * self.keys.size:
            return
        keys, counts = self.entries()
        self.used = keys.size
        slots = self.keys.size
        while keys.size + more > LOAD_MAX * slots:
            slots *= 2
        if slots == self.keys.size:
            return
        self.__init__(slots)
        self.counts[self.slots_of(keys)] = counts

    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """All keys and their counts, in no particular order."""
        in_use = np.flatnonzero(self.keys)
        return self.keys[in_use], self.counts[in_use]


class Epoch:
    """The counts of one stretch of event time of one log."""

    def __init__(self) -> None:
        self.hot: HotTable | None = None
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
            self.hot = HotTable()
        slots = self.hot.slots_of(keys)
        return _count(self.hot.counts, slots, limit)  # the table may have grown meanwhile: take it now

    def put(self, keys: np.ndarray, counts: np.ndarray) -> None:
        """Set the counts (uint16) of distinct keys (int64) that have none yet."""
        if self.hot is None:
            self.hot = HotTable()
        slots = self.hot.slots_of(keys)
        self.hot.counts[slots] = counts

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
            counts[~frozen] = self.hot.counts[slots]
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
        hot = self.hot.keys.nbytes + self.hot.counts.nbytes if self.hot else 0
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
