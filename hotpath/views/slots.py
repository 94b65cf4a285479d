"""Where Redis keeps the last-seen steps of one log's sessions: which slot of `slots` is whose, and what stands there.

A worker that knows a session's slot raises its step without a name: Redis gets stretches of `slots` as they are to be,
and how the numbers of `newest` change, and looks nothing up. Sessions go by the hash that blocks have of them (64 bits,
salted per process), so nothing of this is ever stored.

Why this is safe: every change of `slots` in Redis, whoever makes it, leaves a ticket there that nobody used before, and
what is sent from here is refused unless it finds the ticket of the state that is known here. So this is either what
Redis has, or of no effect; it is forgotten then, and whenever the log's views may not be what they were: see the Redis
sink. Sessions become known when they are raised by name (`touch.lua`), which tells their slots.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hotpath.hash_table import HashTable

LOAD_MAX = 0.6
"""Share of the hash table in use at which it grows: 12 bytes an entry, 20 to 60 a session, and 20 for its slot."""
SLOTS_MAX = 2_000_000
"""Slots that a worker knows, over all its logs; sessions in slots behind these are raised by name."""
PIECE_SLOTS = 2_000
"""Sessions of one script: 1 ms at worst, where all of them lie far apart."""
GAP_SLOTS = 128
"""Slots between two that change which are sent along, rather than by a command of their own, which costs as much as
some hundred bytes."""
_STEP = np.dtype("<u4")


@dataclass(frozen=True)
class Raise:
    """What one call of `raise.lua` takes: [slot, bytes, slot, bytes, ...] and [step, users more or fewer, ...]."""

    runs: list
    newest: list


class Slots:
    """See the module's docstring. State: the arrays below, one row a slot, of which `count` are in use in Redis."""

    def __init__(self, slots_max: int = SLOTS_MAX) -> None:
        self._slots_max = slots_max
        self.clear()

    def clear(self) -> None:
        """Forget everything: `ticket` is None until `load`."""
        self.ticket: str | None = None
        self.count = 0
        self._steps = np.zeros(0, _STEP)
        """What stands in Redis."""
        self._newest = np.zeros(0, _STEP)
        """Newest step of the user whose first session this is; 0 where that is not known."""
        self._owners = np.zeros(0, np.uint32)
        """Slot of the first session of the same user, of sessions that are known."""
        self._hashes = np.zeros(0, np.int64)
        """Of the session; 0 where that is not known."""
        self._table = HashTable(np.uint32, LOAD_MAX)  # hash -> slot + 1

    def load(self, ticket: str, count: int, steps: bytes) -> None:
        """Begin with what Redis has: `count` slots, the steps of the first of them."""
        self.clear()
        self.ticket, self.count = ticket, count
        self._reserve(count)
        self._steps[: len(steps) // _STEP.itemsize] = np.frombuffer(steps, _STEP)

    def of(self, session_hashes: np.ndarray) -> np.ndarray:
        """The slot of each session (int64 hash), -1 where it is not known: int64[n]."""
        return self._table.values_of(_keys(session_hashes)).astype(np.int64) - 1

    def rises(self, slots: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Which of these known slots stand in an earlier step than this: indexes."""
        return np.flatnonzero(self._steps[slots] < steps)

    def raise_(self, slots: np.ndarray, steps: np.ndarray) -> Iterator[Raise]:
        """Raise known slots (in any order, each as often as one likes) to steps, piece by piece, each to be sent."""
        if not slots.size:
            return
        order = np.argsort(slots, kind="stable")
        slots = slots[order]
        firsts = np.flatnonzero(np.diff(slots, prepend=-1))
        steps = np.maximum.reduceat(steps[order], firsts).astype(_STEP)
        slots = slots[firsts]
        for start in range(0, slots.size, PIECE_SLOTS):
            part = slice(start, start + PIECE_SLOTS)
            yield self._raise_piece(slots[part], steps[part])

    def _raise_piece(self, slots: np.ndarray, steps: np.ndarray) -> Raise:
        self._steps[slots] = np.maximum(self._steps[slots], steps)
        owners = self._owners[slots]
        before = self._newest[owners]
        np.maximum.at(self._newest, owners, steps)
        rising = np.flatnonzero(self._newest[owners] > before)
        users, firsts = np.unique(owners[rising], return_index=True)
        ends = np.flatnonzero(np.diff(slots) > GAP_SLOTS)
        starts = slots[np.append(0, ends + 1)].tolist()
        ends = (slots[np.append(ends, slots.size - 1)] + 1).tolist()
        runs: list = [None] * (2 * len(starts))
        runs[0::2] = starts
        runs[1::2] = [self._steps[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]
        return Raise(runs, _moves(before[rising][firsts], self._newest[users]))

    def learn(self, session_hashes: np.ndarray, steps: np.ndarray, places: np.ndarray) -> None:
        """Sessions (int64 hashes, each once) were raised to `steps` by name, and stand in `places`.

        places: int64[n, 3], each with its slot, that of the first session of its user, and that user's newest step;
        -1 where Redis has left it out.
        """
        slots, owners, newest = places.T
        self.count = max(self.count, int(slots.max(initial=-1)) + 1)
        self._reserve(self.count)
        there = (slots >= 0) & (slots < self._steps.size)
        owned = (owners >= 0) & (owners < self._steps.size)
        self._steps[slots[there]] = np.maximum(self._steps[slots[there]], steps[there].astype(_STEP))
        np.maximum.at(self._newest, owners[owned], newest[owned].astype(_STEP))
        known = np.flatnonzero(there & owned)
        slots = slots[known]
        self._owners[slots] = owners[known]
        hashes = _keys(session_hashes[known])
        self._make_room(hashes.size)
        self._hashes[slots] = hashes
        entries = self._table.slots_of(hashes)
        self._table.values[entries] = slots + 1

    def free(self, slots: np.ndarray, ticket: str) -> None:
        """No session has these (int64) any more, as of `ticket`."""
        self.ticket = ticket
        slots = slots[slots < self._steps.size]
        gone = np.zeros(self._steps.size, np.bool_)
        gone[slots] = True
        # Whose first session is gone has another one first now: their others have to tell that.
        forgotten = np.flatnonzero((self._hashes != 0) & (gone | gone[self._owners]))
        self._table.zero(self._hashes[forgotten])
        self._hashes[forgotten] = 0
        self._newest[slots] = 0

    def _reserve(self, count: int) -> None:
        """Have rows for so many slots, as far as they are to be known."""
        wanted = min(count, self._slots_max)
        if wanted <= self._steps.size:
            return
        size = min(self._slots_max, max(wanted, wanted + self._steps.size // 2))
        for name in ("_steps", "_newest", "_owners", "_hashes"):
            before = getattr(self, name)
            grown = np.zeros(size, before.dtype)
            grown[: before.size] = before
            setattr(self, name, grown)

    def _make_room(self, more: int) -> None:
        """Before the table grows, leave out what was forgotten."""
        if self._table.is_room_for(more):
            return
        keys, values = self._table.entries()
        kept = values > 0
        keys, values = keys[kept], values[kept]
        self._table = HashTable(np.uint32, LOAD_MAX)
        self._table.reserve(keys.size + keys.size // 2 + more)
        entries = self._table.slots_of(keys)
        self._table.values[entries] = values

    @property
    def nbytes(self) -> int:
        arrays = self._steps, self._newest, self._owners, self._hashes, self._table
        return sum(array.nbytes for array in arrays)


def _moves(before: np.ndarray, after: np.ndarray) -> list:
    """[step, users more or fewer, ...] of users whose newest step changes."""
    steps, places = np.unique(np.concatenate([before, after]), return_inverse=True)
    changes = np.bincount(places[before.size :], minlength=steps.size)
    changes -= np.bincount(places[: before.size], minlength=steps.size)
    flat: list = [None] * (2 * steps.size)
    flat[0::2], flat[1::2] = steps.tolist(), changes.tolist()
    return flat


def _keys(session_hashes: np.ndarray) -> np.ndarray:
    """0 marks an empty entry: such a hash takes another's place, as hashes of two sessions may be equal anyway."""
    return np.where(session_hashes == 0, 1, session_hashes)
