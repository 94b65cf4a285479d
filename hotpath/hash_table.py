"""Numbers by 64-bit key, in numpy: an open-addressing hash table that is probed for many keys at once."""

import numpy as np

SLOTS_MIN = 256
"""Slots of a new table."""

FOUND_SINGLY_MAX = 12
"""Keys left at which the rest are found one by one, at 0.4 µs a step: a step for all of them at once takes 10 µs, and
the last few need five of those."""


class HashTable:
    """Linear probing: int64 keys to values of one dtype.

    Invariants: no key is 0, which marks an empty slot; at most the share `load_max` of the slots is in use, so that a
    probe always ends.
    """

    def __init__(self, dtype: type[np.number], load_max: float, slots: int = SLOTS_MIN) -> None:
        self.keys = np.zeros(slots, np.int64)
        self.values = np.zeros(slots, dtype)
        self.load_max = load_max
        self.used = 0
        """An upper bound of the keys in it: a key that comes twice in one call may be counted twice."""

    def slots_of(self, keys: np.ndarray) -> np.ndarray:
        """The slot of each key (int64, none 0), which is made where there is none."""
        self.reserve(keys.size)
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

    def values_of(self, keys: np.ndarray) -> np.ndarray:
        """The value of each key (int64, none 0), 0 where there is none; nothing is made."""
        slots, found = self._find(keys)
        values = self.values[slots]
        values[found != keys] = 0
        return values

    def zero(self, keys: np.ndarray) -> None:
        """Make the values of these keys (int64, none 0) 0, where they are in it."""
        slots, found = self._find(keys)
        self.values[slots[found == keys]] = 0

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slot at which the search for each key ends, and the key that is there, 0 for none."""
        mask = self.keys.size - 1
        slots = keys & mask
        found = self.keys[slots]
        pending = np.flatnonzero((found != keys) & (found != 0))
        while pending.size:
            next_slots = (slots[pending] + 1) & mask
            slots[pending] = next_slots
            found = self.keys[next_slots]
            pending = pending[(found != keys[pending]) & (found != 0)]
        return slots, self.keys[slots]

    def is_room_for(self, more: int) -> bool:
        """Whether `more` keys fit without growing."""
        return self.used + more <= self.load_max * self.keys.size

    def reserve(self, more: int) -> None:
        """Make sure that `more` keys fit."""
        if self.is_room_for(more):
            return
        keys, values = self.entries()
        self.used = keys.size
        slots = self.keys.size
        while keys.size + more > self.load_max * slots:
            slots *= 2
        if slots == self.keys.size:
            return
        self.__init__(values.dtype.type, self.load_max, slots)
        self.values[self.slots_of(keys)] = values

    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """All keys and their values, in no particular order."""
        in_use = np.flatnonzero(self.keys)
        return self.keys[in_use], self.values[in_use]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes
