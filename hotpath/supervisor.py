"""The supervisor: `python -m hotpath.supervisor --procs 8` starts the workers, watches them, and ends with them.

Signal handlers only queue; one loop acts. The workers' own loops write the heartbeats it reads, so that a worker that
hangs is seen to hang. It keeps no state that a restart would need: positions are in Postgres, shared memory dies with
its users, and a worker that survives its supervisor drains when their pipe closes.
"""

import collections
import logging
import os
import secrets
import signal
import sys
import threading
import time
from datetime import UTC, datetime

from hotpath import clock
from hotpath.console import configure_logging, exit_code_of
from hotpath.errors import Fenced, HotpathError, LogLost, Unavailable, WorkersFailed
from hotpath.kafka import admin_client, describe_topic
from hotpath.maintenance import Maintenance
from hotpath.preflight import check_servers
from hotpath.settings import PipelineSettings, load
from hotpath.status import StatusServer
from hotpath.workers.handle import RESTART_BACKOFF_S, Seat, WorkerProcess
from hotpath.workers.process import pinned_partitions

log = logging.getLogger(__name__)

PROGRAM = "python -m hotpath.supervisor"
LOOP_INTERVAL_S = 0.1
SLEEP_S = 2.0
"""A turn of the loop that takes longer means that the process was stopped, or the machine."""
TOPIC_INTERVAL_S = 3.0
"""Pause between looks at how many partitions the topic has: a new one waits so long for a worker."""
ADDED_PARTITIONS_MAX = 1_024
"""Partitions that a worker of a group has room for beyond those of its start: 24 KiB a block and 13 of the page per
hundred, untouched until they are used. With more than that it starts again."""
START_ATTEMPTS = 5
"""Lives of a worker that may end before it ever ran. Once it has, it is restarted for as long as it takes."""
NOT_RESTARTED = {error.exit_code: error for error in (Fenced, LogLost)}
"""Exit codes after which a restart could only do harm: another owner holds the logs, or they are gone."""


