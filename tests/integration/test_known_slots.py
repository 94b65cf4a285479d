"""A worker that knows slots raises no step by name, and what is stored is the same as if it did: whatever fails."""

import random
from collections.abc import Callable, Iterator
from typing import ClassVar

import msgpack
import numpy as np
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from hotpath.views import fold, link, postgres, refill, store
from hotpath.views.contents import read_log
from hotpath.views.slots import Slots
from tests.integration.test_redis_sink import check, simple, state_of, stream
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import World

SECOND_US = 1_000_000


class Nothing(Slots):
    """Knows no session: all are named, always."""

    def of(self, session_hashes: np.ndarray) -> np.ndarray:
        return np.full(session_hashes.size, -1)


class TwinWorld(World):
    """`kept`: keys and values of a snapshot of Redis."""

    kept: ClassVar[dict[bytes, bytes]] = {}


def touched(commands: list[link.Command]) -> int:
    """Entries that commands raise last-seen steps with by name."""
    payloads = [command[5] for command in commands if command[1] == link._SHAS["touch"]]
    return sum(len(msgpack.unpackb(payload, raw=True)[2]) for payload in payloads)


@pytest.fixture
def worlds(databases, redis_url) -> Iterator[tuple[TwinWorld, TwinWorld]]:
    """Two of the same logs and events, of which the second names everything; each has a database of its own."""
    dsns = [databases.create() for _ in range(2)]
    made = [TwinWorld(dsn, redis_url.replace("/0", f"/{number}")) for number, dsn in enumerate(dsns)]
    for known in made[1].sink._logs:
        known.slots = Nothing()
    yield made[0], made[1]
    for world, dsn in zip(made, dsns, strict=True):
        world.redis.flushdb()
        world.close()
        databases.drop(dsn)


def contents(world: World) -> list[tuple]:
    """All that is stored of each log."""
    found = [read_log(world.redis, "hotpath", log_id, "") for log_id in world.log_ids]
    assert [each.faults for each in found] == [[] for _ in found]
    return [(each.users, each.sessions, each.page_views, each.after.applied) for each in found]


# Faults: of the sending, then of what is stored.


def nothing(_: object) -> None:
    pass


def during_changes(patch: pytest.MonkeyPatch, fail: Callable[[Callable, object, list], list]) -> None:
    """Have `fail` answer the next pipeline of changes."""
    run = link.run
    failed = []

    def answer(client: object, commands: list[link.Command]) -> list[link.Reply]:
        if failed or not any(command[-1] == "live" for command in commands):
            return run(client, commands)
        failed.append(True)
        return fail(run, client, commands)

    patch.setattr(link, "run", answer)


def reply_lost(patch: pytest.MonkeyPatch) -> None:
    def fail(run: Callable, client: object, commands: list[link.Command]) -> list[link.Reply]:
        run(client, commands)
        raise RedisConnectionError("the reply was lost")

    during_changes(patch, fail)


def never_arrived(patch: pytest.MonkeyPatch) -> None:
    def fail(run: Callable, client: object, commands: list[link.Command]) -> list[link.Reply]:
        raise RedisConnectionError("never arrived")

    during_changes(patch, fail)


