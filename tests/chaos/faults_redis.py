"""Faults of Redis: it is a view only, so that Postgres must go on at full speed through all of them."""

import shutil
import signal
from contextlib import suppress

import redis

from hotpath.views import link
from tests.chaos.fault import Fault
from tests.chaos.faults_processes import send
from tests.chaos.world import World, process_of
from tests.support.pipeline import wait_until
from tests.support.proxy import Break

APPLY_SHA = link.script("apply", "hotpath", 0, 0, [])[1].encode()
"""How a counting script is addressed: it stands in every command that runs it."""


class RedisFault(Fault):
    """Something is wrong with Redis for a while."""

    touches = frozenset({"redis"})
    long_s = 8.0

    def draw(self) -> None:
        self.hold_s = self.chance.uniform(1, self.long_s) if self.full else 1.5

    def check(self, world: World) -> None:
        """Postgres is no further behind than one second's events."""
        wait_until(lambda: (lag := world.lag()) is not None and lag < world.rate, "Postgres goes on", 20)


class RedisKilled(RedisFault):
    """kill -9: what it has after its restart is behind, by what was not on its disk yet."""

    def inject(self, world: World) -> None:
        world.redis.kill()

    def end(self, world: World) -> None:
        world.redis.start()


class RedisRestartedEmpty(RedisFault):
    def inject(self, world: World) -> None:
        world.redis.kill()
        for path in world.redis.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".conf":
                path.unlink()

    def end(self, world: World) -> None:
        world.redis.start()


class RedisWiped(RedisFault):
    """FLUSHALL, and the scripts are forgotten with it."""

    def draw(self) -> None:
        self.hold_s = 0.0

    def inject(self, world: World) -> None:
        with world.redis_client() as client:
            client.flushall()
            client.script_flush()


class RedisRestored(RedisFault):
    """It comes back with the data of some seconds ago, as from a snapshot: behind Postgres."""

    def inject(self, world: World) -> None:
        self._copy = world.home.path / "redis-copy"
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(world.redis.folder, self._copy)

    def end(self, world: World) -> None:
        world.redis.kill()
        shutil.rmtree(world.redis.folder)
        self._copy.rename(world.redis.folder)
        world.redis.start()


class RedisSlow(RedisFault):
    """Every reply takes longer than usual, or longer than the workers wait."""

    def draw(self) -> None:
        super().draw()
        self.delay_s = self.chance.choice((0.1, 0.8))

    def inject(self, world: World) -> None:
        world.redis_proxy.reply_delay_s = self.delay_s

    def end(self, world: World) -> None:
        world.redis_proxy.reply_delay_s = 0.0


class RedisFrozen(RedisFault):
    def inject(self, world: World) -> None:
        self._pid = process_of(world.redis).pid
        send(signal.SIGSTOP, self._pid)

    def end(self, world: World) -> None:
        send(signal.SIGCONT, self._pid)


class RedisAnswersErrors(RedisFault):
    """It is there and refuses writes: OOM, or READONLY."""

    def draw(self) -> None:
        super().draw()
        self.out_of_memory = self.chance.random() < 0.5

    def inject(self, world: World) -> None:
        with world.redis_client() as client:
            if self.out_of_memory:
                client.config_set("maxmemory", "1")
            else:
                client.config_set("min-replicas-to-write", "1")

    def end(self, world: World) -> None:
        with world.redis_client() as client:
            client.config_set("maxmemory", "0")
            client.config_set("min-replicas-to-write", "0")


TYPES = (b"zset", b"hash")
"""Of the keys of the views that something stands in for long."""


class RedisWrongTypes(RedisFault):
    """Somebody overwrites keys of the views with something else; mostly under users who are not seen again."""

    def draw(self) -> None:
        self.hold_s = 0.0

    def inject(self, world: World) -> None:
        with world.redis_client() as client:
            views = [key for key in client.scan_iter("hotpath:*", count=1_000) if client.type(key) in TYPES]
            self._planted = self.chance.sample(sorted(views), min(3, len(views)))
            for key in self._planted:
                client.set(key, b"not what it was")

    def recovered(self, world: World) -> bool:
        """Workers come upon it while they look through the keys, and nobody else has to."""
        with suppress(redis.RedisError), world.redis_client() as client:
            return not any(client.type(key) == b"string" for key in self._planted)
        return False


class RedisKeysLost(RedisFault):
    """All keys of one log are gone, the others stay."""

    def draw(self) -> None:
        self.hold_s = 0.0

    def inject(self, world: World) -> None:
        log_id = self.chance.choice(
            [row[0] for row in world.query("select log_id from partition_state where retired_at is null")]
        )
        with world.redis_client() as client:
            lost = [key for key in client.scan_iter("hotpath:*", count=1_000) if b"{%d}" % log_id in key]
            if lost:
                client.delete(*lost)


class ScriptReplyLost(Fault):
    """The connection ends after a counting script was sent and before its reply comes, or before it arrives."""

    touches = frozenset({"redis", "postgres", "kafka"})

    def draw(self) -> None:
        self.how = self.chance.choice((Break.REPLY_LOST, Break.REPLY_LOST, Break.BEFORE))
        self.times = self.chance.randint(1, 4)

    @property
    def name(self) -> str:
        return f"script {self.how.name.lower().replace('_', ' ')}"

    def inject(self, world: World) -> None:
        before = world.redis_proxy.broken
        world.redis_proxy.break_at(APPLY_SHA, self.how, self.times)
        wait_until(lambda: world.redis_proxy.broken >= before + self.times, "the scripts were cut off", 60)

    def end(self, world: World) -> None:
        world.redis_proxy.stop_breaking()


class ScriptReplyLostAlways(ScriptReplyLost):
    def draw(self) -> None:
        self.how, self.times = Break.REPLY_LOST, 2
