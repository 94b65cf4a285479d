"""Users ranked by active sessions: the first n are those of a recount, whatever trimming has left standing."""

import asyncio
import random

import pytest

from hotpath.events import STEP_S
from hotpath.settings import Settings
from hotpath.views import keys, link
from hotpath.views.contents import sessions_of
from hotpath.views.read import Counts, ViewReader, ViewsUnavailable
from hotpath.views.store import SWEEP_STEPS
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import World

SECOND_US = 1_000_000


def top_users(world: World, limit: int, **settings: object) -> Counts:
    async def read() -> Counts:
        client = link.connect_async(world.settings.redis_url, 2.0, 2)
        try:
            return (await ViewReader(client, Settings(**settings)).top_users(limit)).value
        finally:
            await client.aclose()

    return asyncio.run(read())


def visits(
    sessions: dict[str, int], log_index: int = 0, offset: int = 0, time_us: int = NOON_US
) -> list[Event]:
    """One event for each session of each user."""
    pairs = [(user, number) for user, count in sessions.items() for number in range(count)]
    return [
        Event(offset + i, log_index, time_us=time_us, user_id=user, session_id=f"s-{number}")
        for i, (user, number) in enumerate(pairs)
    ]


def test_equal_users_come_in_the_order_of_their_bytes(new_world):
    world = new_world()
    odd = {f"u-{n}": 1 + n % 3 for n in range(1, 40, 2)} | {"é": 3, "z": 3, "Z": 3}
    even = {f"u-{n}": 1 + n % 3 for n in range(0, 40, 2)} | {"a": 3, "~": 1, " !": 9}
    world.run(visits(odd) + visits(even, 1), NOON_US)
    ranking = world.expected_top_users(NOON_US, 100)
    assert [user for user, _ in ranking[:4]] == [b" !", b"Z", b"a", b"u-11"]
    for limit in (1, 2, 5, 17, 30, 46, 100):
        assert top_users(world, limit) == ranking[:limit]
    world.check_lists()


def test_users_with_one_session_fill_what_the_others_leave(new_world):
    world = new_world(logs=3)
    events = visits({"twice": 2}) + visits({f"b-{n:03}": 1 for n in range(150)}, 1)
    # Later steps first: within the last place the bytes decide, not when somebody was seen.
    events += visits({"a-late": 1}, 2, 0, NOON_US) + visits({"a-early": 1}, 2, 1, NOON_US - 200 * SECOND_US)
    world.run(events, NOON_US)
    assert top_users(world, 4) == [(b"twice", 2), (b"a-early", 1), (b"a-late", 1), (b"b-000", 1)]
    assert top_users(world, 100) == world.expected_top_users(NOON_US, 100)


def test_sessions_that_left_the_window_do_not_count_before_they_are_trimmed(new_world):
    world = new_world()
    old = visits({"once-many": 9, "once-more": 8}, time_us=NOON_US - 280 * SECOND_US)
    world.run([*old, *visits({"steady": 3}, 0, len(old)), Event(0, 1, user_id="other")], NOON_US)
    assert top_users(world, 1) == [(b"once-many", 9)]
    later_us = NOON_US + (SWEEP_STEPS + 1) * STEP_S * SECOND_US
    assert world.sink.apply([world.commit(visits({"once-many": 1}, 0, len(old) + 3, later_us))])
    world.at_end(later_us)
    assert world.sink.tick(later_us)  # publishes as_of; borders follow with the next tick
    expected = [(b"steady", 3), (b"once-many", 1), (b"other", 1)]
    assert world.expected_top_users(later_us, 5) == expected
    assert world.redis.zscore(part(world, 0, "ranked"), "once-many") == -9
    assert top_users(world, 5) == expected
    world.tick(later_us)
    assert world.redis.zscore(part(world, 0, "ranked"), "once-many") is None, "one session is left: no rank"
    assert len(sessions_of(world.redis.hget(part(world, 0, "seen"), "once-many"))) == 1
    assert top_users(world, 5) == expected
    world.check_lists()


def part(world: World, log_index: int, name: str) -> str:
    log_id = world.log_ids[log_index]
    return keys.part("hotpath", log_id, world.redis.get(keys.current("hotpath", log_id)).decode(), name)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_stay_exact_while_windows_move(new_world, seed):
    random_ = random.Random(seed)
    world = new_world(logs=2)
    now_us = NOON_US
    for round_ in range(12):
        now_us += random_.choice((1, 9, 40, 150)) * SECOND_US
        events = []
        for log_index, offset in enumerate(world.status["committed"].tolist()):
            for i in range(random_.randrange(1, 60)):
                user = f"u-{log_index}-{int(random_.paretovariate(0.6)) % 40}"
                time_us = now_us - random_.choice((0, 0, 20, 290)) * SECOND_US
                session = f"s-{random_.randrange(12)}"
                events.append(Event(offset + i, log_index, time_us=time_us, user_id=user, session_id=session))
        if round_ == 7:
            world.redis.flushall()
        world.run(events, now_us)
        limit = random_.choice((1, 3, 10, 100))
        assert top_users(world, limit) == world.expected_top_users(now_us, limit)
        world.check_lists()


def test_a_user_of_several_logs_has_each_session_once_where_topics_are_not_keyed(new_world):
    world = new_world()
    events = visits({"both": 3, "a": 2}) + visits(
        {"both": 2, "b": 1}, 1
    )  # s-0 and s-1 of `both` are in both logs
    world.run(events, NOON_US)
    expected = [(b"both", 3), (b"a", 2), (b"b", 1)]
    assert world.expected_top_users(NOON_US, 5) == expected
    assert top_users(world, 5, bot_counters="redis") == expected
    assert top_users(world, 1, bot_counters="redis") == expected[:1]


def test_a_ranking_that_would_take_too_long_to_prove_is_not_given(new_world):
    world = new_world(logs=1)
    for part_ in range(3):  # blocks hold 4,096 rows
        users = {f"gone-{part_ * 1_750 + n}": 2 for n in range(1_750)}
        world.run(visits(users, 0, part_ * 3_500), NOON_US)
    assert top_users(world, 1) == [(b"gone-0", 2)]
    later_us = NOON_US + 400 * SECOND_US
    assert world.sink.apply([world.commit(visits({"here": 2}, 0, 10_500, later_us))])
    world.at_end(later_us)
    assert world.sink.tick(later_us)
    with pytest.raises(ViewsUnavailable, match="taken away"):
        top_users(world, 1)
    world.tick(later_us)
    assert top_users(world, 1) == [(b"here", 2)]
