"""A world of one seed: what is started, killed, frozen, doubled and damaged in it, and how it must end.

It goes in two parts. While the log is written, a disturber does its worst and the stores fail. Then all faults end,
every log has one owner that lives, and within a bounded number of steps everything must have settled.
"""

import argparse
import functools
import logging
from collections.abc import Callable
from types import SimpleNamespace

from hotpath.errors import Fenced, HotpathError, Unavailable
from hotpath.settings import PipelineSettings
from hotpath.shm.control import Control
from hotpath.views import postgres, refill
from hotpath.workers import process
from hotpath.workers.layout import segment_bytes
from tests.simulation import stand_ins
from tests.simulation.disturber import Disturber
from tests.simulation.faults import Faults
from tests.simulation.invariants import Invariants
from tests.simulation.kafka import BOT_PAGE_VIEWS_MAX, FUTURE_MAX_S, LATE_MAX_S, POISON, Consumer, Log, stock
from tests.simulation.postgres import Server
from tests.simulation.psycopg_client import Postgres
from tests.simulation.redis_client import RedisServer
from tests.simulation.scheduler import NEVER_US, START_US, Event, Killed, Life, Scheduler, Violation

STEPS_MAX = 20_000
SETTLE_STEPS_MAX = 10_000
HANG_DEADLINE_S = 30
"""A supervisor kills a worker that hangs for so long."""
LOGS_MAX = 3
_buffers: list[bytearray] = []


@functools.cache
def settings_of(procs: int) -> PipelineSettings:
    return PipelineSettings(
        procs=procs,
        future_max_s=FUTURE_MAX_S,
        late_max_s=LATE_MAX_S,
        bot_page_views_max=BOT_PAGE_VIEWS_MAX,
        active_users_window_s=20,
        top_pages_window_s=30,
        sessions_window_s=20,
        view_lag_max_s=10,
        block_rows_max=14,
        block_arena_mib=1,
        chunk_rows_max=9,
        ring_slots=3,
        redis_timeout_s=1.0,
    )


class Worker:
    """One life of a worker."""

    def __init__(self, index: int, procs: int, number: int, partitions: list[int]) -> None:
        self.index, self.procs = index, procs
        self.partitions = partitions
        self.life = Life(f"w{index}.{procs}#{number}")
        self.stop = Event()
        self.buffer = _buffers.pop() if _buffers else bytearray(segment_bytes(settings_of(1), LOGS_MAX))
        self.buffer[: Control.nbytes(LOGS_MAX)] = bytes(Control.nbytes(LOGS_MAX))

    def options(self) -> argparse.Namespace:
        """What its supervisor tells it: here every life is the first that its supervisor starts."""
        return argparse.Namespace(
            index=self.index, logs_max=LOGS_MAX, supervisor_fd=0, supervisor=self.life.name, goes_on=False
        )


