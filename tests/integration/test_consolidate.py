"""Consolidation on real servers: every difference is named, and every state of Redis is brought back."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import psycopg
import pytest

from hotpath import consolidate
from hotpath.views import check, claims, keys, link, postgres
from hotpath.views.compare import compare
from hotpath.views.contents import Difference, read_log, sessions_of
from hotpath.views.expected import expected_of
from hotpath.views.keyspace import keyspace_faults
from hotpath.views.read import ViewReader, ViewsUnavailable
from hotpath.views.rebuild import LOCK_CLASS
from tests.integration.test_redis_sink import one_for_each_log, simple, state_of
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import World, put_sessions, record_of, stored_sessions
from tests.support.servers import REPOSITORY

SECOND_US = 1_000_000


@pytest.fixture
def world(new_world) -> World:
    made = new_world()
    made.run(simple(made, 300), NOON_US)
    return made


def differences(world: World) -> list[Difference]:
    found = []
    with postgres.connect(world.settings.postgres_dsn, "test") as connection:
        logs = postgres.open_logs(connection)
        for log_id, name in logs.items():
            contents = read_log(world.redis, "hotpath", log_id, name)
            found += compare(contents, expected_of(connection, contents))
        found += keyspace_faults(world.redis, "hotpath", logs, set())
    return found


def name_of(world: World, part: str, log_index: int = 0) -> str:
    return keys.part("hotpath", world.log_ids[log_index], state_of(world, log_index).generation, part)


def a_user(world: World) -> str:
    return world.redis.zrange(name_of(world, "users"), -1, -1)[0].decode()


def a_page(world: World) -> tuple[str, str]:
    """(step, page) of a page view."""
    step = world.redis.zrange(name_of(world, "steps"), -1, -1)[0].decode()
    return step, next(iter(world.redis.hgetall(name_of(world, f"pages:{step}")))).decode()


def test_views_in_step_with_postgres_have_no_differences(world):
    assert differences(world) == []
    world.run(one_for_each_log(world, NOON_US + 400 * SECOND_US), NOON_US + 400 * SECOND_US)
    assert differences(world) == []


def sessions_of_a_user(world: World) -> tuple[str, dict[bytes, int]]:
    """A user of several sessions, with their last-seen steps."""
    user = a_user(world)
    sessions = stored_sessions(world.redis, lambda part: name_of(world, part), user)
    assert len(sessions) > 1
    return user, sessions


def put(world: World, user: str, sessions: dict[bytes, int]) -> None:
    put_sessions(world.redis, lambda part: name_of(world, part), user, sessions)


def session_lost(world: World) -> set[str]:
    user, sessions = sessions_of_a_user(world)
    sessions.popitem()
    put(world, user, sessions)
    return {"sessions"}


def session_invented(world: World) -> set[str]:
    user, sessions = sessions_of_a_user(world)
    put(world, user, sessions | {b"s-invented": max(sessions.values())})
    return {"sessions"}


def session_set_back(world: World) -> set[str]:
    user, sessions = sessions_of_a_user(world)
    session = max(sessions, key=sessions.get)
    put(world, user, sessions | {session: sessions[session] - 1})
    return {"sessions"}


def session_twice(world: World) -> set[str]:
    user, _ = sessions_of_a_user(world)
    record = world.redis.hget(name_of(world, "seen"), user)
    again = record_of(dict(sessions_of(record)[:1]))
    world.redis.hset(name_of(world, "seen"), user, record + again)
    return {"seen", "ranked"}


def slot_of_two(world: World) -> set[str]:
    user, sessions = sessions_of_a_user(world)
    record = world.redis.hget(name_of(world, "seen"), user)
    slots = dict.fromkeys(sessions, sessions_of(record)[0][1])
    world.redis.hset(name_of(world, "seen"), user, record_of(slots))
    return {"slots", "sessions"}


def slot_given_away(world: World) -> set[str]:
    record = world.redis.hget(name_of(world, "seen"), a_user(world))
    world.redis.rpush(name_of(world, "free"), sessions_of(record)[0][1])
    return {"free"}


def free_slot_is_no_number(world: World) -> set[str]:
    world.redis.rpush(name_of(world, "free"), "many")
    return {"free"}


def slots_lost(world: World) -> set[str]:
    world.redis.delete(name_of(world, "slots"))
    return {"slots"}


def record_is_none(world: World) -> set[str]:
    world.redis.hset(name_of(world, "seen"), a_user(world), "not a record")
    return {"seen"}


def record_lost(world: World) -> set[str]:
    world.redis.hdel(name_of(world, "seen"), a_user(world))
    return {"seen", "users", "sessions", "newest"}


def user_lost(world: World) -> set[str]:
    world.redis.zrem(name_of(world, "users"), a_user(world))
    return {"users"}


def user_out_of_order(world: World) -> set[str]:
    world.redis.zincrby(name_of(world, "users"), 1, a_user(world))
    return {"users"}


def user_set_forward(world: World) -> set[str]:
    user, sessions = sessions_of_a_user(world)
    session = max(sessions, key=sessions.get)
    put(world, user, sessions | {session: sessions[session] + 1})
    return {"users", "sessions"}


def user_invented(world: World) -> set[str]:
    put(world, "nobody", {b"s": NOON_US // 10_000_000})
    return {"users", "sessions"}


def user_without_sessions(world: World) -> set[str]:
    world.redis.zadd(name_of(world, "users"), {"nobody": 0})
    return {"seen"}


def newest_step(world: World) -> int:
    return max(map(int, world.redis.hkeys(name_of(world, "newest"))))


def one_more_in_a_step(world: World) -> set[str]:
    world.redis.hincrby(name_of(world, "newest"), newest_step(world), 1)
    return {"newest"}


def one_in_a_step_before(world: World) -> set[str]:
    step = newest_step(world)
    world.redis.hincrby(name_of(world, "newest"), step, -1)
    world.redis.hincrby(name_of(world, "newest"), step - 1, 1)
    return {"newest"}


def count_of_a_step_is_no_number(world: World) -> set[str]:
    world.redis.hset(name_of(world, "newest"), newest_step(world), "many")
    return {"newest"}


def rank_raised(world: World) -> set[str]:
    world.redis.zincrby(name_of(world, "ranked"), -1, a_user(world))
    return {"ranked"}


def rank_lost(world: World) -> set[str]:
    assert world.redis.zrem(name_of(world, "ranked"), a_user(world))
    return {"ranked"}


def rank_of_nobody(world: World) -> set[str]:
    world.redis.zadd(name_of(world, "ranked"), {"nobody": -3})
    return {"users", "seen", "ranked"}


def view_counted_twice(world: World) -> set[str]:
    step, page = a_page(world)
    world.redis.hincrby(name_of(world, f"pages:{step}"), page, 1)
    world.redis.zincrby(name_of(world, "pages"), 1, page)
    return {"pages"}


def sum_of_a_page_raised(world: World) -> set[str]:
    world.redis.zincrby(name_of(world, "pages"), 1, a_page(world)[1])
    return {"pages"}


def step_unlisted(world: World) -> set[str]:
    world.redis.zrem(name_of(world, "steps"), a_page(world)[0])
    return {"pages", "keys"}


def step_lost(world: World) -> set[str]:
    world.redis.delete(name_of(world, f"pages:{a_page(world)[0]}"))
    return {"pages"}


def count_is_no_number(world: World) -> set[str]:
    step, page = a_page(world)
    world.redis.hset(name_of(world, f"pages:{step}"), page, "many")
    return {f"pages:{step}", "pages"}


def applied_ahead(world: World) -> set[str]:
    world.redis.hincrby(name_of(world, "state"), "applied", 7)
    return {"state"}


def watermark_raised(world: World) -> set[str]:
    world.redis.hincrby(name_of(world, "state"), "watermark_s", 7)
    return {"state"}


def state_lost(world: World) -> set[str]:
    world.redis.delete(name_of(world, "state"))
    return {"state"}


def current_lost(world: World) -> set[str]:
    world.redis.delete(keys.current("hotpath", world.log_ids[0]))
    return {"state", "keys"}


def of_another_type(part: str, *views: str) -> Callable[[World], set[str]]:
    def tamper(world: World) -> set[str]:
        name = name_of(world, part.format(step=a_page(world)[0]))
        world.redis.delete(name)
        world.redis.sadd(name, "member")
        return set(views)

    tamper.__name__ = f"{part}_of_another_type"
    return tamper


def leftover_generation(world: World) -> set[str]:
    world.redis.hset(keys.part("hotpath", world.log_ids[0], 999, "state"), "applied", 5)
    return {"keys"}


def stranger(world: World) -> set[str]:
    world.redis.set(name_of(world, "something"), 1)
    return {"keys"}


def log_that_does_not_count(world: World) -> set[str]:
    world.redis.set(keys.current("hotpath", 777), 1)
    return {"keys"}


TAMPERINGS = [
    session_lost,
    session_invented,
    session_set_back,
    session_twice,
    slot_of_two,
    slot_given_away,
    free_slot_is_no_number,
    slots_lost,
    record_is_none,
    record_lost,
    user_lost,
    user_out_of_order,
    user_set_forward,
    user_invented,
    user_without_sessions,
    one_more_in_a_step,
    one_in_a_step_before,
    count_of_a_step_is_no_number,
    rank_raised,
    rank_lost,
    rank_of_nobody,
    view_counted_twice,
    sum_of_a_page_raised,
    step_unlisted,
    step_lost,
    count_is_no_number,
    applied_ahead,
    watermark_raised,
    state_lost,
    current_lost,
    leftover_generation,
    stranger,
    log_that_does_not_count,
    of_another_type("state", "state", "keys"),
    of_another_type("users", "users", "keys"),
    of_another_type("ranked", "ranked", "keys"),
    of_another_type("seen", "seen", "keys"),
    of_another_type("newest", "newest", "keys"),
    of_another_type("slots", "slots", "keys"),
    of_another_type("free", "free", "keys"),
    of_another_type("pages", "pages", "keys"),
    of_another_type("steps", "steps", "keys"),
    of_another_type("pages:{step}", "pages", "keys"),
]


def consolidate_run(world: World, *flags: str) -> None:
    """The command, in this process. No worker and no Kafka is there."""
    consolidate.run(
        [
            *("--postgres-dsn", world.settings.postgres_dsn, "--redis-url", world.settings.redis_url),
            *("--kafka-bootstrap", "127.0.0.1:1", *flags),
        ]
    )


@pytest.fixture
def impatient(monkeypatch) -> None:
    """What is not there is not waited for."""
    monkeypatch.setattr(check, "STILL_S", 0.2)
    monkeypatch.setattr(claims, "KAFKA_TIMEOUT_S", 0.1)


def test_every_tampering_is_named_and_repaired(world, impatient):
    for tamper in TAMPERINGS:
        expected = tamper(world)
        found = differences(world)
        assert expected <= {difference.view for difference in found}, (tamper.__name__, found)
        if tamper is not log_that_does_not_count:
            assert {difference.log for difference in found} == {"events/0"}, "the other log is clean"
        with pytest.raises(consolidate.Drift):
            consolidate_run(world, "--check")
        consolidate_run(world)
        assert differences(world) == [], tamper.__name__
    asyncio.run(world.check())


def test_a_view_that_lags_is_compared_at_what_it_has_applied(world):
    world.commit(simple(world, 100))
    assert differences(world) == []
    world.redis.zrem(name_of(world, "users"), a_user(world))
    assert {difference.view for difference in differences(world)} == {"users"}


def test_last_seen_steps_that_are_ahead_of_the_counts_are_no_difference(world):
    """A block's last-seen updates go in before its counts: a check may fall in between."""
    log_id = world.log_ids[0]
    offset = int(world.status["committed"][0])
    world.commit([Event(offset, 0, user_id="u-0-early", time_us=NOON_US)])
    step = NOON_US // 10_000_000
    put(world, "u-0-early", {b"s-1": step})
    assert differences(world) == []
    put(world, "u-0-early", {b"s-1": step + 1})
    assert {(d.log, d.view) for d in differences(world)} == {("events/0", "sessions"), ("events/0", "users")}
    assert log_id in world.log_ids


