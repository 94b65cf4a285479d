"""The supervisor: `python -m hotpath.supervisor --procs 8` starts the workers, watches them, and ends with them.

Signal handlers only queue; one loop acts. The workers' own loops write the heartbeats it reads, so that a worker that
hangs is seen to hang. It keeps no state that a restart would need: positions are in Postgres, shared memory dies with
its users, and a worker that survives its supervisor drains when their pipe closes.
"""

import collections
import logging
import signal
import sys
import threading
import time
from datetime import UTC, datetime

from hotpath.console import configure_logging, exit_code_of
from hotpath.errors import Fenced, LogLost, WorkersFailed
from hotpath.kafka import describe_topic
from hotpath.maintenance import Maintenance
from hotpath.preflight import check_servers
from hotpath.settings import PipelineSettings, load
from hotpath.status import StatusServer
from hotpath.workers.handle import RESTART_BACKOFF_S, Seat, WorkerProcess
from hotpath.workers.process import pinned_partitions

log = logging.getLogger(__name__)

PROGRAM = "python -m hotpath.supervisor"
LOOP_INTERVAL_S = 0.1
START_ATTEMPTS = 5
"""Lives of a worker that may end before it ever ran. Once it has, it is restarted for as long as it takes."""
NOT_RESTARTED = {error.exit_code: error for error in (Fenced, LogLost)}
"""Exit codes after which a restart could only do harm: another owner holds the logs, or they are gone."""


class Supervisor:
    """Keeps `procs` workers running until a signal stops it."""

    def __init__(self, settings: PipelineSettings, partitions: int) -> None:
        self._settings = settings
        self._partitions = partitions
        self.signals: collections.deque[int] = collections.deque()
        procs = min(settings.procs, partitions)
        if procs < settings.procs:
            log.warning("topic %r has %d partitions: %d workers will do", settings.topic, partitions, procs)
        self.seats = [Seat(index) for index in range(procs)]

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT; then drain. Raises WorkersFailed, Fenced or LogLost."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self.signals.append(number))
        try:
            while not self.signals:
                for seat in self.seats:
                    self._watch(seat)
                if all(seat.given_up for seat in self.seats):
                    raise self.seats[0].given_up("no worker is left: see the log above")
                time.sleep(LOOP_INTERVAL_S)
            log.info("%s: draining", signal.Signals(self.signals[0]).name)
        finally:
            self._drain()

    def _watch(self, seat: Seat) -> None:
        worker = seat.worker
        if worker is None:
            if not seat.given_up and time.monotonic() >= seat.start_at:
                self._start(seat)
            return
        code = worker.exit_code()
        if code is not None:
            self._ended(seat, worker, code)
        elif worker.hangs():
            log.error("worker %d has not moved for %.0f s: killed", seat.index, worker.heartbeat_age_s())
            worker.kill()

    def _start(self, seat: Seat) -> None:
        logs_max = len(pinned_partitions(self._partitions, seat.index, self._settings.procs))
        seat.worker = WorkerProcess(self._settings, seat.index, logs_max)

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
        """End every worker: ask, wait until the deadline that all share, then kill."""
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
        if late:
            raise WorkersFailed(f"{len(late)} workers did not drain in time and were killed; nothing is lost")


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _maintain(settings: PipelineSettings, stopped: threading.Event) -> None:
    """Keep the tables in order, beside the workers; a failure is told and tried again."""
    maintenance = Maintenance(settings.postgres_dsn, settings)
    while not stopped.is_set():
        maintenance.run_once(datetime.now(UTC))
        stopped.wait(settings.maintenance_interval_s)


def run(arguments: list[str]) -> None:
    """The command. Raises HotpathError."""
    settings = load(PipelineSettings, arguments, PROGRAM)
    configure_logging(settings, "supervisor")
    check_servers(settings)
    supervisor = Supervisor(settings, describe_topic(settings).partitions)
    stopped = threading.Event()
    with StatusServer(settings, supervisor.seats):
        threading.Thread(target=_maintain, args=(settings, stopped), name="maintenance", daemon=True).start()
        try:
            supervisor.run()
        finally:
            stopped.set()


def main() -> int:
    return exit_code_of(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
