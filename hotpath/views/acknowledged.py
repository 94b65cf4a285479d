"""Which last-seen steps of one log Redis has acknowledged, so that a worker does not send them again.

A session is seen many times in a step; only the first of these changes the views. Sessions go by the hash that blocks
have of them (64 bits, salted per process), so nothing of this is ever stored.

Why leaving entries out is safe: what is remembered was acknowledged together with an `applied` that lies beyond it, and
the next page views only go in where `applied` has not changed; a generation whose `applied` went back gets the offsets
in between from Postgres, where nothing is left out. It is forgotten all the same whenever the log's views may not
be what they were: see the Redis sink.
"""

import numpy as np

from hotpath.hash_table import HashTable

LOAD_MAX = 0.6
"""Share of the slots in use at which the table grows: 12 bytes a slot, 20 to 60 a session."""
SESSIONS_MAX = 2_000_000
"""Sessions that a worker remembers, over all its logs; one that has to remember more begins anew."""


class Acknowledged:
    """Session hash -> last-seen step that Redis has, of one log in one generation."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions_max = sessions_max
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._table = HashTable(np.uint32, LOAD_MAX)

    def are_news(self, session_hashes: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Whether Redis is not known to have each session (int64 hash) in that step (int64) or a later one."""
        return self._table.values_of(_keys(session_hashes)) < steps

    def add(self, session_hashes: np.ndarray, steps: np.ndarray, seen_step: int) -> None:
        """Redis has acknowledged these, each session once. Steps up to `seen_step` need not be remembered."""
        keys = _keys(session_hashes)
        if not self._table.is_room_for(keys.size):
            self._forget(seen_step, keys.size)
        slots = self._table.slots_of(keys)
        self._table.values[slots] = np.maximum(self._table.values[slots], steps.astype(np.uint32))

    def _forget(self, seen_step: int, more: int) -> None:
        """Make room: without what has left the windows, in a table with room for half as many again."""
        keys, steps = self._table.entries()
        kept = steps > seen_step
        self.clear()
        keys, steps = keys[kept], steps[kept]
        if keys.size + more <= self._sessions_max:
            self._table.reserve(keys.size + keys.size // 2 + more)
            self._table.values[self._table.slots_of(keys)] = steps

    @property
    def nbytes(self) -> int:
        return self._table.nbytes


def _keys(session_hashes: np.ndarray) -> np.ndarray:
    """0 marks an empty slot: such a hash takes another's place, as hashes of two sessions may be equal anyway."""
    return np.where(session_hashes == 0, 1, session_hashes)
