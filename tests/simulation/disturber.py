"""What goes wrong from outside: processes killed and frozen, servers restarted, keys damaged."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.invariants import PREFIX
from tests.simulation.scheduler import NEVER_US

if TYPE_CHECKING:
    from tests.simulation.world import World


class Disturber:
    """Does one thing after the other, of those that the seed has picked, until the world is to be calm."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance
        everything: list[Callable[[], None]] = [
            self._kill,
            self._kill,
            self._freeze,
            self._freeze,
            self._hang_in_transaction,
            self._double,
            self._terminate,
            self._end_backend,
            self._restart_postgres,
            self._keep_image,
            self._keep_image,
            self._wipe_redis,
            self._restart_redis,
            self._restore_redis,
            self._lose_log,
            self._lose_key,
            self._wrong_type,
            self._rebuild,
        ]
        picked = [action for action in everything if self._chance.random() < 0.5]
        self._actions = picked or everything
        self._pause_s = self._chance.choice((0.2, 0.5, 1, 2))

    def run(self) -> None:
        world = self._world
        while True:
            world.scheduler.sleep(self._pause_s * 2 * self._chance.random())
            if not world.disturbing:
                return
            action = self._chance.choice(self._actions)
            world.scheduler.note(action.__name__.strip("_"))
            action()

    # Processes

    def _kill(self) -> None:
        if self._world.workers:
            self._world.scheduler.kill(self._chance.choice(self._world.workers).life)

    def _freeze(self) -> None:
        if self._world.workers:
            life = self._chance.choice(self._world.workers).life
            life.frozen_until_us = self._world.scheduler.now_us + int(self._chance.choice((0.5, 2, 7)) * 1e6)
            self._world.scheduler.note(f"{life.name} is frozen")
            if self._chance.random() < 0.6:
                self._double()

    def _hang_in_transaction(self) -> None:
        """A worker stops for good while it holds locks, and another is started in its place."""
        for _ in range(300):
            for worker in self._world.workers:
                if any(s.life is worker.life and s.locks for s in self._world.server.sessions.values()):
                    worker.life.frozen_until_us = NEVER_US
                    self._world.scheduler.note(f"{worker.life.name} hangs")
                    self._world.start_all(self._chance.choice((1, 2)))
                    return
            self._world.scheduler.sleep(0.0005)

    def _double(self) -> None:
        """Another supervisor, with as many or another number of workers, while the first one's live on."""
        if len(self._world.workers) < 4:
            self._world.start_all(self._chance.choice((1, 2)))

    def _terminate(self) -> None:
        if self._world.workers:
            self._chance.choice(self._world.workers).stop.set()

    # Postgres

    def _end_backend(self) -> None:
        sessions = list(self._world.server.sessions.values())
        if sessions:
            self._chance.choice(sessions).terminate()

    def _restart_postgres(self) -> None:
        self._world.server.restart(self._chance.random() * 3)

    # Redis

    def _keep_image(self) -> None:
        self._world.images.append(self._world.redis.store.copy())

    def _wipe_redis(self) -> None:
        self._world.invariants.forget_generations()
        self._world.redis.restart({}, self._chance.choice((0, 0, 1)))

    def _restart_redis(self) -> None:
        self._world.redis.restart(self._world.redis.store.data, self._chance.random() * 3)

    def _restore_redis(self) -> None:
        if self._world.images:
            self._world.invariants.forget_generations()
            self._world.redis.restart(self._chance.choice(self._world.images), self._chance.random())
            self._world.images = []

    def _keys(self) -> list[bytes]:
        return [key for key in self._world.redis.store.data if b"{" in key]

    def _lose_log(self) -> None:
        """All keys of one log are gone."""
        self._world.invariants.forget_generations()
        redis = self._world.redis
        log_ids = list(self._world.server.tables.logs)
        if log_ids:
            of_log = PREFIX + b"{%d}:" % self._chance.choice(log_ids)
            for key in [key for key in redis.store.data if key.startswith(of_log)]:
                del redis.store.data[key]

    def _lose_key(self) -> None:
        self._damage(lambda data, key: data.pop(key))

    def _wrong_type(self) -> None:
        self._damage(lambda data, key: data.update({key: [b"wrong"]}))

    def _damage(self, how: Callable[[dict, bytes], object]) -> None:
        keys = self._keys()
        if not keys:
            return
        key = self._chance.choice(keys)
        self._world.scheduler.note(key.decode())
        self._world.invariants.forget_generations()
        log_id, _, rest = key.removeprefix(PREFIX + b"{").partition(b"}:")
        generation = rest.split(b":")[0]
        if generation.isdigit():
            self._world.invariants.damaged.add((int(log_id), generation))
        how(self._world.redis.store.data, key)

    def _rebuild(self) -> None:
        log_ids = list(self._world.server.tables.logs)
        if log_ids:
            self._world.spawn_operator(
                sorted(self._chance.sample(log_ids, self._chance.randint(1, len(log_ids))))
            )
