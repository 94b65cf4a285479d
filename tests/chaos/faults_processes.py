"""Faults of the pipeline's own processes: killed, frozen, stopped in the middle, clocks that jump."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import psycopg

from tests.chaos.fault import Fault
from tests.chaos.world import World
from tests.support.pipeline import wait_until

FENCED = 4


def send(number: signal.Signals, *pids: int) -> None:
    """Send a signal to processes, if they are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def living_workers(world: World) -> list[int]:
    """Pids of workers, as soon as there are any."""

    def pids() -> list[int]:
        return world.worker_pids() if world.status() else []

    return wait_until(pids, "a worker lives")


@contextmanager
def flushes_held(world: World) -> Iterator[None]:
    """Inside, every worker sits in the middle of a flush: a stranger has the table of events locked."""
    with psycopg.connect(world.database) as stranger:
        stranger.execute("lock table events in access exclusive mode")
        wait_until(lambda: len(world.in_transaction()) >= 1, "a flush waits inside its transaction")
        yield


@contextmanager
def flushes_apart(world: World) -> Iterator[None]:
    """Inside, nothing is held; the caller looks whether it was between two flushes."""
    yield


class WorkerKilled(Fault):
    touches = frozenset({"worker"})

    def inject(self, world: World) -> None:
        send(signal.SIGKILL, self.chance.choice(living_workers(world)))


class SupervisorKilled(Fault):
    """Its workers find the pipe closed, drain, and end; a new supervisor does not wait for that."""

    touches = frozenset({"worker", "supervisor"})

    def inject(self, world: World) -> None:
        send(signal.SIGKILL, world.pipeline.process.pid)
        world.pipeline.process.wait()

    def end(self, world: World) -> None:
        world.launch_pipeline()


class AllKilled(Fault):
    touches = frozenset({"worker", "supervisor"})

    def inject(self, world: World) -> None:
        send(signal.SIGKILL, *(process.pid for process in world.processes()))
        world.pipeline.process.wait()

    def end(self, world: World) -> None:
        world.launch_pipeline()


class StoppedInMidFlush(Fault):
    """SIGTERM while a transaction is open: it is finished, and the exit code is 0."""

    touches = frozenset({"worker", "supervisor", "postgres", "kafka"})

    def inject(self, world: World) -> None:
        living_workers(world)
        wait_until(world.in_transaction, "a flush is under way")
        assert world.stop_pipeline() == 0

    def end(self, world: World) -> None:
        world.launch_pipeline()


class WorkerFrozen(Fault):
    """SIGSTOP for longer than the hang deadline: the supervisor kills it, and another life takes over."""

    touches = frozenset({"worker", "supervisor", "postgres"})

    def draw(self) -> None:
        self.held = self.chance.choice((flushes_held, flushes_apart))

    @property
    def name(self) -> str:
        return f"worker frozen {'inside' if self.held is flushes_held else 'outside'} a transaction"

    def inject(self, world: World) -> None:
        pid = self.chance.choice(living_workers(world))
        with self.held(world):
            send(signal.SIGSTOP, pid)
        wait_until(lambda: not alive(pid), "the frozen worker is killed")


class WorkerFrozenInside(WorkerFrozen):
    def draw(self) -> None:
        self.held = flushes_held


class WorkerFrozenOutside(WorkerFrozen):
    def draw(self) -> None:
        self.held = flushes_apart


class Zombie(Fault):
    """A supervisor and its workers are frozen, a second one takes over, and the first ones wake up: they are fenced."""

    touches = frozenset({"worker", "supervisor", "postgres", "kafka", "redis"})

    def draw(self) -> None:
        self.held = self.chance.choice((flushes_held, flushes_apart))

    @property
    def name(self) -> str:
        return f"zombies from {'inside' if self.held is flushes_held else 'outside'} a transaction"

    def inject(self, world: World) -> None:
        living_workers(world)
        self._first = world.pipeline
        self._frozen = [process.pid for process in world.processes()]
        with self.held(world):
            send(signal.SIGSTOP, *self._frozen)
            if self.held is flushes_apart:
                self._freeze_outside(world)
        self._second = world.launch_pipeline(anew=True)
        wait_until(
            lambda: self._second.process.poll() is None and self._second.healthy(), "the second one runs", 90
        )

    def _freeze_outside(self, world: World) -> None:
        def outside() -> bool:
            if not world.in_transaction():
                return True
            send(signal.SIGCONT, *self._frozen)
            send(signal.SIGSTOP, *self._frozen)
            return False

        wait_until(outside, "they are frozen between two flushes")

    def end(self, world: World) -> None:
        send(signal.SIGCONT, *self._frozen)
        assert self._first.process.wait(60) == FENCED
        wait_until(lambda: not any(map(alive, self._frozen)), "no zombie is left")


class ZombieInside(Zombie):
    def draw(self) -> None:
        self.held = flushes_held


class ZombieOutside(Zombie):
    def draw(self) -> None:
        self.held = flushes_apart


class ClockJumps(Fault):
    """The pipeline's clock jumps by five minutes, and later back."""

    touches = frozenset({"clock"})

    def draw(self) -> None:
        self.hold_s = self.chance.uniform(1, 3)
        self.jump_s = self.chance.choice((-300, 300))

    @property
    def name(self) -> str:
        return f"clock jumps {'forth and back' if self.jump_s > 0 else 'back and forth'}"

    def inject(self, world: World) -> None:
        world.set_clock(self.jump_s)

    def end(self, world: World) -> None:
        world.set_clock(0)


class ClockJumpsForth(ClockJumps):
    def draw(self) -> None:
        self.hold_s, self.jump_s = 2, 300


class ClockJumpsBack(ClockJumps):
    def draw(self) -> None:
        self.hold_s, self.jump_s = 2, -300


def alive(pid: int) -> bool:
    """Whether a process is there, and more than a zombie in the sense of the kernel."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
