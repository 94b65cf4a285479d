"""One fault after another over one pipeline: break, hold, mend, wait for recovery, look for what was left behind."""

import collections
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.fault import Fault, NotPossibleHere
from tests.chaos.world import World
from tests.support.pipeline import wait_until

RECOVERY_TIMEOUT_S = 90
WORKER_MIB_MAX = 300  # beside its bot counts
SUPERVISOR_MIB_MAX = 200
LOOK_INTERVAL_S = 0.1


class Breach(AssertionError):
    """Something did not hold; the message says what."""


@dataclass(frozen=True)
class Record:
    """What one round was: its faults' names, how long they lasted and how long recovery took, seconds."""

    names: tuple[str, ...]
    broken_s: float
    recovery_s: float
    worker_mib: float
    supervisor_mib: float


class Runner:
    """Runs faults in a world and keeps the records."""

    def __init__(
        self,
        world: World,
        tell: Callable[[str], None] = lambda _: None,
        recovery_timeout_s: float = RECOVERY_TIMEOUT_S,
    ) -> None:
        """`tell` hears what is being done."""
        self.world = world
        self._recovery_timeout_s = recovery_timeout_s
        self.records: list[Record] = []
        self.not_possible: dict[str, str] = {}
        self._usual_lags: collections.deque[int] = collections.deque(maxlen=9)
        self._tell = tell

    def run(self, faults: list[Fault]) -> Record | None:
        """One round; None when the machine does not allow it. Raises AssertionError when something did not hold."""
        world = self.world
        if (lag := world.lag()) is not None:
            self._usual_lags.append(lag)
        began = time.monotonic()
        names = tuple(fault.name for fault in faults)
        self._tell(f"{' + '.join(names)}: breaking")
        broken = []
        for fault in faults:
            try:
                fault.inject(world)
                broken.append(fault)
            except NotPossibleHere as error:
                self.not_possible[fault.name] = str(error)
        if not broken:
            return None
        self._tell(f"{' + '.join(names)}: broken")
        self._hold(max(fault.hold_s for fault in broken))
        if len(broken) == 1:
            broken[0].check(world)
        # Servers first: a supervisor cannot be started without them.
        for fault in sorted(broken, key=lambda fault: "supervisor" in fault.touches):
            fault.end(world)
        ended = time.monotonic()
        self._tell(f"{' + '.join(names)}: recovering")
        self.wait_until_recovered(broken)
        recovery_s = time.monotonic() - ended
        self._tell(f"{' + '.join(names)}: looking for leftovers")
        self.look_for_leftovers()
        record = Record(names, ended - began, recovery_s, *self._memory_mib())
        self.records.append(record)
        return record

    def _hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.world.tend()
            time.sleep(min(left, LOOK_INTERVAL_S))

    def wait_until_recovered(self, faults: Sequence[Fault] = ()) -> None:
        """Until every worker runs, neither Postgres nor Redis is further behind than usual, and `faults` agree.

        Usual is a second's events, and on a busy machine thrice what it was before the faults.
        """
        world = self.world
        usual = max(world.rate, 3 * statistics.median(self._usual_lags or [0]))
        before = None

        def recovered() -> bool:
            nonlocal before
            world.tend()
            lag, status = world.lag(), world.status()
            if lag is None or lag > usual or status is None:
                return False
            workers = status["workers"]
            logs = [log for worker in workers for log in worker["logs"]]
            committed = sum(log["committed"] for log in logs)
            whole = len(workers) == min(world.procs, world.topic.partitions)
            whole = whole and len(logs) == world.topic.partitions
            if not whole or any(w["state"] != "running" or w["redis_away"] for w in workers):
                return False
            if before is None:
                before = committed
            behind = world.redis_lag()
            if behind is None or behind > usual or committed <= before:
                return False
            return all(fault.recovered(world) for fault in faults)

        try:
            wait_until(recovered, "the pipeline has recovered", self._recovery_timeout_s)
        except AssertionError as error:
            raise Breach(f"{error}; lag {world.lag()}, status {_short(world.status())}") from None

    def look_for_leftovers(self) -> None:
        """No process and no shared memory but those of the supervisor and its workers."""
        world = self.world

        def expected() -> set[int]:
            return {world.pipeline.process.pid, *world.worker_pids()}

        try:
            wait_until(lambda: {p.pid for p in world.processes()} == expected(), "no orphan is left", 30)
        except AssertionError:
            orphans = [p for p in world.processes() if p.pid not in expected()]
            raise Breach(f"orphans: {[(p.pid, p.cmdline()) for p in orphans]}") from None
        workers = min(world.procs, world.topic.partitions)
        try:
            wait_until(lambda: len(segments(world.processes())) == workers, "one segment for each worker", 10)
        except AssertionError:
            raise Breach(f"shared memory: {segments(world.processes())} for {workers} workers") from None
        named = [path.name for path in Path("/dev/shm").iterdir() if "hotpath" in path.name]
        if named:
            raise Breach(f"/dev/shm holds {named}")

    def _memory_mib(self) -> tuple[float, float]:
        """Of the largest worker, without its bot counts, and of the supervisor. Raises Breach when it is too much."""
        status = self.world.status() or {"workers": []}
        sizes = [w["rss_bytes"] - w["bot_counts_bytes"] for w in status["workers"] if "rss_bytes" in w]
        worker = max(sizes, default=0) / (1 << 20)
        supervisor = psutil.Process(self.world.pipeline.process.pid).memory_info().rss / (1 << 20)
        if worker > WORKER_MIB_MAX or supervisor > SUPERVISOR_MIB_MAX:
            raise Breach(f"memory: worker {worker:.0f} MiB, supervisor {supervisor:.0f} MiB")
        return worker, supervisor


def segments(processes: list[psutil.Process]) -> set[str]:
    """Inodes of workers' shared memory that these processes have open or mapped."""
    found = set()
    for process in processes:
        with suppress(OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            found |= set(re.findall(r" (\d+)\s+/memfd:hotpath-worker", maps))
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    if "memfd:hotpath-worker" in str(descriptor.readlink()):
                        found.add(str(descriptor.stat().st_ino))
    return found


def _short(status: dict | None) -> str:
    if status is None:
        return "none"
    shown = ("worker", "state", "lag_events", "redis_lag_events", "redis_away", "kafka_down", "restarts")
    return str([{name: worker.get(name) for name in shown} for worker in status["workers"]])