# Whole states of Redis, without any worker


def wiped(world: World) -> None:
    world.redis.flushall()


def one_log_lost(world: World) -> None:
    world.redis.delete(*world.redis.scan_iter(match=f"hotpath:{{{world.log_ids[1]}}}:*"))


def blocks_missed(world: World) -> None:
    world.commit(simple(world, 120))


def restored_from_an_old_snapshot(world: World) -> None:
    snapshot = {key: world.redis.dump(key) for key in world.redis.scan_iter()}
    world.run(simple(world, 200), NOON_US + 5 * SECOND_US)
    world.redis.flushall()
    for key, value in snapshot.items():
        world.redis.restore(key, 0, value)


def ahead_of_a_restored_postgres(world: World) -> None:
    kept = {world.log_ids[i]: int(offset) for i, offset in enumerate(world.status["committed"])}
    watermarks = world.status["watermark_s"].tolist()
    events = list(world.events)
    world.run(simple(world, 200, NOON_US + 60 * SECOND_US), NOON_US + 90 * SECOND_US)
    for log_id, watermark_s in zip(kept, watermarks, strict=True):
        world.postgres.execute(
            "delete from events where log_id = %s and kafka_offset >= %s", (log_id, kept[log_id])
        )
        world.postgres.execute(
            "update partition_state set next_offset = %s, watermark_s = %s where log_id = %s",
            (kept[log_id], watermark_s, log_id),
        )
    world.events = events


