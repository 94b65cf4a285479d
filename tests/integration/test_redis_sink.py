"""The Redis sink on real servers: views equal a recount of the events, whatever happened on the way."""

import asyncio
import random

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from hotpath.errors import Fenced
from hotpath.events import EventClass
from hotpath.views import fold, keys, link, refill, store
from hotpath.views.store import LogState, parse_state
from hotpath.workers import redis_upkeep
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import VIEW_PARTS, World, stored_sessions
from tests.support.pipeline import wait_until

SECOND_US = 1_000_000


@pytest.fixture
def world(new_world) -> World:
    return new_world()


def check(world: World, limit: int = 5) -> int:
    return asyncio.run(world.check(limit))


def stream(world: World, random_: random.Random, count: int, around_us: int) -> list[Event]:
    """Events of few users and pages, up to 15 minutes older and a minute newer than `around_us`."""
    offsets = world.status["committed"].tolist()
    events = []
    for _ in range(count):
        log_index = random_.randrange(len(offsets))
        offsets[log_index] += random_.choice((1, 1, 1, 2, 5))
        spread_s = random_.choice((5, 60, 300, 1_000))
        events.append(
            Event(
                offsets[log_index] - 1,
                log_index,
                random_.choice([EventClass.ACCEPTED] * 9 + [EventClass.LATE, EventClass.BOT]),
                around_us + random_.randint(-spread_s, 60) * SECOND_US,
                f"u-{log_index}-{random_.randrange(8)}",  # keyed by user: no user is in two logs
                random_.choice(("page_view", "page_view", "click")),
                f"/p/{int(random_.paretovariate(0.7))}",
                f"s-{random_.randrange(4)}",
            )
        )
    return events


@pytest.mark.parametrize("seed", range(4))
def test_views_equal_a_recount_while_windows_move_and_redis_loses_its_data(new_world, seed, monkeypatch):
    monkeypatch.setattr(fold, "PAIRS_MAX", 20)
    monkeypatch.setattr(refill, "PAIRS_MAX", 20)
    random_ = random.Random(seed)
    world = new_world(logs=3)
    now_us = NOON_US
    world.run(stream(world, random_, 50, now_us), now_us)
    as_of_us = check(world)
    for _ in range(10):
        now_us += random_.choice((0, 1, 7, 30, 200, 1_000)) * SECOND_US
        fault = random_.choice(("none", "none", "missed", "flushed", "ahead"))
        block = world.commit(stream(world, random_, random_.randrange(1, 120), now_us))
        if fault != "missed":
            assert world.sink.apply([block])
        if fault == "flushed":
            world.redis.flushall()
        if fault == "ahead":
            state = state_of(world, 0)
            name = keys.part("hotpath", world.log_ids[0], state.generation, "state")
            world.redis.hset(name, "applied", state.applied + 1_000)
        world.at_end(now_us)
        world.tick(now_us)
        assert check(world, random_.choice((1, 5, 100))) >= as_of_us
        as_of_us = now_us


def state_of(world: World, log_index: int) -> LogState:
    (reply,) = link.run(world.redis, [link.state_script("hotpath", world.log_ids[log_index])])
    return parse_state(reply)


def simple(world: World, count: int = 40, now_us: int = NOON_US) -> list[Event]:
    return stream(world, random.Random(count), count, now_us)


def one_for_each_log(world: World, time_us: int = NOON_US) -> list[Event]:
    return [
        Event(offset, log_index, time_us=time_us, user_id=f"u-{log_index}-new")
        for log_index, offset in enumerate(world.status["committed"].tolist())
    ]


def test_a_block_applied_twice_counts_once(world):
    world.run(simple(world), NOON_US)
    block = world.commit(simple(world, 60))
    assert world.sink.apply([block])
    assert world.sink.apply([block])
    world.at_end(NOON_US)
    world.tick(NOON_US)
    check(world)


def test_a_lost_reply_is_settled_by_the_applied_offset(world, monkeypatch):
    world.run(simple(world), NOON_US)
    block = world.commit(simple(world, 60))
    run = link.run

    def lose_the_reply(client, commands):
        replies = run(client, commands)
        if any(isinstance(command[-1], str) and command[-1] == "live" for command in commands):
            raise RedisConnectionError("the reply was lost")
        return replies

    monkeypatch.setattr(link, "run", lose_the_reply)
    assert not world.sink.apply([block])
    monkeypatch.setattr(link, "run", run)
    generation = state_of(world, 0).generation
    world.at_end(NOON_US)
    world.tick(NOON_US)
    check(world)
    assert state_of(world, 0).generation == generation, "nothing had to be rebuilt"
    assert world.sink.heals == len(world.log_ids), "only the first look brought logs back"


