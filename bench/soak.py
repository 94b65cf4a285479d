"""The pipeline for as long as it is told: `python -m bench.soak --minutes 60 [--rate R | --share 0.8] [--json]`.

    flat out for a moment ► the peak ► its share, minute after minute ► drain ► compare every class with the truth

Time goes faster than the machine's: every --jump-every seconds the clock of the pipeline and of the events jumps ahead
by --jump-hours (settings.clock_file), so that days begin, fill and are dropped by a retention of one day; between two
jumps windows fill as they do in production. The topic has no append times, so that the pipeline's own clock decides
what is in the future. A jump waits until the lag is small: a message is never read under a clock two jumps later.

The exit code is 1 when the answer is wrong. Without jumps the topic is like any other, and `hotpath verify` follows.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import results
from bench.harness import ROOT, Place, child_environment, machine, place, servers
from bench.load import Load, machine_clock_us
from bench.pipeline import (
    PARTITIONS,
    Supervised,
    above_zero,
    check_ledger,
    supervised,
    watch_to_the_end,
)
from bench.show import show
from bench.soak_report import draw, memory_in, short, table
from bench.start import ends_of
from bench.vitals import Vitals, flatness
from bench.workload import USERS
from deploy.local.kafka import TOPIC_CONFIG
from hotpath.console import configure_logging
from hotpath.errors import HotpathError, Unavailable, WorkersFailed

TOPIC = TOPIC_CONFIG | {"message.timestamp.type": "CreateTime"}
FLAGS = [
    *("--log-level", "warning"),
    *(
        f"--retention-{what}-days=1"
        for what in ("events", "late", "quarantine", "bot-activity", "history", "ledger")
    ),
]
PROBE_LAG_MAX = 1_000_000
"""While the peak is measured the producer waits when it is so far ahead: a backlog is all that is needed."""
JUMP_LAG_MAX_S = 5.0
RISE_MIB, RISE_DEAD_TUPLES = 4, 50_000
"""Rises over the second half that count as flat however small the mean is; of lag, a second's worth."""
DRAIN_DEADLINE_S = 600
LOOK_PAUSE_S = 0.5
TOLD = (
    "events_per_s",
    "lag_events",
    "redis_lag_events",
    "clock_ahead_h",
    "events_mib",
    "other_tables_mib",
    "dead_tuples",
)


