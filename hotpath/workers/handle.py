"""A worker as its supervisor holds it: a seat, and in it one life of the process after the other."""

import os
import signal
import subprocess
import sys
import time

from hotpath.errors import HotpathError
from hotpath.settings import PipelineSettings, environment
from hotpath.shm.control import LOOPS, Control, WorkerState
from hotpath.shm.segment import Segment
from hotpath.workers.layout import segment_bytes

RESTART_BACKOFF_S = 0.1
"""The pause before the first restart; it doubles with each life that commits nothing, up to a setting."""
STARTING_DEADLINE_S = 60
"""Time for a fresh interpreter to reach Kafka and Postgres and to take its logs over."""


class WorkerProcess:
    """One life of a worker. Owns the process, the write end of its life line, and a view of its control page."""

    def __init__(
        self,
        settings: PipelineSettings,
        index: int,
        logs_max: int,
        supervisor: str = "alone",
        goes_on: bool = False,
    ) -> None:
        """Start a fresh interpreter, never a fork: Kafka's client does not survive one.

        supervisor: a name that no other has; goes_on: an earlier life has held the logs for this supervisor.
        """
        self.index = index
        self.logs_max = logs_max
        self.started_at = time.monotonic()
        self._hang_deadline_s = settings.hang_deadline_s
        nbytes = segment_bytes(settings, logs_max)
        segment = Segment.create(f"hotpath-worker-{index}", nbytes, map_bytes=Control.nbytes(logs_max))
        self.control = Control(segment.buffer, logs_max)
        self.ring_slots = settings.ring_slots
        life_line, self._life_line = os.pipe()
        command = [sys.executable, "-m", "hotpath.workers.process"]
        command += [f"--index={index}", f"--logs-max={logs_max}", f"--supervisor-fd={life_line}"]
        command += [f"--segment-fd={segment.fd}", f"--segment-bytes={nbytes}", f"--supervisor={supervisor}"]
        command += ["--goes-on"] if goes_on else []
        # A fixed hash seed would let anyone who knows it forge users that share a bot count.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
        self._process = subprocess.Popen(
            command,
            pass_fds=(life_line, segment.fd),
            env=inherited | environment(settings),
            stdin=subprocess.DEVNULL,
        )
        os.close(life_line)
        segment.close_descriptor()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state(self) -> WorkerState:
        return WorkerState(int(self.control.page["state"]))

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self.started_at

    @property
    def was_running(self) -> bool:
        """Whether this life ever got past its start."""
        return self.state is not WorkerState.STARTING

    @property
    def made_progress(self) -> bool:
        """Whether this life committed anything: if so, what ended it is no reason to wait long with the next."""
        return bool(self.control.page["blocks_committed"])

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    def heartbeat_age_s(self) -> float:
        """Seconds since the slowest of its loops went round; while it starts, since any of them did."""
        page = self.control.page
        beats = [int(page[f"{loop}_heartbeat_ns"]) for loop in LOOPS]
        if not self.was_running:
            return min(self.uptime_s, (time.monotonic_ns() - max(beats)) / 1e9)
        return max(0.0, (time.monotonic_ns() - min(filter(None, beats), default=0)) / 1e9)

    def hangs(self) -> bool:
        """Whether it has been silent past its deadline."""
        deadline = self._hang_deadline_s if self.was_running else STARTING_DEADLINE_S
        return self.heartbeat_age_s() > deadline

    def terminate(self) -> None:
        """Ask it to drain."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Give up what was held for a process that has ended."""
        os.close(self._life_line)


class Seat:
    """The place of worker `index`: its present life, and what is remembered of the ones before."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.worker: WorkerProcess | None = None
        self.restarts = 0
        self.has_run = False  # any life of it
        self.failed_starts = 0  # before that
        self.backoff_s = RESTART_BACKOFF_S
        self.start_at = 0.0  # time.monotonic()
        self.given_up: type[HotpathError] | None = None

    @property
    def healthy(self) -> bool:
        """Whether a worker is there and moves."""
        worker = self.worker
        return worker is not None and worker.was_running and not worker.hangs()