@pytest.mark.parametrize(
    "spoil",
    [wiped, one_log_lost, blocks_missed, restored_from_an_old_snapshot, ahead_of_a_restored_postgres],
    ids=lambda spoil: spoil.__name__,
)
def test_every_state_is_named_and_repaired_without_workers(world, impatient, spoil, capsys):
    spoil(world)
    with pytest.raises(consolidate.Drift, match="the live views differ from Postgres: "):
        consolidate_run(world, "--check", "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["total"] == sum(document["by_view"].values()) >= len(document["differences"]) > 0
    consolidate_run(world)
    assert differences(world) == []
    asyncio.run(world.check(100))
    seen = dict(world.postgres.execute("select log_id, watermark_s from partition_state").fetchall())
    for log_index, log_id in enumerate(world.log_ids):
        claimed_us = state_of(world, log_index).complete_until_us
        assert claimed_us <= max(seen[log_id] * SECOND_US, NOON_US), "no more is claimed than was seen"


def test_gaps_are_filled_rather_than_rebuilt(world, impatient, capsys):
    generation = state_of(world, 0).generation
    blocks_missed(world)
    consolidate_run(world)
    assert state_of(world, 0).generation == generation
    assert "0 logs rebuilt" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [(), ("--rebuild",)], ids=str)
