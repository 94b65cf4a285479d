"""The named queries as the pipeline asks them, for two servers in turn: see `postgres_sides`.

What is drawn says how an operation deviates from what would be right; what would be right is looked up in the
simulated server. Operations that would wait for the other session, or that nobody does in such a transaction, are
left out by `allowed`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from hypothesis import strategies as st

from hotpath.errors import HotpathError
from hotpath.events import STEP_S
from hotpath.views.rebuild import LOCK_CLASS
from hotpath.workers import logs
from hotpath.workers.logs import Claim
from tests.simulation.postgres import LogRow
from tests.support.blocks import NOON_US
from tests.support.flushes import DEVIATIONS, EVENTS, flush
from tests.support.postgres_sides import TIMEOUTS, Side, Simulated
from tests.support.redis_commands import many

RULES = [{"late_max_s": 300}, {"late_max_s": 10}]
NOON_S = NOON_US // 1_000_000
FORWARD = 1 << 40
OUTSIDE, READS, WRITES, ANYWHERE = "outside", "reads", "writes", "anywhere"
"""Where an operation is done: outside transactions; where nothing was copied before it; where nothing that is locked
can be in its way; in any."""

Logs = dict[int, LogRow]
Do = Callable[[Side, int, Logs], Any]


@dataclass(frozen=True)
class Operation:
    """Something that session `session` does; `do` returns what is to be compared."""

    name: str
    session: int
    where: str
    do: Do
    parts: tuple

    def __repr__(self) -> str:
        return f"{self.session}: {self.name}{self.parts}"

    def allowed(self, side: Simulated) -> bool:
        transaction = side.transaction(self.session)
        if self.where == OUTSIDE:
            return transaction is None and side.free(self.session)
        if self.where == WRITES:
            return side.free(self.session) and not (transaction and transaction.repeatable)
        if self.where == READS:
            return not (transaction and any(table == "events" for table, _ in transaction.inserts))
        return True

    def outcome(self, side: Side, rows: Logs) -> Any:
        """What came of it; of errors the class of their SQLSTATE."""
        try:
            return self.do(side, self.session, rows)
        except psycopg.Error as error:
            return "error", (error.sqlstate or "")[:2]
        except HotpathError as error:
            return type(error).__name__  # which of several logs it names is open


def _operation(
    name: str, where: str, do: Callable[..., Any], *parts: st.SearchStrategy
) -> st.SearchStrategy[Operation]:
    drawn = st.tuples(st.sampled_from([0, 0, 1]), st.tuples(*parts))
    return drawn.map(
        lambda found: Operation(
            name, found[0], where, lambda side, i, rows: do(side, i, rows, *found[1]), found[1]
        )
    )


# What the pipeline asks with

_partitions = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)
_topic_ids = st.sampled_from(["id-1", "id-1", "id-1", "id-2"])
_deviation = st.sampled_from([0] * 8 + [1, -1])
_some_logs = st.lists(st.integers(1, 5), min_size=1, max_size=4, unique=True)
_claims = st.builds(
    lambda topic_id, partitions, low, owner, only_after: Claim(
        "events",
        topic_id,
        partitions,
        [low] * len(partitions),
        [FORWARD] * len(partitions),
        owner,
        RULES[0],
        only_after=only_after,
    ),
    _topic_ids,
    _partitions,
    st.sampled_from([0, 0, 4]),
    st.sampled_from(["a 0", "b 0"]),
    st.sampled_from(["", "", "a"]),
)


def _claimed(side: Side, index: int, claim: Claim) -> dict[str, Any]:
    return {**claim.parameters(), "rules_id": 1, **side.owner(index)}


def _ordered(name: str) -> Callable[..., list]:
    return lambda side, index, rows, claim: side.run(index, name, _claimed(side, index, claim))


def _as_set(name: str) -> Callable[..., list]:
    return lambda side, index, rows, claim: sorted(side.run(index, name, _claimed(side, index, claim)))


def _rules_id(side: Side, index: int, rows: Logs, number: int) -> int:
    return logs.rules_id(side.connections[index], RULES[number])


def _take_over(side: Side, index: int, rows: Logs, claim: Claim, rules: int) -> Any:
    number = logs.rules_id(side.connections[index], RULES[rules])
    return logs.take_over(side.connections[index], side.backends[index], claim, number)


def _end_old_owners(side: Side, index: int, rows: Logs, claim: Claim) -> list:
    ended = side.run(index, "end_old_owners", _claimed(side, index, claim))
    # Whether it worked is left out: of a process that is ending already it may be said that it did not.
    return sorted((partition, owner, side.names[pid]) for partition, owner, pid, _ in ended)


def _incarnations(side: Side, index: int, rows: Logs, claim: Claim) -> set[str]:
    # Which was written last is left out: no world has two.
    return {topic_id for topic_id, _ in side.run(index, "other_incarnations", claim.parameters())}


def _record_backend(side: Side, index: int, rows: Logs, log_ids: list[int], deviation: int) -> None:
    epochs = [rows[i].epoch + deviation if i in rows else 1 for i in log_ids]
    side.tell(index, "record_backend", {"log_ids": log_ids, "epochs": epochs, **side.owner(index)})


# What the bots and the views ask


def _bot_counts(side: Side, index: int, rows: Logs, pairs: list, below: int) -> list:
    log_ids, seconds = zip(*pairs, strict=True)
    parameters = {
        "log_ids": list(log_ids),
        "seconds": list(seconds),
        "below": [rows[i].next_offset - below if i in rows else 9 for i in log_ids],
        "first_s": min(seconds),
        "last_s": max(seconds),
    }
    return sorted(side.run(index, "bot_counts", parameters))


def _of_logs(name: str) -> Callable[..., list]:
    return lambda side, index, rows, log_ids: side.run(index, name, {"log_ids": log_ids})


def _alone(name: str) -> Callable[..., list]:
    return lambda side, index, rows: side.run(index, name)


def _offsets(name: str) -> Callable[..., list]:
    def ask(side: Side, index: int, rows: Logs, log_id: int, first: int, count: int, from_s: int) -> list:
        span = {"log_id": log_id, "first_offset": first, "next_offset": first + count, "step_s": STEP_S}
        bucket = {"bucket": 2} if name == "page_views_in_offsets" else {}
        found = side.run(index, name, {**span, "from_s": from_s, **bucket})
        # Its buckets come in order, the rows of one in any.
        assert not bucket or [row[0] for row in found] == sorted(row[0] for row in found)
        return sorted(found)

    return ask


def _windows(name: str) -> Callable[..., list]:
    def ask(side: Side, index: int, rows: Logs, log_ids: list[int], from_s: int) -> list:
        return sorted(side.run(index, name, {"log_ids": log_ids, "from_s": from_s, "step_s": STEP_S}))

    return ask


def _gaps(name: str) -> Callable[..., list]:
    def ask(side: Side, index: int, rows: Logs, gaps: dict[int, tuple[int, int]], from_s: int) -> list:
        firsts = [first for first, _ in gaps.values()]
        nexts = [first + count for first, count in gaps.values()]
        span = {"log_ids": list(gaps), "first_offsets": firsts, "next_offsets": nexts, "step_s": STEP_S}
        borders = {"least_offset": min(firsts), "greatest_offset": max(nexts), "from_s": from_s}
        return sorted(side.run(index, name, {**span, **borders}))

    return ask


def _view_lock(name: str) -> Callable[..., list]:
    return lambda side, index, rows, log_id: side.run(index, name, {"class": LOCK_CLASS, "log_id": log_id})


# Sessions


def _begin(side: Side, index: int, rows: Logs, repeatable: bool) -> None:
    side.begin(index, repeatable)


def _end(side: Side, index: int, rows: Logs, commits: bool) -> None:
    if side.blocks[index] is not None:
        side.end(index, commits)


def _end_all(side: Side, index: int, rows: Logs) -> None:
    for each in (0, 1):
        _end(side, each, rows, commits=True)


def _end_backend(side: Side, index: int, rows: Logs, whose: int, right: bool) -> list:
    start = side.backends[whose if right else 1 - whose].backend_start
    return side.run(index, "end_backend", {"pid": side.backends[whose].pid, "backend_start": start})


def _own_backend(side: Side, index: int, rows: Logs) -> bool:
    return side.run(index, "own_backend") == [(side.backends[index].pid, side.backends[index].backend_start)]


def _configure(side: Side, index: int, rows: Logs) -> list:
    # Time-outs come back in the server's own words, which nobody reads.
    return [row[3:] for row in side.run(index, "configure_session", TIMEOUTS)]


def _limit_idle(side: Side, index: int, rows: Logs) -> int:
    return len(side.run(index, "limit_idle_session", TIMEOUTS))


def _summarizable(side: Side, index: int, rows: Logs) -> None:
    # The names of real indexes: a simulated server has none, and summarising them changes no answer.
    side.run(index, "summarizable_indexes")


_from_s = st.sampled_from([0, NOON_S - 30, NOON_S, NOON_S + 1, NOON_S + 30])
_log_id = st.integers(1, 4)
_span = (_log_id, st.integers(0, 9), st.integers(1, 12), _from_s)
_gap = st.dictionaries(_log_id, st.tuples(st.integers(0, 9), st.integers(1, 12)), min_size=1, max_size=3)
_pairs = st.lists(
    st.tuples(_log_id, st.sampled_from([NOON_S - 1, NOON_S, NOON_S + 1])), min_size=1, max_size=4, unique=True
)
_flushes = _operation(
    "flush",
    WRITES,
    flush,
    st.lists(EVENTS, min_size=1, max_size=3),
    DEVIATIONS,
    st.sampled_from([True, True, True, False]),
    st.booleans(),
)
_taking = [
    _operation("rules_id", OUTSIDE, _rules_id, st.integers(0, 1)),
    _operation("other_incarnations", ANYWHERE, _incarnations, _claims),
    _operation("end_old_owners", OUTSIDE, _end_old_owners, _claims),
    _operation(
        "add_logs", WRITES, lambda side, i, rows, c: side.tell(i, "add_logs", _claimed(side, i, c)), _claims
    ),
    _operation("lock_taken_logs", WRITES, _ordered("lock_taken_logs"), _claims),
    _operation("taken_log_owners", ANYWHERE, _as_set("taken_log_owners"), _claims),
    _operation("raise_epochs", WRITES, _as_set("raise_epochs"), _claims),
    _operation("read_logs", ANYWHERE, _ordered("read_logs"), _claims),
    _operation("take over", OUTSIDE, _take_over, _claims, st.integers(0, 1)),
]
_writing = [
    _operation("lock_logs", WRITES, _of_logs("lock_logs"), _some_logs),
    _operation("record_backend", WRITES, _record_backend, _some_logs, _deviation),
    _operation("next_view_generation", ANYWHERE, _alone("next_view_generation")),
    _operation("try_view_lock", ANYWHERE, _view_lock("try_view_lock"), st.integers(1, 2)),
    _operation("view_unlock", ANYWHERE, _view_lock("view_unlock"), st.integers(1, 2)),
]
_reading = [
    _operation("bot_counts", READS, _bot_counts, _pairs, st.integers(0, 2)),
    _operation("open_logs", ANYWHERE, _alone("open_logs")),
    _operation("retired_logs", ANYWHERE, _alone("retired_logs")),
    _operation("least_watermark", ANYWHERE, _alone("least_watermark")),
    _operation("log_positions", ANYWHERE, _of_logs("log_positions"), _some_logs),
    _operation("summarizable_indexes", ANYWHERE, _summarizable),
]
for _name in ("seen", "page_views"):
    _reading += [
        _operation(f"{_name}_in_offsets", READS, _offsets(f"{_name}_in_offsets"), *_span),
        _operation(f"{_name}_in_windows", READS, _windows(f"{_name}_in_windows"), _some_logs, _from_s),
        _operation(f"{_name}_in_gaps", READS, _gaps(f"{_name}_in_gaps"), _gap, _from_s),
    ]
_sessions = [
    _operation("begin", OUTSIDE, _begin, st.sampled_from([False, False, True])),
    _operation("end", ANYWHERE, _end, st.sampled_from([True, True, False])),
    _operation("end_backend", OUTSIDE, _end_backend, st.integers(0, 1), st.booleans()),
    _operation("own_backend", OUTSIDE, _own_backend),
    _operation("configure_session", OUTSIDE, _configure),
    _operation("limit_idle_session", OUTSIDE, _limit_idle),
]


def operations() -> st.SearchStrategy[list[Operation]]:
    """Sequences of operations that begin with a set of rules and logs; in the end each is done once more."""
    begin = st.tuples(
        _operation("rules_id", OUTSIDE, _rules_id, st.just(0)),
        _operation("take over", OUTSIDE, _take_over, _claims, st.just(0)),
    )
    drawn = st.one_of(
        *([_flushes] * 12), *_taking, *_writing, *_reading, *_reading, *_sessions, *(_sessions[:2] * 3)
    )
    in_the_end = st.tuples(
        _operation("end all", ANYWHERE, _end_all), *_taking, _flushes, _flushes, *_writing, *_reading
    )
    parts = st.tuples(begin, many(drawn, 30), in_the_end)
    return parts.map(lambda found: [operation for part in found for operation in part])
