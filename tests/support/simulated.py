"""The simulation's stores without its worlds: nothing fails, and nobody else has a turn."""

import random
from collections.abc import Callable

from tests.simulation import scheduler
from tests.simulation.faults import Faults
from tests.simulation.postgres import Server
from tests.simulation.psycopg_client import Postgres
from tests.simulation.redis_client import RedisServer
from tests.simulation.scheduler import Life, Scheduler


class Calm(Scheduler):
    """A scheduler with one actor, whoever calls. What others were to do later is done at once."""

    def __init__(self) -> None:
        super().__init__(0)
        self.random = random.Random(0)
        self.current = scheduler.Actor("the test", None, lambda: None, 0)
        scheduler.enter(self)

    def _wait_until(self, moment_us: int) -> None:
        self.now_us = max(self.now_us + scheduler.STEP_US, min(moment_us, self.now_us + 1_000_000))

    def spawn(
        self, name: str, target: Callable[[], None], life: Life | None = None, delay_s: float = 0
    ) -> scheduler.Actor:
        target()
        return self.current


def _no_faults() -> Faults:
    faults = Faults(random.Random(0))
    faults.stop()
    return faults


def redis_server() -> RedisServer:
    """An empty one; `connect("", 1.0)` gives a client of it."""
    return RedisServer(Calm(), _no_faults(), lambda: None)


def postgres() -> Postgres:
    """An empty one; `connect("", autocommit=True)` gives a connection to it."""
    calm = Calm()
    return Postgres(calm, Server(calm, lambda session, transaction: None), _no_faults())
