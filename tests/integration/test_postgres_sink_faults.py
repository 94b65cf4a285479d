"""Exactly once under faults: sessions killed, replies lost, owners that hang, rows that Postgres refuses."""

import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from hotpath.errors import Fenced, Unavailable
from hotpath.events import EventClass
from hotpath.shm.block import Block
from hotpath.workers import postgres_sink
from hotpath.workers.copy_format import seal_rows
from hotpath.workers.logs import LogHandle
from tests.support.blocks import Event, append_events, new_block, numbered
from tests.support.proxy import Break, BreakingProxy
from tests.support.stored import assert_ledger_agrees, new_sink, offsets, rows, take

DEADLINE_S = 30


@pytest.fixture
def proxy(database):
    made = BreakingProxy(database)
    yield made
    made.close()


@pytest.fixture
def open_sink():
    """new_sink, closed at the end of the test."""
    sinks = []

    def made(*arguments, **functions):
        sinks.append(new_sink(*arguments, **functions))
        return sinks[-1]

    yield made
    for sink in sinks:
        sink.close()


def next_block(handles: list[LogHandle], number: int, rows_per_log: int = 200) -> Block:
    """The number-th block of these logs, each of which has as many events in each block, one of them dropped."""
    first = number * rows_per_log
    block = new_block([h.log_id for h in handles], [first] * len(handles), [h.epoch for h in handles])
    events = []
    for index in range(len(handles)):
        events += numbered(rows_per_log - 1, first, index)
        events.append(Event(first + rows_per_log - 1, index, EventClass.BOT, user_id="bot"))
    seal_rows(block, append_events(block, events))
    return block


def assert_stored_once(database: str, handles: list[LogHandle], blocks: int, rows_per_log: int = 200) -> None:
    kept = [o for o in range(blocks * rows_per_log) if (o + 1) % rows_per_log]
    assert offsets(database) == [(h.log_id, o) for h in handles for o in kept]
    dropped = rows(database, "select log_id, dropped from bot_activity order by 1")
    assert dropped == [(h.log_id, blocks) for h in handles]
    assert_ledger_agrees(database)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


class Killer(threading.Thread):
    """Ends the workers' server processes at random moments until told to stop."""

    def __init__(self, dsn: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._random = random.Random(seed)
        self.enough = threading.Event()
        self.killed = 0

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self.enough.wait(self._random.uniform(0.002, 0.05)):
                self.killed += connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where application_name like 'hotpath worker%' and datname = current_database()"
                ).rowcount


def test_killed_sessions_neither_lose_nor_double_anything(database, open_sink, monkeypatch):
    monkeypatch.setattr("hotpath.workers.postgres_session.BACKOFF_FIRST_S", 0.005)
    monkeypatch.setattr("hotpath.workers.postgres_session.BACKOFF_MAX_S", 0.02)
    sink = open_sink(database)
    handles = take(sink, [0, 1])
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    killer = Killer(database, seed)
    killer.start()
    number = 0
    deadline = time.monotonic() + DEADLINE_S
    while (number < 40 or killer.killed < 15) and time.monotonic() < deadline:
        sink.flush(next_block(handles, number))
        number += 1
    killer.enough.set()
    killer.join()
    assert killer.killed >= 15
    assert_stored_once(database, handles, number)


@pytest.mark.parametrize("how", list(Break))
@pytest.mark.parametrize("pattern", [b"COMMIT", b"advance_logs", b"PGCOPY"])
def test_a_connection_lost_at_a_step_is_settled(database, proxy, open_sink, how, pattern):
    sink = open_sink(proxy.dsn)
    handles = take(sink, [0, 1])
    sink.flush(next_block(handles, 0))
    proxy.break_at(pattern, how, times=2)
    for number in (1, 2, 3):
        sink.flush(next_block(handles, number))
    assert proxy.broken == 2
    assert_stored_once(database, handles, 4)


