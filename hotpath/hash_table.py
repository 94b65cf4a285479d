"""Numbers by 64-bit key, in numpy: an open-addressing hash table that is probed for many keys at once."""

import numpy as np

SLOTS_MIN = 256
"""Slots of a new table."""


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
        while pending.size:
            wanted = keys[pending]
            next_slots = (slots[pending] + 1) & mask
            slots[pending] = next_slots
            pending = pending[self._claim(next_slots, wanted) != wanted]
        return slots

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
        mask = self.keys.size - 1
        slots = keys & mask
        found = self.keys[slots]
        pending = np.flatnonzero((found != keys) & (found != 0))
        while pending.size:
            next_slots = (slots[pending] + 1) & mask
            slots[pending] = next_slots
            found = self.keys[next_slots]
            pending = pending[(found != keys[pending]) & (found != 0)]
        values = self.values[slots]
        values[self.keys[slots] != keys] = 0
        return values

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
