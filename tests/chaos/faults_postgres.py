"""Faults of Postgres: restarted, killed, locked, full, and replies that never come."""

import shutil
import subprocess

import psycopg

from tests.chaos.fault import Fault, NotPossibleHere
from tests.chaos.world import World
from tests.support.pipeline import wait_until
from tests.support.proxy import Break


class PostgresRestarted(Fault):
    touches = frozenset({"postgres"})

    def draw(self) -> None:
        self.hold_s = self.chance.uniform(0, 4 if self.full else 1)

    def inject(self, world: World) -> None:
        world.postgres.stop()

    def end(self, world: World) -> None:
        world.postgres.start()


class PostgresKilled(PostgresRestarted):
    """kill -9 of the whole server: what was acknowledged is replayed from its log."""

    def inject(self, world: World) -> None:
        world.postgres.kill()


class SessionsTerminated(Fault):
    """An administrator ends the workers' sessions, several times, whatever they are doing."""

    touches = frozenset({"postgres", "kafka"})

    def inject(self, world: World) -> None:
        for _ in range(self.chance.randint(1, 5)):
            world.query(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'hotpath%%' "
                "and application_name <> 'hotpath chaos'"
            )
            before = sum(world.pipeline.positions().values())
            wait_until(lambda: sum(world.pipeline.positions().values()) > before, "they go on")  # noqa: B023


class TableLocked(Fault):
    """A stranger holds a lock: flushes wait, time out and try again; the ring fills and the source pauses."""

    touches = frozenset({"postgres", "worker"})
    weight = 0.5

    def draw(self) -> None:
        self.hold_s = self.chance.uniform(40, 70) if self.full else 6

    def inject(self, world: World) -> None:
        self._stranger = psycopg.connect(world.database)
        self._stranger.execute("lock table events in access exclusive mode")

    def check(self, world: World) -> None:
        def waits(worker: dict) -> bool:
            return worker["state"] == "paused" if self.fills_the_ring else worker.get("ring_used", 0) > 0

        wait_until(
            lambda: (status := world.status()) and any(map(waits, status["workers"])),
            "the ring is full" if self.fills_the_ring else "blocks wait in the ring",
        )

    @property
    def fills_the_ring(self) -> bool:
        return self.full

    def end(self, world: World) -> None:
        self._stranger.close()


class RowsLocked(TableLocked):
    """A stranger holds the rows of the logs themselves."""

    def draw(self) -> None:
        self.hold_s = self.chance.uniform(4, 10) if self.full else 4

    @property
    def fills_the_ring(self) -> bool:
        return False

    def inject(self, world: World) -> None:
        self._stranger = psycopg.connect(world.database)
        self._stranger.execute("select from partition_state for update")


class CommitReplyLost(Fault):
    """The connection ends after COMMIT was sent and before its reply comes; or just before COMMIT is sent."""

    touches = frozenset({"postgres", "kafka"})

    def draw(self) -> None:
        self.how = self.chance.choice(
            (Break.REPLY_LOST, Break.REPLY_LOST, Break.BEFORE, Break.SERVER_UNAWARE)
        )
        self.times = self.chance.randint(1, 6)

    @property
    def name(self) -> str:
        return f"commit {self.how.name.lower().replace('_', ' ')}"

    def inject(self, world: World) -> None:
        before = world.postgres_proxy.broken
        world.postgres_proxy.break_at(b"COMMIT", self.how, self.times)
        wait_until(lambda: world.postgres_proxy.broken >= before + self.times, "the commits were cut off", 60)

    def end(self, world: World) -> None:
        world.postgres_proxy.stop_breaking()


class CommitReplyLostAlways(CommitReplyLost):
    def draw(self) -> None:
        self.how, self.times = Break.REPLY_LOST, 3


class DiskFull(Fault):
    """The disk of a table that every flush writes has no byte left: SQLSTATE 53100."""

    touches = frozenset({"postgres", "kafka", "supervisor"})

    def draw(self) -> None:
        self.hold_s = self.chance.uniform(1, 8) if self.full else 1

    def inject(self, world: World) -> None:
        try:
            world.move_ledger_to_tiny_disk()
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotPossibleHere(f"no disk of its own: {error}") from None
        self._filler = world.tiny_folder / "filler"
        with open(self._filler, "wb", buffering=0) as filler:
            for size in (1 << 20, 4096):
                try:
                    while filler.write(bytes(size)) == size:
                        pass
                except OSError:
                    assert shutil.disk_usage(world.tiny_folder).free < size
        since = world.pipeline_log.stat().st_size
        wait_until(lambda: "No space left on device" in world.said(since), "a flush finds the disk full", 60)

    def end(self, world: World) -> None:
        self._filler.unlink()
