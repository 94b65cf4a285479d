"""Logs that were given up, on real servers: their keys go, whatever those are like and whoever still writes."""

from collections.abc import Callable
from contextlib import closing

import pytest
import redis

from hotpath.errors import Fenced
from hotpath.views import keys, postgres, store
from hotpath.views.healer import Healer
from hotpath.views.link import run
from hotpath.views.postgres import Request
from hotpath.views.rebuild import Rebuilder
from hotpath.views.refill import Refill
from hotpath.views.store import LogState
from tests.integration.test_consolidate import differences
from tests.integration.test_redis_sink import simple, state_of
from tests.support.blocks import NOON_US
from tests.support.live_views import World


@pytest.fixture
def world(new_world) -> World:
    """Two logs with live views, of which nobody has been given up yet."""
    made = new_world()
    made.run(simple(made, 300), NOON_US)
    return made


def retire(world: World) -> int:
    """Give the second log up; its log_id."""
    log_id = world.log_ids[1]
    world.postgres.execute("update partition_state set retired_at = now() where log_id = %s", [log_id])
    return log_id


def keys_of(world: World, log_id: int) -> list[bytes]:
    return sorted(world.redis.scan_iter(f"hotpath:{{{log_id}}}:*"))


def started(world: World) -> Healer:
    """A healer that has just been started, as with a worker of the topic's new incarnation."""
    return Healer(world.settings, world.log_ids[:1], background=False)


def one_round(world: World) -> None:
    """One round of such a healer."""
    with closing(started(world)) as healer:
        healer.look()
        healer.check()


def another_generation(world: World, log_id: int) -> None:
    """What a rebuild that was killed leaves behind."""
    store.create_generation(world.redis, "hotpath", log_id, LogState(999, 0, 0, 0, 0, 0, 0))


def nothing(world: World, log_id: int) -> None:
    pass


def overwritten(*parts: str) -> Callable[[World, int], None]:
    def spoil(world: World, log_id: int) -> None:
        generation = world.redis.get(keys.current("hotpath", log_id)).decode()
        for part in parts:
            name = keys.part("hotpath", log_id, generation, part)
            assert world.redis.exists(name)
            world.redis.set(name, b"not what it was")

    spoil.__name__ = "_".join(parts)
    return spoil


def every_part_overwritten(world: World, log_id: int) -> None:
    for name in keys_of(world, log_id):
        world.redis.set(name, b"not what it was")


def generations_overwritten(world: World, log_id: int) -> None:
    world.redis.set(keys.generations("hotpath", log_id), b"not what it was")


def generations_lost(world: World, log_id: int) -> None:
    world.redis.delete(keys.generations("hotpath", log_id))


def current_overwritten(world: World, log_id: int) -> None:
    name = keys.current("hotpath", log_id)
    world.redis.delete(name)
    world.redis.hset(name, "not", "what it was")


def live_one_unlisted(world: World, log_id: int) -> None:
    world.redis.srem(keys.generations("hotpath", log_id), world.redis.get(keys.current("hotpath", log_id)))


@pytest.mark.parametrize(
    "spoil",
    [
        nothing,
        overwritten("state"),
        overwritten("users", "pages", "seen"),
        overwritten("steps"),
        every_part_overwritten,
        generations_overwritten,
        generations_lost,
        current_overwritten,
        live_one_unlisted,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_all_keys_of_a_log_that_was_given_up_go_and_the_other_logs_stay(world, spoil):
    log_id = retire(world)
    another_generation(world, log_id)
    spoil(world, log_id)
    kept = keys_of(world, world.log_ids[0])
    one_round(world)
    assert keys_of(world, log_id) == []
    assert keys_of(world, world.log_ids[0]) == kept
    assert differences(world) == []


def test_a_healer_that_runs_already_drops_them_once_the_list_of_logs_changes(world):
    with closing(started(world)) as healer:
        healer.look()
        log_id = retire(world)
        assert keys_of(world, log_id)
        healer.look()
        healer.check()
        assert keys_of(world, log_id) == []


@pytest.mark.parametrize(
    ("lists_lost", "calls"), [(False, n) for n in (*range(16), 40)] + [(True, n) for n in range(8)]
)
def test_a_drop_that_broke_off_is_gone_on_with(world, monkeypatch, lists_lost, calls):
    monkeypatch.setattr(store, "DROP_KEYS", 1)
    log_id = retire(world)
    another_generation(world, log_id)
    if lists_lost:
        generations_overwritten(world, log_id)
    sent = redis.Connection.send_packed_command
    left = calls

    def cut_off(connection: redis.Connection, *arguments: object, **options: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise redis.ConnectionError("cut off")
        sent(connection, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(redis.Connection, "send_packed_command", cut_off)
        with pytest.raises(redis.ConnectionError, match="cut off"):
            store.drop_all(world.redis, "hotpath", log_id)
    assert keys_of(world, log_id)
    one_round(world)
    assert keys_of(world, log_id) == []


def test_nothing_is_asked_for_again_when_nothing_is_left(world, monkeypatch):
    retire(world)
    with closing(started(world)) as healer:
        healer.look()
        monkeypatch.setattr(store, "logs_left", lambda *_: pytest.fail("it looks again"))
        healer.look()
        healer.check()


def test_a_log_that_is_being_rebuilt_is_dropped_once_that_has_ended(world):
    log_id = retire(world)
    with closing(started(world)) as healer:
        with (
            postgres.connect(world.settings.postgres_dsn, "test") as connection,
            Rebuilder(world.settings, world.redis, connection).locked([log_id]),
        ):
            healer.look()
            assert keys_of(world, log_id)
        healer.look()
        healer.check()
        assert keys_of(world, log_id) == []


def test_a_worker_that_still_writes_to_it_leaves_nothing(world):
    """One that does not know yet: its scripts find the generation gone, and no rebuild begins."""
    log_id = world.log_ids[1]
    state = state_of(world, 1)
    with postgres.connect(world.settings.postgres_dsn, "test") as connection:
        views = Refill(world.settings, world.redis, connection)
        before = views.states([log_id])[log_id]
        retire(world)
        one_round(world)
        world.commit(simple(world, 100))
        (reply,) = run(world.redis, [store.publish_command("hotpath", log_id, state, NOON_US, 1)])
        assert reply[0] == b"MOVED"
        with pytest.raises(Fenced, match="was given up"):
            views.rebuild([Request(log_id, 1)], None, NOON_US)
        assert before.generation == state.generation
    assert keys_of(world, log_id) == []


def test_a_log_that_was_found_again_is_not_dropped(world, monkeypatch):
    """Between the look at what was given up and the locks."""
    log_id = retire(world)
    kept = keys_of(world, log_id)
    with postgres.connect(world.settings.postgres_dsn, "test") as connection:
        views = Refill(world.settings, world.redis, connection)
        looked = store.logs_left

        def found_again(*arguments: object) -> list[int]:
            world.postgres.execute("update partition_state set retired_at = null")
            return looked(*arguments)

        monkeypatch.setattr(store, "logs_left", found_again)
        assert views.drop_retired()
    assert keys_of(world, log_id) == kept


def test_a_log_that_comes_back_after_its_keys_were_dropped_is_rebuilt(world):
    retire(world)
    one_round(world)
    world.postgres.execute("update partition_state set retired_at = null")
    world.run(simple(world, 50, NOON_US), NOON_US)
    assert differences(world) == []