class Supervisor:
    """Keeps `procs` workers running until a signal stops it."""

    def __init__(self, settings: PipelineSettings, partitions: int) -> None:
        self._settings = settings
        self._partitions = partitions
        self._in_group = settings.assign == "group"
        self.partitions_seen = partitions
        """How many the topic has, as last heard. Only the thread that looks writes it."""
        self.signals: collections.deque[int] = collections.deque()
        self._name = f"{os.uname().nodename}-{secrets.token_hex(4)}"
        self._turned_at = self._woke_at = time.monotonic()
        self.seats: list[Seat] = []
        self._fill_seats()
        if len(self.seats) < settings.procs:
            log.warning(
                "topic %r has %d partitions: %d workers will do", settings.topic, partitions, len(self.seats)
            )

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT; then drain. Raises WorkersFailed, Fenced or LogLost."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self.signals.append(number))
        try:
            while not self.signals:
                self._notice_sleep()
                for seat in self.seats:
                    self._watch(seat)
                if self.partitions_seen > self._partitions:
                    self._lay_out_anew()
                if all(seat.given_up for seat in self.seats):
                    self._give_up(self.seats[0].given_up)
                time.sleep(LOOP_INTERVAL_S)
            log.info("%s: draining", signal.Signals(self.signals[0]).name)
        finally:
            self._drain()

    def _give_up(self, error: type[HotpathError]) -> None:
        """Raise what ended the last worker; first stay until a signal, if the end would only be undone."""
        if self._settings.stay_when_given_up:
            log.error("no worker is left: staying, unhealthy, until this process is stopped; see above")
            while not self.signals:
                time.sleep(LOOP_INTERVAL_S)
        raise error("no worker is left: see the log above")

    def _fill_seats(self) -> None:
        # In a group every worker may be needed once another supervisor is gone; until then it idles.
        procs = self._settings.procs
        wanted = procs if self._in_group else min(procs, self._partitions)
        for index in range(len(self.seats), wanted):
            self.seats.append(Seat(index))

    def _lay_out_anew(self) -> None:
        """Give the partitions that were added to workers: all drain, and start again with room for theirs."""
        log.info("the topic has %d partitions now, not %d", self.partitions_seen, self._partitions)
        self._partitions = self.partitions_seen
        if self._in_group:
            return  # the group gives them to workers by itself
        self._end_workers()
        for seat in self.seats:
            if seat.worker is not None:
                seat.given_up = NOT_RESTARTED.get(seat.worker.exit_code())
                seat.worker.release()
                seat.worker = None
            seat.start_at = 0.0
        self._fill_seats()

    def _watch(self, seat: Seat) -> None:
        worker = seat.worker
        if worker is None:
            if not seat.given_up and time.monotonic() >= seat.start_at:
                self._start(seat)
            return
        code = worker.exit_code()
        if code is not None:
            self._ended(seat, worker, code)
        elif worker.hangs() and time.monotonic() - self._woke_at > self._settings.hang_deadline_s:
            log.error("worker %d has not moved for %.0f s: killed", seat.index, worker.heartbeat_age_s())
            worker.kill()

    def _notice_sleep(self) -> None:
        """Where this process was stopped, its workers may have been, too: none of them is to be judged by that time."""
        now = time.monotonic()
        if now - self._turned_at > SLEEP_S:
            log.warning("was stopped for %.0f s", now - self._turned_at)
            self._woke_at = now
        self._turned_at = now

    def _start(self, seat: Seat) -> None:
        if self._in_group:
            logs_max = self._partitions + ADDED_PARTITIONS_MAX  # it may be the only worker
        else:
            logs_max = len(pinned_partitions(self._partitions, seat.index, self._settings.procs))
        seat.worker = WorkerProcess(self._settings, seat.index, logs_max, self._name, goes_on=seat.has_run)

    def _ended(self, seat: Seat, worker: WorkerProcess, code: int) -> None:
        """Decide what follows the end of a worker's life."""
        worker.release()
        seat.worker = None
        seat.has_run |= worker.was_running
        seat.failed_starts += not seat.has_run
        if code in NOT_RESTARTED:
            seat.given_up = NOT_RESTARTED[code]
            log.error("worker %d is not restarted: %s", seat.index, seat.given_up.__doc__.splitlines()[0])
            return
        if seat.failed_starts >= START_ATTEMPTS:
            raise WorkersFailed(
                f"worker {seat.index} failed to start {START_ATTEMPTS} times: see the log above"
            )
        if worker.made_progress:
            seat.backoff_s = RESTART_BACKOFF_S
        log.error("worker %d ended (%s): starts again in %.1f s", seat.index, _how(code), seat.backoff_s)
        seat.restarts += 1
        seat.start_at = time.monotonic() + seat.backoff_s
        seat.backoff_s = min(2 * seat.backoff_s, self._settings.restart_backoff_max_s)

    def _drain(self) -> None:
        """End every worker. Raises WorkersFailed when some did not drain."""
        if late := self._end_workers():
            raise WorkersFailed(f"{late} workers did not drain in time and were killed; nothing is lost")

    def _end_workers(self) -> int:
        """Ask every worker, wait until the deadline that all share, then kill; how many had to be killed."""
        workers = [seat.worker for seat in self.seats if seat.worker is not None]
        for worker in workers:
            if worker.exit_code() is None:
                worker.terminate()
        # The workers' own deadline comes first, so that they can still say what they left undone.
        deadline = time.monotonic() + self._settings.drain_deadline_s + 2
        while any(worker.exit_code() is None for worker in workers) and time.monotonic() < deadline:
            time.sleep(LOOP_INTERVAL_S / 4)
        late = [worker for worker in workers if worker.exit_code() is None]
        for worker in late:
            worker.kill()
        return len(late)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _maintain(settings: PipelineSettings, stopped: threading.Event) -> None:
    """Keep the tables in order, beside the workers; a failure is told and tried again."""
    maintenance = Maintenance(settings.postgres_dsn, settings)
    while not stopped.is_set():
        maintenance.run_once(datetime.fromtimestamp(clock.now_us() / 1e6, UTC))
        stopped.wait(settings.maintenance_interval_s)


def _watch_topic(settings: PipelineSettings, supervisor: Supervisor, stopped: threading.Event) -> None:
    """Look at how many partitions the topic has. Another incarnation of it is for the workers to notice."""
    admin = admin_client(settings)
    while not stopped.wait(TOPIC_INTERVAL_S):
        try:
            supervisor.partitions_seen = describe_topic(settings, admin=admin).partitions
        except Unavailable as error:
            log.debug("%s", error)  # the workers tell


def run(arguments: list[str]) -> None:
    """The command. Raises HotpathError."""
    settings = load(PipelineSettings, arguments, PROGRAM)
    configure_logging(settings, "supervisor")
    clock.follow(settings.clock_file)
    check_servers(settings)
    supervisor = Supervisor(settings, describe_topic(settings).partitions)
    stopped = threading.Event()
    with StatusServer(settings, supervisor.seats):
        for name, loop, given in (
            ("maintenance", _maintain, (settings, stopped)),
            ("topic", _watch_topic, (settings, supervisor, stopped)),
        ):
            threading.Thread(target=loop, args=given, name=name, daemon=True).start()
        try:
            supervisor.run()
        finally:
            stopped.set()


def main() -> int:
    return exit_code_of(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