def test_keys_of_logs_that_were_given_up_are_dropped(world, impatient, flags):
    world.redis.set(name_of(world, "users", 1), b"not what it was")
    world.postgres.execute(
        "update partition_state set retired_at = now() where log_id = %s", [world.log_ids[1]]
    )
    assert "keys" in {difference.view for difference in differences(world)}
    consolidate_run(world, *flags)
    assert differences(world) == []


def test_rebuilding_and_checking_at_once_is_refused(world):
    with pytest.raises(consolidate.ConfigError, match="--check changes nothing and --rebuild does"):
        consolidate_run(world, "--check", "--rebuild")


# Rebuilds as processes, beside writers, readers and each other


def start(world: World, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "hotpath.consolidate", *flags],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "HOTPATH_POSTGRES_DSN": world.settings.postgres_dsn,
            "HOTPATH_REDIS_URL": world.settings.redis_url,
            "HOTPATH_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def many_users(world: World, count: int) -> list[Event]:
    offsets = world.status["committed"].tolist()
    return [
        Event(
            offsets[i % len(offsets)] + i // len(offsets),
            i % len(offsets),
            time_us=NOON_US + i,
            user_id=f"u-{i % len(offsets)}-{i}",
            page_url=f"/p/{i % 50}",
            session_id=f"s-{i}",
        )
        for i in range(count)
    ]


