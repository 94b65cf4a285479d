"""Calls of the views' scripts as production code makes them, for two servers in turn.

A call is drawn without knowing what is stored: `right` says whether it is made for what stands there (the live
generation, the offset that was applied), else for something else. `Situation` looks that up in the simulated server.
"""

import itertools
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import redis
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from hotpath.views import keys, link, packed, store
from hotpath.views.build import Build
from hotpath.views.fold import CountPiece, LogChanges, Seen, session_of
from hotpath.views.link import Stream, raw_script, script, state_script
from hotpath.views.slots import Raise
from hotpath.views.store import LogState
from tests.simulation.stand_ins import SMALL
from tests.support.live_views import VIEW_PARTS, record_of
from tests.support.redis_commands import many

PREFIX, LOG_ID = "v", 7
BROKEN = ("error", True)
"""What comes of an error reply by which production code knows that a key is not what it must be."""
USERS = [b"u", b"v", b"\xff\0", b"w"]
SESSIONS = [b"s", b"t", b"long" * 9]
PAGES = [b"/", b"/a", b"/\xff"]
STEPS = [0, 5, 6, 7, 9, 300]
PARTS = [*VIEW_PARTS, "pages:6", "pages:7", "pages:9", "odd", "x:1"]
Step = st.sampled_from(STEPS)


@contextmanager
def small_numbers():
    """Production code with the pieces of simulated worlds, so that a few entries take several calls."""
    with ExitStack() as stack:
        for owner, name, value in SMALL:
            # A small hash comes whole from Redis, whatever the count: see the comparison of HSCAN.
            if name != "TRIM_PAGES":
                stack.enter_context(mock.patch.object(owner, name, value))
        yield


@dataclass
class Situation:
    """What the simulated server holds of the log when a call is made."""

    live: int
    newest: int
    applied: str
    state: LogState

    @classmethod
    def of(cls, data: dict[bytes, Any]) -> "Situation":
        known = data.get(keys.generations(PREFIX, LOG_ID).encode())
        newest = max(map(int, known), default=0) if isinstance(known, set) else 0
        name = data.get(keys.current(PREFIX, LOG_ID).encode())
        live = int(name) if isinstance(name, bytes) and name.isdigit() else 0
        fields = data.get(keys.part(PREFIX, LOG_ID, live, "state").encode())
        applied = fields.get(b"applied", b"0").decode() if isinstance(fields, dict) else "0"
        number = int(applied) if applied.isdigit() else 0
        return cls(live, newest, applied, LogState(live, number, 0, 0, 0, 0, 0))


@dataclass(frozen=True)
class Call:
    """What is done with a client, the same on both servers; returns what is to be compared."""

    name: str
    do: Callable[[redis.Redis, Situation], Any]
    parts: tuple = ()

    def __repr__(self) -> str:
        return f"{self.name}{self.parts}"


def _run(client: redis.Redis, *commands: link.Command) -> list[Any]:
    return link.run(client, list(commands))


def _call(name: str, do: Callable[..., Any], *parts: st.SearchStrategy) -> st.SearchStrategy[Call]:
    """Calls of `do(client, situation, *parts)`."""
    drawn = st.tuples(*parts)
    return drawn.map(lambda found: Call(name, lambda client, now: do(client, now, *found), found))


_right = st.sampled_from([True] * 6 + [False])
_seen = st.lists(
    st.tuples(st.sampled_from(USERS), st.sampled_from(SESSIONS), Step), max_size=9, unique_by=lambda e: e[:2]
)
_counts = st.dictionaries(
    Step, st.dictionaries(st.sampled_from(PAGES), st.integers(1, 3), min_size=1), max_size=3
)


def _flat_counts(counts: dict[int, dict[bytes, int]]) -> list[list]:
    return [[step, [part for entry in pages.items() for part in entry]] for step, pages in counts.items()]


def _build(client: redis.Redis, now: Situation, seen: list, counts: dict, applied: int, ends: bool) -> None:
    """A new generation, loaded and perhaps finished."""
    generation = now.newest + 1
    state = LogState(generation, 0, 5, 5, 60, 70, 10)
    store.create_generation(client, PREFIX, LOG_ID, state)
    stream = Stream(client)
    build = Build(stream, PREFIX, state, LOG_ID)
    for user, session, step in seen:
        # A build has them from Postgres, as strings.
        build.touch(user.decode("latin-1"), session.decode(), step)
    for step, pages in counts.items():
        for page, views in pages.items():
            build.count(step, page.decode("latin-1"), views)
    if ends:
        build.finish(applied, 90)
    stream.drain()