def test_a_new_session_is_recorded_under_the_same_epoch(database, proxy, open_sink):
    sink = open_sink(proxy.dsn)
    handles = take(sink)
    before = rows(database, "select backend_pid, epoch from partition_state")
    proxy.break_at(b"COMMIT", Break.REPLY_LOST)
    sink.flush(next_block(handles, 0))
    ((pid, epoch),) = rows(database, "select backend_pid, epoch from partition_state")
    assert (pid, epoch) == (sink._session.backend.pid, before[0][1])
    assert pid != before[0][0]


def test_an_old_owner_is_fenced_and_stores_nothing(database, open_sink):
    old, new = open_sink(database, 0), open_sink(database, 1)
    held = take(old)
    old.flush(next_block(held, 0))
    handles = take(new, owner="worker 1")
    with pytest.raises(Fenced):
        old.flush(next_block(held, 1))
    assert handles[0].next_offset == 200
    new.flush(next_block(handles, 1))
    assert_stored_once(database, handles, 2)


def test_taking_over_does_not_wait_for_an_owner_that_hangs_with_its_locks(database, proxy, open_sink):
    old, new = open_sink(proxy.dsn, 0), open_sink(database, 1)
    held = take(old, [0, 1])
    hung = threading.Event()
    # The old owner's server process has run step 5 and waits for a COMMIT that never comes, holding its rows.
    proxy.break_at(b"COMMIT", Break.SERVER_UNAWARE)
    outcome = []

    def flush() -> None:
        try:
            old.flush(next_block(held, 0))
        except Exception as error:
            outcome.append(error)

    old._session._pause = lambda error: hung.wait(DEADLINE_S)  # the process is stopped: it notices nothing
    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    idle = "select from pg_stat_activity where application_name = 'hotpath worker 0' and state like 'idle in tr%%'"
    wait_until(lambda: proxy.broken == 1 and bool(rows(database, idle)))
    began = time.monotonic()
    handles = take(new, [0, 1], owner="worker 1")
    assert time.monotonic() - began < 2
    assert [h.next_offset for h in handles] == [0, 0]
    new.flush(next_block(handles, 0))
    hung.set()
    thread.join(DEADLINE_S)
    assert [type(error) for error in outcome] == [Fenced]
    assert_stored_once(database, handles, 1)


def test_an_owner_inside_its_transaction_cannot_commit_after_a_takeover(database, open_sink):
    old, new = open_sink(database, 0), open_sink(database, 1)
    held = take(old)
    handles = []
    copy_events = old._copy_events

    def taken_over_meanwhile(block: Block) -> None:
        copy_events(block)
        if not handles:
            handles.extend(take(new, owner="worker 1"))

    old._copy_events = taken_over_meanwhile
    with pytest.raises(Fenced):
        old.flush(next_block(held, 0))
    assert offsets(database) == []
    new.flush(next_block(handles, 0))
    assert_stored_once(database, handles, 1)


def test_a_session_with_the_pid_of_an_old_owner_is_left_alone(database, open_sink):
    old, new = open_sink(database, 0), open_sink(database, 1)
    take(old)
    with psycopg.connect(database, autocommit=True) as stranger:
        pid = stranger.info.backend_pid
        stranger.execute("update partition_state set backend_pid = %s", [pid])  # began at another time
        take(new)
        assert stranger.execute("select 1").fetchone() == (1,)


def test_a_strangers_lock_is_waited_out(database, open_sink, monkeypatch):
    monkeypatch.setattr("hotpath.workers.postgres_session.LOCK_TIMEOUT_S", 0.05)
    waited = threading.Event()
    beats = []
    sink = open_sink(database, heartbeat=lambda: (beats.append(1), waited.set()))
    handles = take(sink)
    stranger = psycopg.connect(database)
    stranger.execute("lock table ledger in access exclusive mode")
    thread = threading.Thread(target=lambda: sink.flush(next_block(handles, 0)))
    thread.start()
    assert waited.wait(DEADLINE_S)  # a first attempt has failed
    stranger.rollback()
    stranger.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert beats
    assert_stored_once(database, handles, 1)