def ended(process: subprocess.Popen, within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def own(world: World) -> None:
    """Let the logs look as if a worker had them: its session is the test's own."""
    world.postgres.execute(
        "update partition_state s set backend_pid = a.pid, backend_start = a.backend_start"
        " from pg_stat_activity a where a.pid = pg_backend_pid()"
    )


class Reader(threading.Thread):
    """Polls all views every 10 ms; whatever fails or goes back is kept. Nothing leaves the windows meanwhile."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._settings = world.settings
        self.stopped = threading.Event()
        self.values: list[tuple[int, int, int]] = []
        self.failures: list[str] = []

    def run(self) -> None:
        asyncio.run(self._poll())

    async def _poll(self) -> None:
        client = link.connect_async(self._settings.redis_url, 5.0, 4)
        reader = ViewReader(client, self._settings)
        while not self.stopped.is_set():
            try:
                users = await reader.active_users()
                pages = await reader.top_pages(100)
                views = sum(count for _, count in pages.value)
                self._add((users.head.as_of_us, users.value, views))
            except ViewsUnavailable as error:
                self.failures.append(str(error))
            await asyncio.sleep(0.01)
        await client.aclose()

    def _add(self, value: tuple[int, int, int]) -> None:
        if self.values and any(now < before for now, before in zip(value, self.values[-1], strict=True)):
            self.failures.append(f"{self.values[-1]} became {value}")
        self.values.append(value)


async def check_sums(world: World) -> None:
    """Active users and top pages alone: `World.check` recounts all events for each user."""
    client = link.connect_async(world.settings.redis_url, 5.0, 4)
    reader = ViewReader(client, world.settings)
    users, pages = await reader.active_users(), await reader.top_pages(100)
    await client.aclose()
    assert users.value == world.expected_users(users.head.as_of_us)
    assert pages.value == world.expected_pages(pages.head.as_of_us, 100)


def test_readers_see_whole_views_while_logs_are_rebuilt_and_written(new_world):
    world = new_world(background=True)
    world.run(many_users(world, 3_000), NOON_US + SECOND_US)
    own(world)
    reader = Reader(world)
    reader.start()
    now_us = NOON_US + SECOND_US
    generation = state_of(world, 0).generation
    for _ in range(2):
        process = start(world, "--rebuild")
        while not ended(process, within_s=0.03):
            now_us += SECOND_US // 100
            world.sink.apply([world.commit(many_users(world, 40))])
            world.at_end(now_us)
            world.sink.tick(now_us)
        assert process.returncode == 0, process.stderr.read()
    world.tick(now_us)
    reader.stopped.set()
    reader.join()
    assert reader.failures == []
    assert len(reader.values) > 10
    committed = len(world.events)
    assert reader.values[0][1:] >= (3_000, 3_000)
    assert all(users <= committed and views <= committed for _, users, views in reader.values)
    assert state_of(world, 0).generation > generation
    assert differences(world) == []
    asyncio.run(check_sums(world))


def test_a_rebuild_killed_halfway_leaves_the_views_and_nothing_behind_for_long(new_world):
    world = new_world()
    world.run(many_users(world, 4_000), NOON_US + SECOND_US)
    generations = keys.generations("hotpath", world.log_ids[0])
    own(world)
    process = start(world, "--rebuild")
    while world.redis.scard(generations) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    if world.redis.get(keys.current("hotpath", world.log_ids[0])) == b"1":
        assert world.redis.scard(generations) == 2, "it was killed before it could drop the new one"
    asyncio.run(check_sums(world))
    again = start(world, "--rebuild")
    assert again.wait() == 0, again.stderr.read()
    assert world.redis.scard(generations) == 1
    assert differences(world) == []
    asyncio.run(check_sums(world))


def test_a_second_rebuilder_waits_and_says_for_whom(world):
    with psycopg.connect(world.settings.postgres_dsn, autocommit=True, application_name="somebody") as holder:
        holder.execute("select pg_advisory_lock(%s, %s)", (LOCK_CLASS, world.log_ids[0]))
        process = start(world, "--rebuild")
        told = next(line for line in process.stderr if "waiting" in line)
        assert f"logs {world.log_ids[0]} are being rebuilt by 'somebody'" in told
        assert process.poll() is None
    assert process.wait() == 0
    assert differences(world) == []


def test_rebuilders_at_once_all_succeed(world):
    own(world)
    processes = [start(world, "--rebuild") for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert differences(world) == []
    asyncio.run(world.check(100))


def test_errors_are_one_line(world):
    process = start(world, "--check", "--redis-url", "redis://127.0.0.1:1/0")
    _, said = process.communicate()
    assert process.returncode == 3
    assert said.startswith("hotpath: Redis: ")
    assert said.count("\n") == 1


def test_the_exit_code_tells_drift(world):
    process = start(world, "--check")
    said, _ = process.communicate()
    assert (process.returncode, said) == (0, "the live views are what Postgres says\n")
    session_lost(world)
    process = start(world, "--check")
    said, error = process.communicate()
    assert process.returncode == 1
    assert "events/0" in said
    assert "in sessions" in error
