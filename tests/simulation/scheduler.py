"""Threads, time and chance of a simulated world.

Every thread of the simulated processes is an actor: a greenlet that runs until its next step, where the seed picks
who goes on. Time is the scheduler's: it moves a little with each step, and to the next deadline when all wait.

State owned: the clock, the actors, the random numbers, the trace. `CURRENT` is the scheduler of the world that runs,
for the stand-ins of modules that production code imports (`Time`, `Threading`, `Queue`).
"""

import contextlib
import queue
import random
from collections import deque
from collections.abc import Callable

from greenlet import greenlet

START_US = 1_710_504_000_000_000
"""2024-03-15T12:00:00Z: when simulated worlds begin."""
STEP_US = 150
NEVER_US = 1 << 62


class Killed(BaseException):
    """The process of this actor is gone: nothing of it may run on."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Life:
    """One life of a process, with all its threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until_us = 0
        self.actors: list[Actor] = []


class Actor:
    """A thread."""

    __slots__ = ("greenlet", "life", "name", "wake_us")

    def __init__(self, name: str, life: Life | None, target: Callable[[], None], wake_us: int) -> None:
        self.name = name
        self.life = life
        self.greenlet = greenlet(target)
        self.wake_us = wake_us


class Scheduler:
    """Runs actors one step at a time, in the order that `seed` decides."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.random = random.Random(seed)
        self.now_us = START_US
        self.steps = 0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.failure: Violation | None = None
        self.doomed: list[Life] = []
        self.trace = trace
        self.ended: Callable[[Life], None] = lambda life: None
        """Told that a life has been killed, when nothing of it runs any more."""

    # For the driver

    def spawn(
        self, name: str, target: Callable[[], None], life: Life | None = None, delay_s: float = 0
    ) -> Actor:
        """A new actor; it begins with its first turn."""
        actor = Actor(name, life, target, self.now_us + int(delay_s * 1_000_000))
        self.actors.append(actor)
        if life is not None:
            life.actors.append(actor)
        return actor

    def kill(self, life: Life) -> None:
        """End a life before anything else runs."""
        if not life.dead and life not in self.doomed:
            self.doomed.append(life)

    def run(self, until: Callable[[], bool], steps_max: int) -> None:
        """Run steps until a condition holds. Raises Violation, also when that takes more than `steps_max`."""
        chance, last = self.random.random, self.steps + steps_max
        hub = greenlet.getcurrent()
        while not until():
            now = self.now_us
            ready = [
                actor
                for actor in self.actors
                if actor.wake_us <= now and (actor.life is None or actor.life.frozen_until_us <= now)
            ]
            if not ready:
                self._pass_time()
                continue
            actor = ready[int(chance() * len(ready))]
            self.steps += 1
            if self.steps > last:
                raise Violation(f"not settled after {steps_max} steps")
            self.now_us = now + STEP_US
            self.current = actor
            actor.greenlet.parent = hub
            actor.greenlet.switch()
            if actor.greenlet.dead:
                self._forget(actor)
            while self.doomed:
                self._bury(self.doomed.pop())
            if self.failure is not None:
                raise self.failure

    def _pass_time(self) -> None:
        waking = [
            actor.wake_us if actor.life is None else max(actor.wake_us, actor.life.frozen_until_us)
            for actor in self.actors
        ]
        moment = min(waking, default=NEVER_US)
        if moment >= NEVER_US:
            raise Violation("everything waits for ever")
        self.now_us = max(self.now_us, moment)

    def _forget(self, actor: Actor) -> None:
        self.actors.remove(actor)
        if actor.life is not None:
            actor.life.actors.remove(actor)

    def _bury(self, life: Life) -> None:
        if life.dead:
            return
        life.dead = True
        for actor in list(life.actors):
            self.current = actor
            if actor.greenlet:
                actor.greenlet.parent = greenlet.getcurrent()
                with contextlib.suppress(Killed):
                    actor.greenlet.throw(Killed)
            self._forget(actor)
        self.ended(life)

    def end(self) -> None:
        """Let go of everything that still runs."""
        for actor in list(self.actors):
            if actor.life is None:
                actor.life = Life("end")
                actor.life.actors.append(actor)
        for life in {id(actor.life): actor.life for actor in self.actors}.values():
            self._bury(life)

    # For actors

    def step(self, what: str = "") -> None:
        """Let the others have their turns."""
        if self.trace is not None and what:
            self.note(what)
        self._wait_until(self.now_us)

    def sleep(self, seconds: float) -> None:
        self._wait_until(self.now_us + int(seconds * 1_000_000))

    def _wait_until(self, moment_us: int) -> None:
        actor = self.current
        if actor.life is not None and actor.life.dead:
            raise Killed
        actor.wake_us = moment_us
        actor.greenlet.parent.switch()

    def fail(self, message: str) -> None:
        """An invariant is broken: ends the run, whoever catches the exception. Raises Violation."""
        if self.failure is None:
            self.failure = Violation(message)
        raise self.failure

    def note(self, what: str) -> None:
        if self.trace is not None:
            name = self.current.name if self.current else "-"
            self.trace(f"{(self.now_us - START_US) / 1e6:9.4f} {self.steps:6d} {name:24s} {what}")


CURRENT: Scheduler


def enter(scheduler: Scheduler) -> None:
    """Make this the scheduler that stand-ins talk to."""
    global CURRENT
    CURRENT = scheduler


class Time:
    """Stands in for the module `time`."""

    @staticmethod
    def monotonic() -> float:
        return (CURRENT.now_us - START_US) / 1e6 + 1_000

    @staticmethod
    def monotonic_ns() -> int:
        return (CURRENT.now_us - START_US) * 1_000 + 10**12

    @staticmethod
    def time_ns() -> int:
        return CURRENT.now_us * 1_000

    @staticmethod
    def thread_time_ns() -> int:
        return 0

    @staticmethod
    def sleep(seconds: float) -> None:
        CURRENT.sleep(seconds)


class Event:
    """threading.Event."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Actor] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        now = CURRENT.now_us
        for actor in self._waiting:
            actor.wake_us = min(actor.wake_us, now)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            actor = CURRENT.current
            self._waiting.append(actor)
            try:
                CURRENT._wait_until(NEVER_US if timeout is None else CURRENT.now_us + int(timeout * 1e6))
            finally:
                self._waiting.remove(actor)
        return self._set