def _change(
    client: redis.Redis,
    now: Situation,
    ahead: int,
    seen: list,
    pieces: list,
    lost: int,
    watermark_s: int,
    mode: str,
) -> list[Any]:
    """A block's changes, of offsets so far `ahead`; of their commands the one of number `lost` does not arrive."""
    first = now.state.applied + ahead
    offsets = [first, *(first + 2 * (i + 1) for i in range(len(pieces)))]
    changes = LogChanges(
        LOG_ID,
        first,
        offsets[-1],
        watermark_s,
        Seen.of([part for user, name, step in seen for part in (user, session_of(name.decode()), step)]),
        [
            CountPiece(begin, end, packed.pack(_flat_counts(counts)))
            for begin, end, counts in zip(offsets, offsets[1:], pieces, strict=False)
        ],
    )
    commands = store.change_commands(PREFIX, now.live, changes, mode)
    return _run(client, *(c for at, c in enumerate(commands) if at != lost))


def _raise(
    client: redis.Redis, now: Situation, known: bool, right: bool, slot: int, steps: list, newest: list
) -> list[Any]:
    """Steps of slots from `slot` on, by one who knows (if `known`) the ticket and (if `right`) how many there are."""
    (reply,) = _run(client, store.slots_command(PREFIX, LOG_ID, now.live, 1))
    if isinstance(reply, ResponseError) or reply[0] != b"OK":
        return [reply]
    slots = reply[2] if right else reply[2] + 1
    runs = [slot, b"".join(step.to_bytes(4, "little") for step in steps[: max(0, slots - slot)])]
    before = reply[1].decode() if known else "another"
    piece = Raise(runs if runs[1] else [], newest)
    command = store.raise_command(PREFIX, LOG_ID, now.live, before, store.new_ticket(), slots, piece)
    return _run(client, command)


def _switch(client: redis.Redis, now: Situation, right: bool, force: bool) -> store.Switch:
    old = str(now.live) if now.live else ""
    return store.switch(client, PREFIX, LOG_ID, old if right else "99", now.newest, force)


def _ask(name: str) -> Callable[..., list[Any]]:
    def ask(client: redis.Redis, now: Situation, right: bool, payload: list) -> list[Any]:
        return _run(client, script(name, PREFIX, LOG_ID, now.live if right else now.live + 1, payload))

    return ask


def _contents_newest(client: redis.Redis, now: Situation) -> Any:
    (reply,) = _run(client, script("contents_newest", PREFIX, LOG_ID, now.live, []))
    if isinstance(reply, ResponseError) or reply[0] != b"OK":
        return [reply]
    # In whatever order the hash gives its fields.
    return reply[:2], dict(zip(reply[2::2], reply[3::2], strict=True))


def _drop_piece(client: redis.Redis, now: Situation, behind: int, keys_max: int) -> list[Any]:
    return _run(client, script("drop", PREFIX, LOG_ID, now.newest - behind, [keys_max]))


def _share(client: redis.Redis, now: Situation, log_id: str, counts: dict[bytes, int]) -> list[Any]:
    names = [keys.shared_bots(PREFIX, 8, user) for user in counts]
    return _run(client, raw_script("share_bots", names, [log_id, 700, list(counts.values())]))


def _damage(client: redis.Redis, now: Situation, part: str, command: tuple) -> None:
    """A key of the live generation (or the name of that) is made something else."""
    name = keys.current(PREFIX, LOG_ID) if not part else keys.part(PREFIX, LOG_ID, now.live, part)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command(command[0], name, *command[1:])
        pipeline.execute(raise_on_error=False)


def _users(least: int = 1) -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.sampled_from(USERS), min_size=least, max_size=4, unique=True)


_pages = st.lists(st.sampled_from(PAGES), min_size=1, unique=True)
_names = st.lists(st.sampled_from([*PARTS, "pages:odd", "sessions:1"]), min_size=1)
_garbage = st.sampled_from(
    [b"", b"x", b"-1", b"2.5", b"9" * 15, record_of({b"s": 0, b"t": 1}), b"\6\0\0\0\5s"]
)
_damages = st.one_of(
    st.tuples(st.just("UNLINK")),
    st.tuples(st.just("SET"), _garbage),
    st.tuples(st.just("RPUSH"), st.sampled_from([b"0", b"1", b"-1", b"x", b"900"])),
    st.tuples(st.just("SETRANGE"), st.sampled_from([0, 4, 7]), st.sampled_from([b"", b"\0\0\0\0", b"\6"])),
    st.tuples(st.just("HSET"), st.sampled_from([*USERS, *PAGES, b"applied", b"base_step", b"6"]), _garbage),
    st.tuples(
        st.just("HDEL"), st.sampled_from([*USERS, b"applied", b"seen_step", b"swept", b"layout", b"6"])
    ),
    st.tuples(st.just("ZADD"), st.sampled_from([0, 3, -2]), st.sampled_from([*USERS, *PAGES, b"odd", b"6"])),
    st.tuples(st.just("ZREM"), st.sampled_from([*USERS, *PAGES, b"6", b"7"])),
)