def test_a_worker_that_must_stop_does_not_wait_for_postgres(database, proxy, open_sink):
    stopping = threading.Event()
    sink = open_sink(proxy.dsn, should_stop=stopping.is_set)
    handles = take(sink)
    proxy.close()
    thread = threading.Timer(0.3, stopping.set)
    thread.start()
    with pytest.raises(Unavailable, match="stopped while Postgres was failing"):
        sink.flush(next_block(handles, 0))
    assert offsets(database) == []


def test_a_missing_table_is_told_and_not_waited_for(database, open_sink):
    sink = open_sink(database)
    handles = take(sink)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("alter table events rename to something_else")
    with pytest.raises(Unavailable, match=r"42P01.*hotpath.migrate"):
        sink.flush(next_block(handles, 0))


# Rows that Postgres refuses: section 2 of the semantics makes them impossible, so they are made by hand.


def with_broken_rows(handles: list[LogHandle], broken: list[int], count: int = 300) -> Block:
    block = new_block([handles[0].log_id], [0], [handles[0].epoch])
    events = [
        Event(
            offset,
            user_id="nul\0" if offset in broken else "u",
            event_class=EventClass.LATE if offset % 10 == 9 else EventClass.ACCEPTED,
        )
        for offset in range(count)
    ]
    seal_rows(block, append_events(block, events))
    return block


def test_a_row_that_postgres_refuses_is_quarantined_and_its_neighbours_are_stored(database, open_sink):
    sink = open_sink(database)
    handles = take(sink)
    broken = [0, 137, 138, 199, 299]  # two of them late
    block = with_broken_rows(handles, broken)
    sink.flush(block)
    stored = sorted(offsets(database) + offsets(database, "late_events"))
    assert stored == [(handles[0].log_id, o) for o in range(300) if o not in broken]
    quarantined = rows(database, "select kafka_offset, class, payload from quarantine order by 1")
    assert [row[:2] for row in quarantined] == [(o, "bad_value") for o in broken]
    assert all(b"nul\0" in payload for _, _, payload in quarantined)
    counted = rows(database, "select received, accepted, late, bad_value from ledger")
    assert counted == [(300, 267, 28, 5)]
    assert set(block.classes[broken]) == {EventClass.BAD_VALUE}
    assert_ledger_agrees(database)


def test_a_broken_row_is_quarantined_once_when_the_commit_fails(database, proxy, open_sink):
    sink = open_sink(proxy.dsn)
    handles = take(sink)
    proxy.break_at(b"COMMIT", Break.BEFORE)
    sink.flush(with_broken_rows(handles, [7]))
    assert rows(database, "select kafka_offset from quarantine") == [(7,)]
    assert rows(database, "select received, bad_value from ledger") == [(300, 1)]
    assert_ledger_agrees(database)


def test_a_block_of_broken_rows_is_a_fault_of_the_schema(database, open_sink, monkeypatch):
    monkeypatch.setattr(postgres_sink, "BROKEN_ROWS_MAX", 3)
    sink = open_sink(database)
    handles = take(sink)
    with pytest.raises(Unavailable, match="refuses over 3 rows"):
        sink.flush(with_broken_rows(handles, list(range(300))))
    assert offsets(database) == []
    assert rows(database, "select next_offset from partition_state") == [(0,)]


def test_a_block_whose_counts_do_not_add_up_is_refused_whole(database, open_sink):
    sink = open_sink(database)
    handles = take(sink)
    block = next_block(handles, 0)
    block.logs["counts"][0, EventClass.ACCEPTED] += 1
    with pytest.raises(Unavailable, match="ledger_received_is_the_sum"):
        sink.flush(block)
    assert offsets(database) == []