class World:
    """Everything there is."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.scheduler = Scheduler(seed, trace)
        self.chance = self.scheduler.random
        stand_ins.enter(self)
        self.faults = Faults(self.chance)
        count = self.chance.choice((1, 1, 2, 2, 3))
        self.logs = [Log(p, self.chance.choice(stock()), self.chance) for p in range(count)]
        self.invariants = Invariants(self.scheduler, self.logs)
        self.server = Server(self.scheduler, self.invariants.on_commit)
        self.server.on_lock_timeout = self.invariants.on_lock_timeout
        self.server.refuses_row = lambda row: row.page_url == POISON
        self.postgres = Postgres(self.scheduler, self.server, self.faults)
        self.redis = RedisServer(self.scheduler, self.faults, self.invariants.on_change)
        self.invariants.server, self.invariants.store = self.server, self.redis.store
        self.workers: list[Worker] = []
        self.newest: dict[int, Worker] = {}  # by partition: whoever was started for it last
        self.images: list[dict] = []  # of Redis, as files on its disk
        self.disturbing = True
        self._started = 0
        self.scheduler.ended = self._bury

    # What stand-ins ask for

    def consumer(self, options: dict) -> Consumer:
        return Consumer(self.scheduler, self.logs, options, lambda log, offset: None)

    def stop_event_of(self, life: Life) -> Event:
        return next(worker.stop for worker in self.workers if worker.life is life)

    # Workers

    def start(self, index: int, procs: int) -> None:
        self._started += 1
        partitions = process.pinned_partitions(len(self.logs), index, procs)
        worker = Worker(index, procs, self._started, partitions)
        self.workers.append(worker)
        for partition in partitions:
            self.newest[partition] = worker
        self.scheduler.note(f"start {worker.life.name}")
        self.scheduler.spawn(worker.life.name, lambda: self._main(worker), worker.life)

    def _main(self, worker: Worker) -> None:
        segment = SimpleNamespace(buffer=memoryview(worker.buffer))
        try:
            process.run(settings_of(worker.procs), segment, worker.options())
            self.scheduler.note("ends")
        except Killed:
            return
        except Fenced as error:
            self.scheduler.note(f"fenced: {error}")
            if self._owns_all(worker):
                self.scheduler.fail(
                    f"{worker.life.name} is fenced and nobody has taken its logs over: {error}"
                )
        except Violation:
            return
        except (Unavailable, TimeoutError) as error:
            self.scheduler.note(f"ends: {error}")
            if not worker.stop.is_set():
                self.scheduler.fail(f"{worker.life.name} gives up: {error!r}")
        except (HotpathError, Exception) as error:
            logging.getLogger(__name__).debug("a worker failed", exc_info=True)
            self.scheduler.fail(f"{worker.life.name} fails: {error!r}")
        self.scheduler.kill(worker.life)

    def _owns_all(self, worker: Worker) -> bool:
        rows = [row for row in self.server.tables.logs.values() if row.partition in worker.partitions]
        return bool(rows) and all(self.invariants.owners.get(row.log_id) is worker.life for row in rows)

    def _bury(self, life: Life) -> None:
        """Nothing of a process runs any more: its sockets close, and its supervisor starts the next."""
        self.scheduler.current = None
        self.scheduler.note(f"{life.name} is gone")
        self.postgres.abandon(life)
        worker = next((worker for worker in self.workers if worker.life is life), None)
        if worker is None:
            return
        self.workers.remove(worker)
        _buffers.append(worker.buffer)
        if life.name != "end" and any(self.newest[p] is worker for p in worker.partitions):
            delay_s = 0.1 + self.chance.random() * (3 if self.disturbing else 0.2)
            self.scheduler.spawn("supervisor", lambda: self._restart(worker), delay_s=delay_s)

    def _restart(self, worker: Worker) -> None:
        if any(self.newest[p] is worker for p in worker.partitions):
            self.start(worker.index, worker.procs)

    def start_all(self, procs: int) -> None:
        for index in range(min(procs, len(self.logs))):
            self.start(index, procs)

    # Actors

    def _produce(self) -> None:
        """Appends to the logs in bursts; the events' own time passes faster than this world's."""
        begin_us = self.scheduler.now_us
        speed = max(log.coming[-1][1].after_s for log in self.logs) / self.chance.choice((2, 3, 5))
        while any(log.coming for log in self.logs):
            self.scheduler.sleep(self.chance.choice((0.05, 0.3, 1.0)))
            reached_s = (self.scheduler.now_us - begin_us) / 1e6 * speed
            for log in self.logs:
                due = sum(stored.after_s <= reached_s for _, stored in log.coming)
                log.append(self.scheduler.now_us, due)

    def run(self) -> None:
        """The whole of it. Raises Violation."""
        scheduler = self.scheduler
        try:
            self.start_all(self.chance.choice((1, 2)))
            scheduler.spawn("producer", self._produce)
            scheduler.spawn("disturber", Disturber(self).run)
            scheduler.run(lambda: not any(log.coming for log in self.logs) and self._lasted(3), STEPS_MAX)
            self._calm()
            scheduler.run(self._at_rest, SETTLE_STEPS_MAX)
            self.invariants.check_all()
        finally:
            self.disturbing = False
            scheduler.ended = lambda life: None
            scheduler.end()
            _buffers.extend(worker.buffer for worker in self.workers)

    def _lasted(self, seconds: float) -> bool:
        return self.scheduler.now_us > START_US + seconds * 1e6

    def _calm(self) -> None:
        """Faults end, nobody is frozen any more, and each log has somebody who works on it."""
        scheduler = self.scheduler
        scheduler.current = None
        scheduler.note("calm")
        self.disturbing = False
        self.faults.stop()
        for worker in self.workers:
            if self._hangs(worker):
                worker.life.frozen_until_us = NEVER_US
                kill = functools.partial(scheduler.kill, worker.life)
                scheduler.spawn("supervisor", kill, delay_s=HANG_DEADLINE_S)
            else:
                worker.life.frozen_until_us = 0
        for partition in range(len(self.logs)):
            worker = self.newest[partition]
            if (worker.stop.is_set() or worker.life.frozen_until_us) and not worker.life.dead:
                scheduler.kill(worker.life)
        if self.chance.random() < 0.3:
            self.start_all(self.chance.choice((1, 2)))
        self._rest_from_us = None

    def _hangs(self, worker: Worker) -> bool:
        """Whether this one goes on hanging, with whatever transaction it has open."""
        frozen = worker.life.frozen_until_us > self.scheduler.now_us
        return frozen and self.newest[worker.partitions[0]] is not worker and self.chance.random() < 0.7

    def _at_rest(self) -> bool:
        """Settled, and still so a few ticks later, when every damage that cannot be noticed has been rebuilt."""
        if self.scheduler.steps % 8:
            return False  # it is not cheap
        if not self.invariants.settled():
            self._rest_from_us = None
            return False
        if self._rest_from_us is None:
            self._rest_from_us = self.scheduler.now_us
        if self.scheduler.now_us < self._rest_from_us + 2_500_000:
            return False
        for log_id in self.server.tables.logs:
            if (log_id, self.invariants.live(log_id)[0]) in self.invariants.damaged:
                self._rest_from_us = None
                self.spawn_operator([log_id])
                return False
        return True

    def spawn_operator(self, log_ids: list[int]) -> None:
        """Somebody has logs rebuilt by hand, from a process of its own."""
        life = Life("operator")

        def rebuild() -> None:
            try:
                client = self.redis.connect("", 1.0)
                connection = postgres.connect("", "operator")
                requests = [postgres.Request(log_id, None) for log_id in log_ids]
                refill.Refill(settings_of(1), client, connection).rebuild(
                    requests, None, self.scheduler.now_us
                )
            except Killed:
                return
            except Exception as error:
                self.scheduler.note(f"gives up: {error!r}")
            self.scheduler.kill(life)

        self.scheduler.spawn("operator", rebuild, life)


def run(seed: int, trace: Callable[[str], None] | None = None) -> World:
    """The world of a seed, from its beginning to its end. Raises Violation; stand-ins must be installed."""
    world = World(seed, trace)
    world.run()
    return world
