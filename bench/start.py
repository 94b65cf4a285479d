"""How soon it works: `python -m bench.start [--times 5] [--json]`.

    cold     from the start of the supervisor over a filled topic to the first commit, and to one of every log
    restart  from SIGKILL of a worker under steady traffic to a commit of each of its logs by its successor

Each is repeated, the answer checked at the end. "Cold" is a new database, topic and processes; the machine's file
cache is warm.
"""

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import psycopg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.harness import Place, machine, place, servers
from bench.live import wait_for
from bench.load import Load
from bench.pipeline import (
    PARTITIONS,
    Supervised,
    above_zero,
    check,
    check_ledger,
    positions_of,
    supervised,
    watch_to_the_end,
)
from bench.show import show
from bench.workload import Workload, fill
from hotpath.console import configure_logging
from hotpath.errors import HotpathError
from hotpath.kafka import log_ranges

LOOK_PAUSE_S = 0.005
DEADLINE_S = 60
USERS = 100_000
QUIET = ["--log-level", "error"]
AIM_S = 2.0


def cold(environment: dict[str, str], arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of one cold start. Raises HotpathError when the answer is wrong."""
    with place(environment, PARTITIONS) as at:
        configure_logging(at.settings, "bench")
        filled = fill(at.settings, Workload(arguments.events, partitions=PARTITIONS, users=USERS))
        ends = ends_of(at)
        began = time.perf_counter()
        with (
            supervised(at, arguments.procs, QUIET) as running,
            psycopg.connect(at.settings.postgres_dsn, autocommit=True) as postgres,
        ):
            wait_until(lambda: any(offset for _, offset in positions_of(postgres, at).values()), "a commit")
            first_s = time.perf_counter() - began

            def every_log() -> bool:
                found = positions_of(postgres, at)
                return all(found.get(number, (0, 0))[1] for number, end in ends.items() if end)

            wait_until(every_log, "a commit of every log")
            every_s = time.perf_counter() - began
            seen = watch_to_the_end(at, running, ends, DEADLINE_S)
        check(at, filled, seen)
        return {"first_commit_s": first_s, "every_log_s": every_s}


def restarts(
    environment: dict[str, str], arguments: argparse.Namespace, told: Callable[[], None]
) -> list[float]:
    """Seconds from each kill to commits of all logs of the worker. Raises HotpathError when the answer is wrong."""
    with place(environment, PARTITIONS) as at, ExitStack() as stack:
        configure_logging(at.settings, "bench")
        postgres = stack.enter_context(psycopg.connect(at.settings.postgres_dsn, autocommit=True))
        running = stack.enter_context(supervised(at, arguments.procs, QUIET))
        with Load(at.settings, PARTITIONS, USERS, arguments.rate) as load:
            wait_until(lambda: len(_moving(postgres, at)) == PARTITIONS, "commits of every log")
            found = []
            for number in range(arguments.times):
                found.append(_kill(postgres, at, running, number % arguments.procs))
                told()
        watch_to_the_end(at, running, ends_of(at), DEADLINE_S)
        check_ledger(at, load.truth())
        return found


def _kill(postgres: psycopg.Connection, at: Place, running: Supervised, index: int) -> float:
    """Seconds until each log of worker `index` was committed by the next one."""
    wait_until(lambda: _worker(running, index).get("state") == "running", "a running worker")
    worker = _worker(running, index)
    partitions = [log["partition"] for log in worker["logs"]]
    before = _states(postgres, at)
    backends = [before[partition][2] for partition in partitions]
    os.kill(worker["pid"], signal.SIGKILL)
    killed_at = time.perf_counter()
    # What the dead worker had sent may still be committed: its successor's work counts from where that ended.
    gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY(%s))"
    wait_until(lambda: postgres.execute(gone, (backends,)).fetchone()[0], "the end of the worker's session")
    left = _states(postgres, at)

    def all_moved() -> bool:
        now = _states(postgres, at)
        return all(
            now[partition][1] > before[partition][1] and now[partition][0] > left[partition][0]
            for partition in partitions
        )

    wait_until(all_moved, "commits of the killed worker's logs")
    return time.perf_counter() - killed_at


def _states(postgres: psycopg.Connection, at: Place) -> dict[int, tuple[int, int, int]]:
    """Partition to (next_offset, epoch, server process of the owner)."""
    rows = postgres.execute(
        "SELECT partition, next_offset, epoch, backend_pid FROM partition_state WHERE topic = %s",
        (at.settings.topic,),
    )
    return {partition: state for partition, *state in rows}


def _moving(postgres: psycopg.Connection, at: Place) -> list[int]:
    return [partition for partition, (_, offset) in positions_of(postgres, at).items() if offset]


def _worker(running: Supervised, index: int) -> dict:
    status = running.status()
    return status["workers"][index] if status else {}


def ends_of(at: Place) -> dict[int, int]:
    """Partition to the offset after its last message."""
    return {number: end for number, (_, end) in log_ranges(at.settings, list(range(PARTITIONS))).items()}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """At this benchmark's pace. Raises Unavailable when that does not come about."""
    wait_for(condition, what, DEADLINE_S, LOOK_PAUSE_S)


def summed_up(seconds: list[float]) -> dict[str, object]:
    """Median, greatest and all of them."""
    return {
        "median_s": round(statistics.median(seconds), 3),
        "max_s": round(max(seconds), 3),
        "all_s": [round(each, 3) for each in seconds],
    }


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    """Both, `times` times each."""
    with ExitStack() as stack:
        environment = stack.enter_context(servers())
        progress = stack.enter_context(Progress(console=console, transient=True))
        task = progress.add_task("cold starts", total=arguments.times)
        starts = []
        for _ in range(arguments.times):
            starts.append(cold(environment, arguments))
            progress.advance(task)
        task = progress.add_task("killed workers", total=arguments.times)
        killed = restarts(environment, arguments, lambda: progress.advance(task))
    return {
        "machine": machine(),
        "procs": arguments.procs,
        "times": arguments.times,
        "aim_s": AIM_S,
        "first_commit": summed_up([each["first_commit_s"] for each in starts]),
        "every_log": summed_up([each["every_log_s"] for each in starts]),
        "killed_worker": summed_up(killed),
    }


def table(result: dict[str, object]) -> Table:
    """For people."""
    shown = Table(box=None, pad_edge=False)
    for name in ("", "median s", "most s", f"aim {AIM_S:g} s"):
        shown.add_column(name)
    rows = {
        "first_commit": "cold start to the first commit",
        "every_log": "cold start to a commit of every log",
        "killed_worker": "SIGKILL of a worker to commits of all its logs",
    }
    for name, title in rows.items():
        figures = result[name]
        shown.add_row(
            title,
            str(figures["median_s"]),
            str(figures["max_s"]),
            "met" if figures["max_s"] < AIM_S else "not met",
        )
    return shown


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0, or that of an explained error."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.start",
        description="Cold starts and killed workers. On private servers, or on those of HOTPATH_* when set.",
    )
    parser.add_argument(
        "--times", type=above_zero, default=5, help="how often each is repeated (%(default)s)"
    )
    parser.add_argument(
        "--events", type=above_zero, default=200_000, help="messages of a cold topic (%(default)s)"
    )
    parser.add_argument(
        "--rate", type=above_zero, default=5_000, help="events/s while workers are killed (%(default)s)"
    )
    parser.add_argument("--procs", type=above_zero, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        result = measure(given, console)
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    show(result, table, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