class Lock:
    """threading.Lock; nothing that holds one ever takes a step."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Condition(Lock):
    """threading.Condition."""

    def __init__(self) -> None:
        self._event = Event()

    def wait(self, timeout: float | None = None) -> None:
        self._event.wait(timeout)
        self._event.clear()

    def notify_all(self) -> None:
        self._event.set()


class Thread:
    """threading.Thread, in the life of whoever starts it."""

    def __init__(
        self,
        target: Callable[..., None],
        args: tuple = (),
        name: str = "",
        daemon: bool = True,
    ) -> None:
        self.name = name
        self._target = target
        self._args = args
        self._actor: Actor | None = None

    def start(self) -> None:
        life = CURRENT.current.life

        def run() -> None:
            with contextlib.suppress(Killed):
                self._target(*self._args)

        self._actor = CURRENT.spawn(f"{life.name} {self.name}", run, life)

    def is_alive(self) -> bool:
        return self._actor is not None and not self._actor.greenlet.dead

    def join(self, timeout: float | None = None) -> None:
        deadline_us = NEVER_US if timeout is None else CURRENT.now_us + int(timeout * 1e6)
        while self.is_alive() and CURRENT.now_us < deadline_us:
            CURRENT.sleep(0.05)


class Threading:
    """Stands in for the module `threading`."""

    Event, Lock, Condition, Thread = Event, Lock, Condition, Thread


class _SimpleQueue:
    def __init__(self) -> None:
        self._items: deque = deque()
        self._filled = Event()

    def put(self, item: object) -> None:
        self._items.append(item)
        self._filled.set()

    def get_nowait(self) -> object:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def get(self, timeout: float | None = None) -> object:
        if not self._items:
            self._filled.clear()
            self._filled.wait(timeout)
        return self.get_nowait()


class Queue:
    """Stands in for the module `queue`."""

    Empty = queue.Empty
    SimpleQueue = _SimpleQueue


class Collector:
    """Stands in for the module `gc`: a worker's advice to the collector is not for a thousand workers."""

    @staticmethod
    def collect(generation: int = 2) -> int:
        return 0

    freeze = disable = staticmethod(lambda: None)