class Clock:
    """The clock that the pipeline and the events share: the machine's, and what stands in a file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clock"
        self.path.write_bytes(bytes(8))
        self._offset_us = np.memmap(self.path, np.int64, "r+", shape=(1,))

    def now_us(self) -> int:
        return machine_clock_us() + int(self._offset_us[0])

    @property
    def ahead_s(self) -> float:
        return float(self._offset_us[0]) / 1e6

    def jump(self, seconds: float) -> None:
        self._offset_us[0] += round(seconds * 1e6)


class Soak:
    """One run: its traffic, its clock, what was seen."""

    def __init__(
        self, load: Load, vitals: Vitals, clock: Clock, arguments: argparse.Namespace, console: Console
    ):
        self._load = load
        self._vitals = vitals
        self._clock = clock
        self._arguments = arguments
        self._console = console
        self.samples: list[dict[str, float]] = []
        self.peak_per_s: float | None = None
        self.rate = float(arguments.rate or 0)
        self._applied = 0

    def find_rate(self) -> None:
        """Measure the peak with the producer beside it, as it will be, and go on at its share.

        The peak is what Postgres and the live views both keep up with for long. Nothing is done with a rate given.
        """
        if self.rate:
            return
        load = self._load
        load.hold = lambda: load.sent - self._applied > PROBE_LAG_MAX
        self._look_until(lambda: self._applied > 0, "an applied event")
        # The views and the tables' caches are not yet what they will be: the first half is no measure.
        self._look_for(self._arguments.probe / 2)
        before, began = self._applied, time.monotonic()
        self._look_for(self._arguments.probe / 2)
        # Through to the end of what was sent: views that fell behind catch up in leaps.
        load.hold = lambda: True
        self._look_until(lambda: self._applied >= load.sent, "an end of the backlog")
        self.peak_per_s = (self._applied - before) / (time.monotonic() - began)
        self.rate = max(1.0, self.peak_per_s * self._arguments.share)
        self._console.print(f"peak {self.peak_per_s:,.0f} events/s; going on at {self.rate:,.0f}")
        load.set_rate(self.rate)
        load.hold = lambda: False

    def go_on(self) -> None:
        """Until the time is up: a line every --every seconds, a jump every --jump-every."""
        arguments, began = self._arguments, time.monotonic()
        ends_at = began + arguments.minutes * 60
        self._vitals.begin()
        next_line, next_jump = began + arguments.every, began + arguments.jump_every
        while (now := time.monotonic()) < ends_at:
            self._look_for(LOOK_PAUSE_S)
            if arguments.jump_hours and now >= next_jump and self._lag_s() < JUMP_LAG_MAX_S:
                self._clock.jump(arguments.jump_hours * 3600)
                next_jump = now + arguments.jump_every
            if now >= next_line:
                self._tell()
                next_line += arguments.every
        self._tell()

    def _look_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DRAIN_DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                raise Unavailable(f"there was not {what} within {DRAIN_DEADLINE_S} s")
            self._look_for(LOOK_PAUSE_S)

    def _look_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            self._applied = self._vitals.applied()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, LOOK_PAUSE_S))

    def _lag_s(self) -> float:
        return (self._load.sent - self._applied) / max(self.rate, 1.0)

    def _tell(self) -> None:
        sample = self._vitals.sample(self._load.sent, self._clock.ahead_s)
        self.samples.append(sample)
        memory = {short(name): used for name, used in memory_in(sample).items()}
        self._console.print(
            f"{sample['seconds'] / 60:6.1f} min  "
            + "  ".join(f"{name} {sample[name]:,.0f}" for name in TOLD)
            + f"  days {sample['event_days']}  redis {sample['redis_used_mib']:,.0f} MiB"
            + f"  beside counts {sample['workers_beside_counts_mib']:,.0f} MiB  memory MiB "
            + " ".join(f"{name} {used:,.0f}" for name, used in memory.items())
        )


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    """One run in a fresh place. Raises HotpathError when it breaks off; a wrong answer is told in the result."""
    with ExitStack() as stack:
        clock = Clock(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hotpath-soak-"))))
        topic = TOPIC if arguments.jump_hours else TOPIC_CONFIG
        at = stack.enter_context(place(stack.enter_context(servers()), PARTITIONS, topic))
        at = replace(at, environment=at.environment | {"HOTPATH_CLOCK_FILE": str(clock.path)})
        configure_logging(at.settings, "bench")
        with supervised(at, arguments.procs, FLAGS) as running:
            vitals = Vitals(at, running)
            stack.callback(vitals.close)
            load = Load(at.settings, PARTITIONS, arguments.users, arguments.rate or 0, clock.now_us)
            soak = Soak(load, vitals, clock, arguments, console)
            with load:
                soak.find_rate()
                soak.go_on()
            watch_to_the_end(at, running, ends_of(at), DRAIN_DEADLINE_S)
            wrong = faults(at, running, load, clock.ahead_s, arguments)
    names = [name for name in soak.samples[-1] if name.endswith("mib") or name.startswith("memory ")]
    return {
        "machine": machine(),
        "minutes": arguments.minutes,
        "days_of_event_time": round(clock.ahead_s / 86_400 + arguments.minutes / 1_440, 2),
        "procs": arguments.procs,
        "peak_per_s": soak.peak_per_s and round(soak.peak_per_s),
        "rate": round(soak.rate),
        "events": load.sent,
        "classes": load.truth(),
        "right": not wrong,
        "wrong": wrong,
        "flatness": flatness(
            soak.samples,
            [*names, "dead_tuples", "time_partitions", "lag_events", "redis_lag_events"],
            dict.fromkeys(names, RISE_MIB)
            | {"dead_tuples": RISE_DEAD_TUPLES, "lag_events": soak.rate, "redis_lag_events": soak.rate},
        ),
        "samples": soak.samples,
    }


def faults(
    at: Place, running: Supervised, load: Load, ahead_s: float, arguments: argparse.Namespace
) -> list[str]:
    """What is wrong at the end, in sentences; the pipeline is still running."""
    found = []
    try:
        check_ledger(at, load.truth())
    except WorkersFailed as error:
        found.append(str(error))
    restarts = sum(worker["restarts"] for worker in (running.status() or {"workers": []})["workers"])
    if restarts:
        found.append(f"workers were restarted {restarts} times")
    if not ahead_s and load.sent <= arguments.verify_max:
        command = [sys.executable, "-m", "hotpath.verify"]
        done = subprocess.run(command, env=child_environment(at.environment), cwd=ROOT, stdout=sys.stderr)
        if done.returncode:
            found.append(f"hotpath verify ended with exit code {done.returncode}: see above")
    return found


def main(arguments: list[str]) -> int:
    """Run, print and write down; exit code 1 when the answer is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description="The pipeline for long. On private servers, or on those of HOTPATH_* when set.",
    )
    number = {"type": float}
    parser.add_argument(
        "--minutes", **number, default=60, help="how long, after the peak was measured (%(default)s)"
    )
    parser.add_argument("--rate", **number, help="events/s; the peak is measured if it is not given")
    parser.add_argument("--share", **number, default=0.8, help="of the peak (%(default)s)")
    parser.add_argument(
        "--probe",
        **number,
        default=240,
        help="seconds of measuring the peak; its second half counts (%(default)s)",
    )
    parser.add_argument("--every", **number, default=60, help="seconds between two lines (%(default)s)")
    parser.add_argument("--jump-every", **number, default=300, help="seconds between two jumps (%(default)s)")
    parser.add_argument(
        "--jump-hours", **number, default=14, help="hours of a jump, below 24; 0: none (%(default)s)"
    )
    parser.add_argument("--users", type=above_zero, default=USERS, help="people (%(default)s)")
    parser.add_argument("--procs", type=above_zero, default=2, help="worker processes (%(default)s)")
    parser.add_argument(
        "--verify-max", type=int, default=5_000_000, help="verify no run of more events (%(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=results.FOLDER, help="folder for soak.json and soak.png"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    if not 0 <= given.jump_hours < 24:
        parser.error("--jump-hours: from 0 to below 24: messages of the future are a day ahead")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        result = measure(given, console)
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    results.write_json(result, given.results, "soak")
    draw(result, given.results)
    show(result, table, given.json)
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
