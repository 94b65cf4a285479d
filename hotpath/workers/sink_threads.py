"""The two sinks, each in a thread of its own: Postgres first, then Redis.

Each thread owns its sink's connection and its cursor of the ring. An error that a sink does not retry by itself ends
its thread; `check` raises it in the main thread, which ends the process.
"""

import collections
import threading
import time
from collections.abc import Callable

from hotpath import clock
from hotpath.shm.block import Block
from hotpath.shm.control import STAGES, Control
from hotpath.shm.ring import Ring
from hotpath.workers.postgres_sink import PostgresSink
from hotpath.workers.redis_sink import RedisSink
from hotpath.workers.topic_watch import TopicWatch

IDLE_WAIT_S = 0.05
"""How long a loop sleeps when it has nothing to do: signals and heartbeats are served at least so often."""
TICK_INTERVAL_S = 1.0
HEAL_POLL_S = 0.02
LEFT_SLOTS = 3
"""Of the ring, while blocks wait for the healer: one that is filled, one that is committed, one to spare."""
BLOCKS_AT_ONCE = 3
"""Committed blocks that are applied together where so many wait: a page that several of them have costs Redis as much
as one that one of them has."""

POSTGRES, REDIS = STAGES.index("postgres"), STAGES.index("redis")


class SinkThreads:
    """Runs the sinks over a ring."""

    def __init__(
        self, ring: Ring, control: Control, postgres: PostgresSink, redis: RedisSink, watch: TopicWatch
    ) -> None:
        self._ring = ring
        self._control = control
        self._page = control.page
        self._status = control.logs
        self._postgres = postgres
        self._redis = redis
        self._watch = watch
        self._asked: collections.deque[float] = collections.deque()  # a moment per block published
        self._published = threading.Event()
        self._committed = threading.Event()
        self._released = threading.Event()
        self._settled = threading.Event()
        self._no_more_blocks = threading.Event()
        self._abandoned = threading.Event()
        # Counters go on from where the worker's last sinks left them.
        self._cpu_before_ns = self._page["stage_cpu_ns"].copy()
        self._heals_before = int(self._page["redis_heals"])
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True)
            for name, loop in (("postgres-sink", self._commit_blocks), ("redis-sink", self._apply_blocks))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_for_views(self, deadline_s: float, goes_on: Callable[[], bool]) -> None:
        """Wait until no log is with the healer, or Redis is away, or until `goes_on` says no.

        Raises the error that ended a sink.
        """
        deadline = time.monotonic() + deadline_s
        while not self._settled.wait(HEAL_POLL_S) and time.monotonic() < deadline and goes_on():
            self.check()

    def publish(self) -> None:
        """Publish the block that was claimed and filled."""
        self._asked.append(self._watch.ask())
        self._ring.publish()
        self._published.set()

    def wait_for_release(self, timeout_s: float) -> None:
        """Wait until a slot may be free."""
        self._released.wait(timeout_s)
        self._released.clear()

    def check(self) -> None:
        """Raise the error that ended a sink, if one did, and LogLost when the topic was made anew."""
        if self._errors:
            raise self._errors[0]
        self._watch.check()

    def drain(self, deadline_s: float, heartbeat: Callable[[], None]) -> None:
        """Wait until every published block is committed, and applied if Redis is there.

        Raises the error that ended a sink, and TimeoutError when `deadline_s` passes first.
        """
        self._no_more_blocks.set()
        self._published.set()
        deadline = time.monotonic() + deadline_s
        for thread in self._threads:
            while thread.is_alive():
                heartbeat()
                self.check()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the {thread.name} did not finish within {deadline_s:g} s")
                thread.join(IDLE_WAIT_S)
        self.check()

    def abandon(self, deadline_s: float, heartbeat: Callable[[], None]) -> None:
        """Have both threads end without the blocks that are not committed. Raises TimeoutError when one does not."""
        self._abandoned.set()
        self._no_more_blocks.set()
        self._published.set()
        deadline = time.monotonic() + deadline_s
        for thread in self._threads:
            while thread.is_alive():
                heartbeat()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the {thread.name} hangs")
                thread.join(IDLE_WAIT_S)

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._released.set()

    def _commit_blocks(self) -> None:
        ring = self._ring
        while not self._abandoned.is_set():
            self._control.beat("postgres")
            last = self._no_more_blocks.is_set()  # read before the ring, so that no block slips between
            block = ring.to_commit()
            if block is not None:
                self._commit(block)
            elif last:
                return
            else:
                self._published.wait(IDLE_WAIT_S)
                self._published.clear()

    def _commit(self, block: Block) -> None:
        page = self._page
        started = time.monotonic_ns()
        self._watch.confirm(self._asked.popleft(), self._abandoned.is_set)
        self._postgres.flush(block)
        self._status["committed"] = block.logs["next_offset"][: block.log_count]
        page["flush_last_ns"] = time.monotonic_ns() - started
        page["flush_ns"] += page["flush_last_ns"]
        page["blocks_committed"] += 1
        page["rows_committed"] += block.rows
        page["stage_cpu_ns"][POSTGRES] = self._cpu_before_ns[POSTGRES] + time.thread_time_ns()
        self._ring.release_committed()
        self._committed.set()
        self._released.set()

    def _apply_blocks(self) -> None:
        ring = self._ring
        tick_at = 0.0
        while not self._abandoned.is_set():
            self._control.beat("redis")
            last = not self._threads[0].is_alive()
            if time.monotonic() >= tick_at or last:
                tick_at = time.monotonic() + TICK_INTERVAL_S
                self._tick()
            if not self._settled.is_set() and self._redis.is_settled():
                self._settled.set()
            blocks = ring.to_apply(BLOCKS_AT_ONCE)
            if blocks and not last and self._may_hold() and not self._redis.is_ready(blocks[0]):
                self._committed.wait(HEAL_POLL_S)
                self._committed.clear()
            elif blocks:
                self._apply(blocks)
            elif last:
                return
            else:
                self._committed.wait(IDLE_WAIT_S if self._settled.is_set() else HEAL_POLL_S)
                self._committed.clear()

    def _may_hold(self) -> bool:
        """Whether the ring has room enough for blocks to wait until the healer has brought their logs back.

        A block that does not wait leaves the next gap, which costs Postgres several times what the block would have.
        """
        return self._ring.committed - self._ring.applied <= self._ring.slots - LEFT_SLOTS

    def _apply(self, blocks: list[Block]) -> None:
        if self._redis.apply(blocks):
            self._ring.release_applied(len(blocks))
        else:
            self._ring.detach()
            self._page["redis_away"] = 1
        self._page["stage_cpu_ns"][REDIS] = self._cpu_before_ns[REDIS] + time.thread_time_ns()
        self._released.set()

    def _tick(self) -> None:
        """Once a second, traffic or not: publish how far the logs are, trim, heal, find Redis again."""
        here = self._redis.tick(clock.now_us(), next(iter(self._ring.to_apply()), None))
        self._page["redis_away"] = 0 if here else 1
        self._page["redis_heals"] = self._heals_before + self._redis.heals
        self._page["slots_bytes"] = self._redis.slots_bytes
        if here and self._ring.detached:
            self._ring.attach()