_writes = [
    _call("build", _build, _seen, _counts, st.integers(0, 30), st.sampled_from([True, True, True, False])),
    _call("switch", _switch, _right, st.booleans()),
    _call(
        "change",
        _change,
        st.sampled_from([0] * 6 + [-2, 3]),
        _seen,
        st.lists(_counts, min_size=1, max_size=3),
        st.sampled_from([-1] * 4 + [0, 1]),
        st.sampled_from([0, 80, 95, 200]),
        st.sampled_from(["live", "live", "building"]),
    ),
    _call(
        "raise",
        _raise,
        _right,
        _right,
        st.integers(0, 4),
        st.lists(st.sampled_from(STEPS[1:]), min_size=1, max_size=3),
        st.sampled_from([[], [], [6, -1, 7, 1], [5, 0], [7, -1, 9, 1], [6, 2, 7, -2]]),
    ),
    _call(
        "publish",
        lambda client, now, at, until_us, end: _run(
            client,
            store.publish_command(
                PREFIX, LOG_ID, LogState(now.live, now.state.applied + at, 0, 0, 0, 0, 0), until_us, end
            ),
        ),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([0, 80, 1_710_504_000_000_000]),
        st.integers(0, 30),
    ),
    _call(
        "trim",
        lambda client, now, right, base, seen: _run(
            client,
            store.trim_command(PREFIX, LOG_ID, now.live if right else 99, base, seen, store.new_ticket()),
        ),
        _right,
        Step,
        Step,
    ),
    _call("drop others", lambda client, now: store.drop_others(client, PREFIX, LOG_ID)),
    _call("drop", _drop_piece, st.integers(0, 1), st.integers(1, 3)),
    _call(
        "share",
        _share,
        st.sampled_from(["1", "2"]),
        st.dictionaries(st.sampled_from(USERS), st.integers(0, 9)),
    ),
]
_reads = [
    _call("state", lambda client, now: _run(client, state_script(PREFIX, LOG_ID))),
    _call(
        "scrub",
        lambda client, now, last, logs: _run(
            client, store.scrub_command(PREFIX, LOG_ID, now.live, (last, b"0"), logs)
        ),
        st.sampled_from([b"", *USERS]),
        st.sampled_from([1, 2_000]),
    ),
    _call("newest", _contents_newest),
]
_w = st.sampled_from([0, 4, 5, 6, 8, 400])
_payloads = {
    "read_users": st.one_of(st.tuples(_w), st.tuples(_w, st.sampled_from([b"", *USERS]), st.integers(1, 3))),
    "read_ranked": st.tuples(_w, st.integers(1, 4)),
    "read_sessions": st.tuples(_w, st.sampled_from(USERS)),
    "read_members": st.tuples(_w, _users()),
    "read_top": st.tuples(_w, st.integers(1, 4)),
    "read_views": st.tuples(_w, _pages),
    "read_slots": st.tuples(st.integers(1, 9)),
    "contents_users": _users(),
    "contents_pages": _pages,
    "contents_keys": _names,
}
_asked = {name: payload.map(list) for name, payload in _payloads.items()}
_at_the_end = st.tuples(
    *_writes, *_reads, *(_call(name, _ask(name), st.just(True), payload) for name, payload in _asked.items())
)
_reads += [_call(name, _ask(name), _right, payload) for name, payload in _asked.items()]
_damaging = [
    _call("damage", _damage, st.sampled_from(["", *PARTS[:-2]]), _damages),
    _call("garbage", _damage, st.just("seen"), st.tuples(st.just("HSET"), st.sampled_from(USERS), _garbage)),
    _call(
        "garbage",
        _damage,
        st.just("newest"),
        st.tuples(st.just("HSET"), st.sampled_from([b"6", b"7"]), _garbage),
    ),
    _call(
        "garbage", _damage, st.just("pages:7"), st.tuples(st.just("HSET"), st.sampled_from(PAGES), _garbage)
    ),
]


def calls() -> st.SearchStrategy[list[Call]]:
    """Sequences of calls, most of which begin with views that are live; in the end each is made once more."""
    begun = st.tuples(
        _call("build", _build, _seen, _counts, st.integers(0, 9), st.just(True)),
        _call("switch", _switch, st.just(True), st.just(False)),
    )
    drawn = st.one_of(*_writes, *_writes, *_reads, *_reads, *_damaging)
    parts = st.tuples(st.one_of(begun, begun, st.just(())), many(drawn, 30), _at_the_end)
    return parts.map(lambda found: [call for part in found for call in part])


def outcome(call: Call, client: redis.Redis, now: Situation, number: int) -> Any:
    """What came of a call, errors by what production code makes of them. `number`: of the call, for its tickets."""
    try:
        with mock.patch.object(store, "_NUMBERS", itertools.count(1_000 * number)):
            found = call.do(client, now)
    except ResponseError as error:
        found = [error]
    if not isinstance(found, list):
        return found
    return [_as_judged(reply) for reply in found]


def _as_judged(reply: Any) -> Any:
    return ("error", store.is_broken(reply)) if isinstance(reply, ResponseError) else reply