def test_a_block_cut_off_between_its_pieces_is_finished_from_postgres(world, monkeypatch):
    monkeypatch.setattr(fold, "PAIRS_MAX", 5)
    world.run(simple(world), NOON_US)
    block = world.commit(simple(world, 200))
    run = link.run

    def cut_off(client, commands):
        names = [command[1] for command in commands]
        if link._SHAS["apply"] in names:
            run(client, commands[: names.index(link._SHAS["apply"]) + 1])
            raise RedisConnectionError("cut off")
        return run(client, commands)

    monkeypatch.setattr(link, "run", cut_off)
    assert not world.sink.apply([block])
    monkeypatch.setattr(link, "run", run)
    first = int(block.logs["first_offset"][0])
    assert first < state_of(world, 0).applied < int(block.logs["next_offset"][0])
    world.at_end(NOON_US)
    world.tick(NOON_US)
    check(world)


def test_blocks_that_wait_are_no_gap(world):
    world.run(simple(world), NOON_US)
    heals = world.sink.heals
    blocks = [world.commit(one_for_each_log(world)) for _ in range(2)]
    for _ in range(5):
        assert world.sink.tick(NOON_US, blocks[0])
    assert world.sink.heals == heals
    for block in blocks:
        assert world.sink.apply([block])
    world.at_end(NOON_US)
    world.tick(NOON_US)
    check(world)
    assert world.sink.heals == heals


def test_a_gap_before_the_block_that_waits_is_healed(world):
    world.run(simple(world), NOON_US)
    heals = world.sink.heals
    world.commit(one_for_each_log(world))
    waiting = world.commit(one_for_each_log(world))

    def healed() -> bool:
        assert world.sink.tick(NOON_US, waiting)
        return world.sink.heals == heals + len(world.log_ids)

    wait_until(healed, "the logs are brought back")


def test_a_forgotten_script_is_loaded_again(world):
    world.run(simple(world), NOON_US)
    world.redis.script_flush()
    world.run(simple(world, 30), NOON_US + SECOND_US)
    check(world)


def test_a_touch_that_failed_keeps_counts_back(world):
    """A record that is none makes the last-seen piece fail: `applied` must not move over it."""
    world.run([Event(0, 0, user_id="a"), Event(0, 1, user_id="b")], NOON_US)
    generation, other = state_of(world, 0).generation, state_of(world, 1).generation
    world.redis.hset(keys.part("hotpath", world.log_ids[0], generation, "seen"), "a", "not a record")
    world.run([Event(1, 0, user_id="a", session_id="new"), Event(1, 1, user_id="b")], NOON_US)
    check(world)
    assert state_of(world, 0).generation > generation
    assert state_of(world, 1).generation == other, "the other log was left alone"


@pytest.mark.parametrize("part", [*VIEW_PARTS, "pages:*", "current", "generations"])
def test_a_key_of_a_wrong_type_is_healed_and_nothing_is_left_behind(world, part):
    world.run(simple(world), NOON_US)
    log_id = world.log_ids[0]
    generation = state_of(world, 0).generation
    pattern = f"hotpath:{{{log_id}}}:{part if part in ('current', 'generations') else f'{generation}:{part}'}"
    name = next(iter(sorted(world.redis.scan_iter(match=pattern))), pattern)  # `free` is not there at first
    world.redis.delete(name)
    if part == "free":
        world.redis.set(name, "wrong")
    else:
        world.redis.lpush(name, "wrong")
    world.run(one_for_each_log(world), NOON_US + SECOND_US)
    if part == "pages:*":
        # Only touched by a block of that step or by trimming: let the windows pass over it.
        world.run(one_for_each_log(world, NOON_US + 1_000 * SECOND_US), NOON_US + 1_000 * SECOND_US)
    if part == "generations":
        world.sink.heal(log_id, rebuild=True)
        world.tick(NOON_US + SECOND_US)
    check(world)
    live = state_of(world, 0).generation
    others = [
        key
        for key in world.redis.scan_iter(match=f"hotpath:{{{log_id}}}:*:*")
        if int(key.split(b":")[2]) != live
    ]
    if part not in ("current", "generations"):
        assert others == []


def idle_users(world: World, count: int = 300) -> None:
    """Users seen at noon and never again, each with two sessions; more than Redis gives in one piece of a scan."""
    world.run(
        [
            Event(2 * i + j, log_index, user_id=f"u-{log_index}-{i}", session_id=f"s-{j}")
            for log_index in range(len(world.log_ids))
            for i in range(count)
            for j in range(2)
        ],
        NOON_US,
    )


