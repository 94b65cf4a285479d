"""Slots against the real scripts: what a worker raises without names is what events say, whoever else writes."""

from collections import Counter
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hotpath.views import keys, link, slots, store
from hotpath.views.contents import sessions_of
from hotpath.views.fold import CountPiece, LogChanges, Seen, session_of
from hotpath.views.slots import Slots
from hotpath.views.store import LogState, Outcome
from tests.support import simulated

PREFIX, LOG_ID, GENERATION = "v", 1, 1
SLOTS_MAX = 7

Visit = tuple[bytes, bytes, int]
"""user_id, session_id, step"""

_seen = st.lists(
    st.tuples(
        st.sampled_from([b"u", b"v", b"w"]), st.sampled_from([b"s", b"t", b"r", b"q"]), st.integers(1, 9)
    ),
    max_size=8,
)
_operations = st.one_of(
    st.tuples(st.just("events"), _seen, st.integers(-1, 3)),
    st.tuples(st.just("events"), _seen, st.just(-1)),
    st.tuples(st.just("another's events"), _seen, st.just(-1)),
    st.tuples(st.just("trim"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("another's trim"), st.integers(1, 4), st.just(0)),
)


class Side:
    """A log in the simulated Redis, a worker's `slots` of it, and what must be there: `newest`, pair -> step."""

    def __init__(self) -> None:
        self.server = simulated.redis_server()
        self.client = self.server.connect("", 1.0)
        self.slots = Slots(SLOTS_MAX)
        self.newest: dict[tuple[bytes, bytes], int] = {}
        self.applied = self.floor = 0
        store.create_generation(self.client, PREFIX, LOG_ID, LogState(GENERATION, 0, 0, 0, 0, 0, 0))
        self._value("state")[b"applied"] = b"0"
        assert store.switch(self.client, PREFIX, LOG_ID, "", GENERATION) is store.Switch.LIVE

    def _name(self, part: str) -> str:
        return keys.part(PREFIX, LOG_ID, GENERATION, part)

    def _value(self, part: str) -> object:
        return self.server.store.data.get(self._name(part).encode())

    def load(self) -> None:
        (reply,) = link.run(self.client, [store.slots_command(PREFIX, LOG_ID, GENERATION, SLOTS_MAX)])
        self.slots.load(reply[1].decode(), reply[2], reply[3])

    def events(self, seen: list[Visit], lost: int) -> None:
        """Of the commands the one of number `lost` does not arrive; then all is brought in by name."""
        if self.slots.ticket is None:
            self.load()
        steps = np.array([step for *_, step in seen], np.int64)
        hashes = np.array([hash(pair[:2]) for pair in seen], np.int64)
        places = self.slots.of(hashes)
        there = np.flatnonzero(places >= 0)
        changes = self._changes([each for each, place in zip(seen, places, strict=True) if place < 0])
        changes.slots, changes.slot_steps = places[there], steps[there]
        commands = store.change_commands(PREFIX, GENERATION, changes, slots=self.slots)
        arriving = [command for number, command in enumerate(commands) if number != lost]
        replies = link.run(self.client, arriving)
        if len(arriving) == len(commands) and store.outcome_of(replies) is Outcome.APPLIED:
            self.slots.learn(
                changes.session_hashes, changes.seen.steps, store.places_of(replies, changes.seen.steps)
            )
            self._note(seen)
        else:
            self.slots.clear()
            self.named(seen)

    def named(self, seen: list[Visit]) -> None:
        """By one who knows no slots."""
        commands = store.change_commands(PREFIX, GENERATION, self._changes(seen))
        assert store.outcome_of(link.run(self.client, commands)) is Outcome.APPLIED
        self._note(seen)

    def trim(self, steps: int, slots: Slots) -> None:
        self.floor += steps
        kind = b"SWEEP"
        while kind == b"SWEEP":
            ticket = store.new_ticket()
            command = store.trim_command(PREFIX, LOG_ID, GENERATION, 0, self.floor, ticket)
            (reply,) = link.run(self.client, [command])
            store.forget_freed(slots, reply, ticket)
            kind = reply[1]
        self.newest = {pair: step for pair, step in self.newest.items() if step > self.floor}

    def _changes(self, seen: list[Visit]) -> LogChanges:
        newest: dict[tuple[bytes, bytes], int] = {}
        for user, session, step in seen:
            newest[user, session] = max(step, newest.get((user, session), 0))
        flat = [
            part for (user, name), step in newest.items() for part in (user, session_of(name.decode()), step)
        ]
        pieces = [CountPiece(self.applied, self.applied + 1)]
        hashes = np.array([hash(pair) for pair in newest], np.int64)
        return LogChanges(LOG_ID, self.applied, self.applied + 1, 0, Seen.of(flat), pieces, hashes)

    def _note(self, seen: list[Visit]) -> None:
        self.applied = int(self._value("state")[b"applied"])
        for user, session, step in seen:
            if step > self.floor:
                self.newest[user, session] = max(step, self.newest.get((user, session), 0))

    def check(self) -> None:
        places = {user: dict(sessions_of(record)) for user, record in (self._value("seen") or {}).items()}
        stored = np.frombuffer(self._value("slots") or b"", "<u4")
        steps = {(u, s): int(stored[slot]) for u, of_user in places.items() for s, slot in of_user.items()}
        assert {pair: step for pair, step in steps.items() if step > self.floor} == self.newest
        used = [slot for of_user in places.values() for slot in of_user.values()]
        assert sorted([*used, *map(int, self._value("free") or [])]) == list(range(stored.size))
        of_users = {u: max(steps[u, s] for s in of_user) for u, of_user in places.items()}
        counted = {int(step): int(users) for step, users in (self._value("newest") or {}).items()}
        assert counted == Counter(of_users.values())
        if self.slots.ticket is not None and self.slots.ticket.encode() == self._value("state")[b"touched"]:
            self._check_known(places, stored, of_users)

    def _check_known(self, places: dict, stored: np.ndarray, of_users: dict[bytes, int]) -> None:
        known = self.slots
        assert known.count == stored.size
        size = min(SLOTS_MAX, stored.size)
        assert (known._steps[:size] == stored[:size]).all()
        for user, of_user in places.items():
            first = next(iter(of_user.values()))
            for session, slot in of_user.items():
                (found,) = known.of(np.array([hash((user, session))], np.int64)).tolist()
                assert found in (-1, slot)
                if found >= 0:
                    assert (known._owners[slot], known._newest[first]) == (first, of_users[user])


@given(st.lists(_operations, max_size=25))
def test_slots_hold_what_events_say_whoever_writes(operations):
    small = {(slots, "PIECE_SLOTS"): 2, (slots, "GAP_SLOTS"): 1, (store, "TOUCH_ENTRIES_MAX"): 2}
    small |= {(store, "TRIM_USERS"): 2, (store, "SWEEP_STEPS"): 1}
    patches = [mock.patch.object(owner, name, value) for (owner, name), value in small.items()]
    for patch in patches:
        patch.start()
    try:
        side, strangers = Side(), Slots()
        for name, given_, lost in operations:
            if name == "events":
                side.events(given_, lost)
            elif name == "another's events":
                side.named(given_)
            else:
                side.trim(given_, side.slots if name == "trim" else strangers)
            side.check()
    finally:
        for patch in patches:
            patch.stop()


def test_what_lies_far_apart_is_sent_by_itself():
    known = Slots()
    steps = np.arange(1, 1_001, dtype="<u4")
    known.load("a ticket", steps.size, steps.tobytes())
    (piece,) = known.raise_(np.array([0, 900, 3, 900]), np.array([5_000, 7_000, 5_000, 6_000]))
    assert piece.runs[0::2] == [0, 900]
    assert np.frombuffer(piece.runs[1], "<u4").tolist() == [5_000, 2, 3, 5_000]
    assert np.frombuffer(piece.runs[3], "<u4").tolist() == [7_000]


def test_sessions_in_slots_behind_the_most_that_are_known_stay_unknown():
    known = Slots(slots_max=4)
    known.load("a ticket", 3, b"\1\0\0\0" * 3)
    hashes = np.array([11, 12])
    known.learn(hashes, np.array([5, 5]), np.array([[3, 3, 5], [4, 4, 5]]))
    assert known.of(hashes).tolist() == [3, -1]
    assert known.count == 5
    assert known.nbytes < 10_000


def test_a_thousand_rounds_of_sessions_take_no_more_memory_than_ten():
    known = Slots()
    known.load("a ticket", 0, b"")
    sizes = []
    for number in range(1_000):
        hashes = np.arange(1, 201) + 1_000 * number
        slots = np.arange(200)
        known.learn(
            hashes, np.full(200, number + 1), np.column_stack([slots, slots, np.full(200, number + 1)])
        )
        assert known.of(hashes).tolist() == slots.tolist()
        known.free(slots, f"ticket {number}")
        assert (known.of(hashes) == -1).all()
        sizes.append(known.nbytes)
    assert max(sizes) <= 2 * sizes[9]