def cut_off(patch: pytest.MonkeyPatch) -> None:
    def fail(run: Callable, client: object, commands: list[link.Command]) -> list[link.Reply]:
        run(client, commands[: len(commands) // 2])
        raise RedisConnectionError("cut off")

    during_changes(patch, fail)


def refused(patch: pytest.MonkeyPatch) -> None:
    def fail(run: Callable, client: object, commands: list[link.Command]) -> list[link.Reply]:
        half = len(commands) // 2
        return run(client, commands[:half]) + [ResponseError("OOM")] * (len(commands) - half)

    during_changes(patch, fail)


def wiped(world: World) -> None:
    world.redis.flushdb()


def restored(world: TwinWorld) -> None:
    if world.kept:
        world.redis.flushdb()
        for name, value in world.kept.items():
            world.redis.restore(name, 0, value)


def rebuilt(world: World) -> None:
    world.sink.heal(world.log_ids[0], rebuild=True)


def rebuilt_by_another(world: World) -> None:
    with postgres.connect(world.settings.postgres_dsn, "test") as connection:
        requests = [postgres.Request(log_id, None) for log_id in world.log_ids]
        refill.Refill(world.settings, world.redis, connection).rebuild(requests, world.now_us, world.now_us)


SENDING = (nothing, nothing, reply_lost, never_arrived, cut_off, refused)
STORED = (nothing, nothing, wiped, restored, rebuilt, rebuilt_by_another)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_stored_is_the_same_whether_slots_are_known_or_not(worlds, monkeypatch, seed):
    for name, value in ((store, "TOUCH_ENTRIES_MAX"), (fold, "PAIRS_MAX"), (refill, "PAIRS_MAX")):
        monkeypatch.setattr(name, value, 20)
    random_ = random.Random(seed)
    now_us, sent = NOON_US, [0, 0]
    for _ in range(14):
        now_us += random_.choice((0, 1, 7, 30, 200)) * SECOND_US
        fail_sending, damage = random_.choice(SENDING), random_.choice(STORED)
        draw, keep = random_.random(), random_.random() < 0.4
        for index, world in enumerate(worlds):
            world.now_us = now_us
            block = world.commit(stream(world, random.Random(draw), 60, now_us))
            with monkeypatch.context() as patch:
                count_touches(patch, sent, index)
                fail_sending(patch)
                world.sink.apply([block])
            world.kept = {name: world.redis.dump(name) for name in world.redis.scan_iter()} if keep else {}
            # The same sessions in the same steps, at later offsets.
            again = world.commit(stream(world, random.Random(draw), 30, now_us))
            damage(world)
            with monkeypatch.context() as patch:
                count_touches(patch, sent, index)
                world.sink.apply([again])
            world.at_end(now_us)
            world.tick(now_us)
        assert contents(worlds[0]) == contents(worlds[1])
        check(worlds[0])
        worlds[0].check_lists()
    assert 0 < sent[0] < sent[1]


def count_touches(patch: pytest.MonkeyPatch, sent: list[int], index: int) -> None:
    run = link.run

    def counted(client: object, commands: list[link.Command]) -> list[link.Reply]:
        sent[index] += touched(commands)
        return run(client, commands)

    patch.setattr(link, "run", counted)


@pytest.fixture
def world(databases, redis_url) -> Iterator[World]:
    dsn = databases.create()
    made = World(dsn, redis_url)
    made.run(simple(made), NOON_US)
    yield made
    made.close()
    databases.drop(dsn)


def names_sessions(world: World, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether an event of a session that was seen before makes the sink name it."""
    sent = [0]
    with monkeypatch.context() as patch:
        count_touches(patch, sent, 0)
        event = Event(int(world.status["committed"][0]), 0, user_id="u-0-again", time_us=NOON_US)
        assert world.sink.apply([world.commit([event])])
    return sent[0] > 0


def test_a_session_is_named_once_and_again_when_its_slot_may_be_gone(world, monkeypatch):
    assert names_sessions(world, monkeypatch)
    assert not names_sessions(world, monkeypatch)
    world.sink._lose(RedisConnectionError("lost"))
    world.tick(NOON_US)
    assert names_sessions(world, monkeypatch), "the connection was lost"
    assert not names_sessions(world, monkeypatch)
    generation = state_of(world, 0).generation
    rebuilt_by_another(world)
    assert state_of(world, 0).generation > generation
    world.tick(NOON_US)
    assert names_sessions(world, monkeypatch), "another generation is live"
    assert not names_sessions(world, monkeypatch)
    rebuilt(world)
    assert names_sessions(world, monkeypatch), "the healer had it"