@pytest.mark.parametrize("how", ["wrong type", "lost"])
@pytest.mark.parametrize("part", ["users", "seen", "slots", "newest", "ranked", "pages", "pages:*", "steps"])
def test_damage_that_no_event_comes_upon_is_healed_by_ticks_alone(world, monkeypatch, part, how):
    monkeypatch.setattr(store, "SCRUB_USERS_MAX", 20)
    idle_users(world)
    generation, other = state_of(world, 0).generation, state_of(world, 1).generation
    pattern = keys.part("hotpath", world.log_ids[0], generation, part)
    (name,) = world.redis.scan_iter(match=pattern.replace("{", "\\{"))
    world.redis.delete(name)
    if how == "wrong type":
        world.redis.sadd(name, "not what it was")
    is_healed_by_ticks(world, generation, other)


def is_healed_by_ticks(world: World, generation: int, other: int) -> None:
    """The first log goes into a new generation, the second one stays in its own."""
    wait_until(
        lambda: world.sink.tick(NOON_US) and state_of(world, 0).generation > generation,
        "the damage is noticed",
    )
    world.tick(NOON_US)
    check(world)
    world.check_lists()
    assert state_of(world, 1).generation == other, "the other log was left alone"


@pytest.mark.parametrize(
    "damage",
    [
        ("HSET", "seen", "u-0-7", "not a record"),
        ("HSET", "seen", "u-0-7", ""),
        ("HDEL", "seen", "u-0-7"),
        ("HSET", "seen", "a stranger", b"\0\0\1\0\1s"),
        ("ZREM", "users", "u-0-7"),
        ("ZINCRBY", "users", 1, "u-0-7"),
        ("ZADD", "users", 0, "a stranger"),
        ("ZREM", "ranked", "u-0-7"),
        ("ZINCRBY", "ranked", 1, "u-0-7"),
        ("SETRANGE", "slots", 4 * 14, b"\0\0\0\0"),
        ("APPEND", "slots", b"\0"),
        ("HINCRBY", "newest", NOON_US // 10_000_000, 1),
        ("HSET", "newest", NOON_US // 10_000_000, "many"),
    ],
    ids=lambda damage: " ".join(map(str, damage[:3])),
)
def test_damage_inside_a_key_under_idle_users_is_healed_by_ticks_alone(world, monkeypatch, damage):
    monkeypatch.setattr(store, "SCRUB_USERS_MAX", 20)
    idle_users(world)
    generation, other = state_of(world, 0).generation, state_of(world, 1).generation
    command, part, *arguments = damage
    world.redis.execute_command(command, keys.part("hotpath", world.log_ids[0], generation, part), *arguments)
    is_healed_by_ticks(world, generation, other)


def test_looking_for_damage_goes_round_and_finds_none_in_whole_views(world, monkeypatch):
    monkeypatch.setattr(store, "SCRUB_USERS_MAX", 20)
    monkeypatch.setattr(store, "TRIM_USERS", 7)
    idle_users(world)
    heals, cursors = world.sink.heals, set()

    def look(now_us: int) -> bool:
        assert world.sink.tick(now_us)
        cursors.add(world.sink._logs[0].scrubbed[0])
        return world.sink._logs[0].scrubbed == store.SCRUB_START

    wait_until(lambda: not look(NOON_US), "a sweep is under way")
    wait_until(lambda: look(NOON_US), "a sweep has ended")
    assert len(cursors) > 10
    # Once more while the users leave.
    world.at_end(NOON_US + 3_000 * SECOND_US)
    users = keys.part("hotpath", world.log_ids[0], state_of(world, 0).generation, "users")
    monkeypatch.setattr(redis_upkeep, "TRIM_BUDGET_S", 0.002)
    wait_until(
        lambda: look(NOON_US + 3_000 * SECOND_US) and not world.redis.exists(users), "the users have left"
    )
    assert world.sink.heals == heals


def test_a_sweep_over_users_who_left_takes_its_time_and_pages_do_not(world, monkeypatch):
    monkeypatch.setattr(store, "TRIM_USERS", 10)
    monkeypatch.setattr(store, "TRIM_PAGES", 1)
    monkeypatch.setattr(store, "SWEEP_TICKS", 10)
    idle_users(world)
    later_us = NOON_US + 3_000 * SECOND_US
    world.at_end(later_us)
    generation = state_of(world, 0).generation
    users, steps = (keys.part("hotpath", world.log_ids[0], generation, name) for name in ("users", "steps"))
    assert world.sink.tick(later_us)  # publishes the as_of that the next ones trim by
    left = [world.redis.zcard(users)]
    while left[-1]:
        assert world.sink.tick(later_us)
        left.append(world.redis.zcard(users))
        assert not world.redis.exists(steps)
        assert left[-2] - left[-1] <= 30, left  # a tenth of all who were there
    assert len(left) > 10
    assert check(world) is not None


@pytest.mark.parametrize("order", ["XYYXZ", "YXXYZ", "XZYZY", "ZYXYX"])
def test_sessions_that_stand_within_another_ones_id_are_told_apart(world, order):
    # Records hold each session_id behind its length; 97 is the letter a.
    sessions = {"X": "ba" + 97 * "z", "Y": 97 * "z", "Z": 96 * "z"}
    for offset, name in enumerate(order):
        now_us = NOON_US + offset * 10 * SECOND_US
        event = Event(offset, 0, EventClass.ACCEPTED, now_us, "u", session_id=sessions[name])
        world.run([event], now_us)

        def name(part: str, generation: int = state_of(world, 0).generation) -> str:
            return keys.part("hotpath", world.log_ids[0], generation, part)

        assert stored_sessions(world.redis, name, "u") == {
            sessions[known].encode(): keys.step_of(NOON_US) + order[: offset + 1].rindex(known)
            for known in order[: offset + 1]
        }
    assert check(world) == now_us


def test_a_flushed_redis_has_its_views_again(world):
    world.run(simple(world), NOON_US)
    world.redis.flushall()
    world.tick(NOON_US)
    assert check(world) == NOON_US
    assert world.redis.hgetall("hotpath:logs") == {
        str(log_id).encode(): b"events/%d" % partition for partition, log_id in enumerate(world.log_ids)
    }


def test_a_redis_that_is_ahead_is_rebuilt(world):
    world.run(simple(world), NOON_US)
    state = state_of(world, 0)
    world.redis.hset(
        keys.part("hotpath", world.log_ids[0], state.generation, "state"), "applied", state.applied + 5
    )
    world.tick(NOON_US)
    check(world)
    assert state_of(world, 0).generation > state.generation


def test_a_new_owner_adopts_the_views_it_finds(new_world, world):
    world.run(simple(world), NOON_US)
    generation = state_of(world, 0).generation
    world.status["applied"] = world.status["complete_until_us"] = 0
    world.sink.close()
    world.sink = world.new_sink()
    world.run(simple(world, 20), NOON_US + SECOND_US)
    check(world)
    assert state_of(world, 0).generation == generation
    assert world.sink.heals == 0


def test_another_epoch_stops_the_sink(world):
    world.run(simple(world), NOON_US)
    world.postgres.execute(
        "update partition_state set epoch = epoch + 1 where log_id = %s", (world.log_ids[0],)
    )
    world.commit([Event(int(world.status["committed"][0]), 0)])
    with pytest.raises(Fenced, match="epoch 2"):
        for _ in range(3):
            world.sink.tick(NOON_US)


def test_what_left_the_windows_leaves_redis(world):
    events = [
        Event(i, 0, time_us=NOON_US + i * SECOND_US, user_id=f"u-{i}", page_url=f"/{i}") for i in range(700)
    ]
    events.append(Event(0, 1))
    later_us = NOON_US + 3_000 * SECOND_US
    world.run(events, NOON_US + 700 * SECOND_US)
    check(world)
    world.at_end(later_us)
    for _ in range(10):
        world.tick(later_us)
    check(world)
    left = {key.split(b":")[-1] for key in world.redis.scan_iter(match="hotpath:*")}
    assert left == {b"logs", b"current", b"generations", b"state"}


def test_an_outage_is_noted_and_made_up_for(database, another_redis):
    server = another_redis(durable=False)
    world = World(database, server.url, background=True)
    try:
        world.run(simple(world), NOON_US)
        server.kill()
        block = world.commit(simple(world, 30))
        assert not world.sink.apply([block])
        assert not world.sink.tick(NOON_US)
        world.commit(simple(world, 50))
        server.start()
        world.at_end(NOON_US)
        world.tick(NOON_US)
        check(world)
    finally:
        world.close()


def test_readers_never_see_an_empty_or_partial_view_during_rebuilds(new_world):
    world = new_world(logs=2, background=True)
    world.run(simple(world, 400), NOON_US)
    seen = []

    async def poll() -> None:
        for _ in range(6):
            heals = world.sink.heals
            for log_id in world.log_ids:
                world.sink.heal(log_id, rebuild=True)
            while world.sink.heals < heals + len(world.log_ids):
                seen.append(await world.check())  # any difference fails
                world.sink.tick(NOON_US)

    asyncio.run(poll())
    assert len(seen) >= 6
    assert state_of(world, 0).generation > 6


def test_a_gap_before_a_block_is_closed_before_it_is_applied(new_world):
    world = new_world(background=True)
    world.run(simple(world), NOON_US)
    world.commit(simple(world, 300))  # never reaches the sink
    block = world.commit(simple(world, 20))
    assert world.sink.apply([block])
    wait_until(
        lambda: world.sink.apply([block]) and (world.status["applied"] == world.status["committed"]).all(),
        "the gap is closed",
    )
    world.at_end(NOON_US)
    world.tick(NOON_US)
    check(world)
