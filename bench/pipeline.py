"""End to end: `python -m bench.pipeline --events 2000000 --procs 2 [--json]`.

    fill the topic ► start the supervisor ► wait for the last Postgres commit and the last Redis apply
                   ► compare every class with the truth ► with --verify: prove every row by the log
                   ► raw COPY and Redis alone, same rows ► the limit

A result is printed only when the answer was right: the ledger's counts are those that the workload promised.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg
import redis
from rich.console import Console
from rich.progress import Progress

from bench.harness import (
    ROOT,
    CpuMeter,
    Place,
    child_environment,
    database,
    free_port,
    machine,
    place,
    server_pids,
    servers,
)
from bench.limit import consume_only, limit, parse_us
from bench.pipeline_report import table
from bench.proof import verify
from bench.raw_copy import copy_raw, rows_of
from bench.redis_apply import apply_topic
from bench.show import show
from bench.workload import AS_IF_RATE, USERS, Filled, Workload, fill
from hotpath.console import configure_logging
from hotpath.errors import HotpathError, Unavailable, WorkersFailed
from hotpath.events import EventClass
from hotpath.kafka import log_ranges
from hotpath.settings import PipelineSettings, load
from hotpath.views import keys

PARTITIONS = 16
POLL_S = 0.05
"""How often the end is looked for: a hundredth of the shortest run that means anything."""


def worker_figures(status: dict) -> list[dict[str, object]]:
    """What a bench needs of the supervisor's /status, worker by worker: the only place that knows its names.

    `stage_cpu_s` (stage to CPU seconds since the worker began), `cpu_s` (of the whole process), `rss_bytes`,
    `bot_counts_bytes`, `slots_bytes`, `received`, `restarts`, `redis_heals` (logs brought back from Postgres).
    """
    names = (
        "stage_cpu_s",
        "cpu_s",
        "rss_bytes",
        "bot_counts_bytes",
        "slots_bytes",
        "received",
        "restarts",
        "redis_heals",
    )
    return [{name: worker.get(name, 0) for name in names} for worker in status["workers"]]


@dataclass
class Watch:
    """What was seen while the pipeline ran; times in seconds since the supervisor was started."""

    first_commit_s: float = 0.0
    first_commit_events: int = 0
    committed_s: float = 0.0
    applied_s: float = 0.0
    rss_bytes_max: int = 0
    bot_counts_bytes_max: int = 0
    slots_bytes_max: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    """(seconds, bytes of the largest worker beside its bot counts and known sessions), four times a second."""
    workers: list[dict[str, object]] = field(default_factory=list)  # as last seen

    def steady_rate(self, events: int, until_s: float) -> float:
        """Events/s of `events` from the first commit on.

        The first commit ends the start of the interpreters; what it held took as long, and is left out with it.
        """
        return (events - self.first_commit_events) / max(until_s - self.first_commit_s, POLL_S)


class Supervised:
    """`python -m hotpath.supervisor` over a place."""

    def __init__(self, at: Place, procs: int, flags: list[str]) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}/status"
        environment = child_environment(at.environment | {"HOTPATH_STATUS_PORT": str(port)})
        command = [sys.executable, "-m", "hotpath.supervisor", "--procs", str(procs), *flags]
        # Standard output is for the result.
        self.process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=sys.stderr)

    def status(self) -> dict | None:
        """/status, or None while it is not served. Raises WorkersFailed when the supervisor has ended."""
        if self.process.poll() is not None:
            raise WorkersFailed(f"the supervisor ended with exit code {self.process.returncode}; see above")
        try:
            with urllib.request.urlopen(self._url, timeout=5) as reply:
                return json.load(reply)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def stop(self) -> None:
        """Drain, as a person would; by force when that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def supervised(at: Place, procs: int, flags: list[str]) -> Iterator[Supervised]:
    """The supervisor for the length of a `with` block; `flags` are further ones of its own."""
    running = Supervised(at, procs, flags)
    try:
        yield running
    finally:
        running.stop()


def watch_to_the_end(
    at: Place,
    running: Supervised,
    ends: dict[int, int],
    timeout_s: float,
    progress: Callable[[int], None] = lambda committed: None,
) -> Watch:
    """Look on until Postgres and Redis hold the logs to their `ends`; `progress` is told how much is committed.

    Raises Unavailable after `timeout_s`.
    """
    seen, began, looked_at = Watch(), time.perf_counter(), 0.0
    with (
        psycopg.connect(at.settings.postgres_dsn, autocommit=True) as postgres,
        redis.Redis.from_url(at.settings.redis_url, decode_responses=True) as views,
    ):
        while not seen.applied_s:
            now = time.perf_counter() - began
            if now > timeout_s:
                raise Unavailable(f"the pipeline did not reach the end of the topic in {timeout_s:g} s")
            if now - looked_at > 0.25 or not looked_at:
                looked_at = now
                _look_at_workers(running, seen, now)
            positions = positions_of(postgres, at)
            committed = sum(position for _, position in positions.values())
            progress(committed)
            if committed and not seen.first_commit_events:
                seen.first_commit_s, seen.first_commit_events = now, committed
            done = all(positions.get(number, (0, 0))[1] >= end for number, end in ends.items())
            if done and not seen.committed_s:
                seen.committed_s = now
            if done and _applied(views, at, positions, ends):
                seen.applied_s = time.perf_counter() - began
            else:
                time.sleep(POLL_S)
    _look_at_workers(running, seen, seen.applied_s)
    return seen


def _look_at_workers(running: Supervised, seen: Watch, now: float) -> None:
    status = running.status()
    if status is None:
        return
    seen.workers = worker_figures(status)
    seen.rss_bytes_max = max([seen.rss_bytes_max, *(worker["rss_bytes"] for worker in seen.workers)])
    seen.bot_counts_bytes_max = max(
        [seen.bot_counts_bytes_max, *(worker["bot_counts_bytes"] for worker in seen.workers)]
    )
    # What grows with people and sessions inside the windows is told by itself; all else must be flat.
    learned = ("bot_counts_bytes", "slots_bytes")
    beside = max(
        (worker["rss_bytes"] - sum(worker[name] for name in learned) for worker in seen.workers), default=0
    )
    known = [worker["slots_bytes"] for worker in seen.workers]
    seen.slots_bytes_max = max([seen.slots_bytes_max, *known])
    seen.memory.append((now, beside))


def memory_by_quarter(seen: Watch) -> list[float]:
    """The most that any worker took beside what it learned in each quarter of the run, MiB: flat is what is wanted."""
    peaks = [0.0] * 4
    for at_s, beside in seen.memory:
        quarter = min(int(4 * at_s / seen.committed_s), 3)
        peaks[quarter] = max(peaks[quarter], round(beside / 2**20, 1))
    return peaks


def positions_of(postgres: psycopg.Connection, at: Place) -> dict[int, tuple[int, int]]:
    """Partition to (log_id, next_offset), as Postgres has it."""
    rows = postgres.execute(
        "SELECT partition, log_id, next_offset FROM partition_state WHERE topic = %s", (at.settings.topic,)
    )
    return {partition: (log_id, next_offset) for partition, log_id, next_offset in rows}


def _applied(
    views: redis.Redis, at: Place, positions: dict[int, tuple[int, int]], ends: dict[int, int]
) -> bool:
    """Whether Redis holds every log to its end."""
    prefix = at.settings.redis_prefix
    for number, end in ends.items():
        log_id = positions[number][0]
        generation = views.get(keys.current(prefix, log_id))
        if generation is None:
            return False
        applied = views.hget(keys.part(prefix, log_id, int(generation), "state"), "applied")
        if applied is None or int(applied) < end:
            return False
    return True


def check(at: Place, filled: Filled, seen: Watch) -> None:
    """Raises WorkersFailed unless the ledger counts what the workload promised and every worker lived throughout."""
    restarts = sum(worker["restarts"] for worker in seen.workers)
    if restarts:
        raise WorkersFailed(
            f"workers were restarted {restarts} times: no figure would mean anything; see above"
        )
    check_ledger(at, filled.truth)
    with psycopg.connect(at.settings.postgres_dsn) as connection:
        stored = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    if stored != filled.truth["accepted"]:
        raise WorkersFailed(f"wrong answer: {stored} rows in events, not {filled.truth['accepted']}")


def check_ledger(at: Place, truth: dict[str, int]) -> None:
    """Raises WorkersFailed unless the ledger counts these numbers of each class."""
    columns = ", ".join(f"coalesce(sum({c.label}), 0)::bigint" for c in EventClass)
    with psycopg.connect(at.settings.postgres_dsn) as connection:
        counts = connection.execute(f"SELECT {columns} FROM ledger").fetchone()
    found = dict(zip((c.label for c in EventClass), counts, strict=True))
    if found != truth:
        wrong = {name: (found[name], count) for name, count in truth.items() if found[name] != count}
        raise WorkersFailed(f"wrong answer, class: (ledger, truth): {wrong}")


def stages_us(workers: list[dict], events: int) -> dict[str, float]:
    """CPU of all workers per event, by stage, microseconds."""
    stages: dict[str, float] = {}
    for worker in workers:
        for stage, seconds in (worker["stage_cpu_s"] or {}).items():
            stages[stage] = stages.get(stage, 0.0) + seconds / events * 1e6
    return {stage: round(us, 3) for stage, us in stages.items()}


def measure(at: Place, arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    """One run in a fresh place."""
    workload = Workload(
        arguments.events, partitions=PARTITIONS, users=arguments.users, as_if_rate=arguments.as_if_rate
    )
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("filling the topic", total=arguments.events)
        filled = fill(at.settings, workload, lambda sent: progress.update(task, completed=sent))
    console.print(
        f"filled {filled.events:,} events in {filled.seconds:.1f} s; starting {arguments.procs} workers"
    )
    ends = {number: end for number, (_, end) in log_ranges(at.settings, list(range(PARTITIONS))).items()}

    meter = CpuMeter(at.pids)
    with supervised(at, arguments.procs, arguments.flags) as running:
        seen = watch_to_the_end(at, running, ends, arguments.timeout)
        servers_us = meter.us_per(filled.events)
    check(at, filled, seen)
    proof = None
    if arguments.verify:
        console.print("the answer is right; now every row of it is compared with the log")
        proof = verify(at)
    console.print("the answer is right; now each server alone with the same rows")

    raw = _raw_copy(at, arguments.procs)
    consumed = consume_only(at.settings, PARTITIONS, at.pids["kafka"])
    parts_us = {
        "librdkafka": consumed.client_us,
        "broker": consumed.broker_us,
        "orjson": parse_us(consumed.sample),
        "postgres": raw["server_us_per_row"],
        "redis": apply_topic(at.settings, PARTITIONS, arguments.procs, at.pids["redis"]).server_us,
    }
    host = machine()
    bound = limit(host["cores"], parts_us)
    committed_per_s = seen.steady_rate(filled.events, seen.committed_s)
    applied_per_s = seen.steady_rate(filled.events, seen.applied_s)
    stages = stages_us(seen.workers, filled.events)
    return {
        "machine": host,
        "events": filled.events,
        "value_bytes_mean": round(filled.value_bytes / filled.events, 1),
        "procs": arguments.procs,
        "seconds_to_postgres": round(seen.committed_s, 3),
        "seconds_to_redis": round(seen.applied_s, 3),
        "seconds_to_first_commit": round(seen.first_commit_s, 3),
        "committed_per_s": round(committed_per_s),
        "applied_per_s": round(applied_per_s),
        "redis_heals": sum(worker["redis_heals"] for worker in seen.workers),
        "worker_us_by_stage": stages,
        "worker_us": round(sum(stages.values()), 3),
        "worker_process_us": round(sum(w["cpu_s"] for w in seen.workers) / filled.events * 1e6, 3),
        "server_us": servers_us,
        "worker_rss_mib_max": round(seen.rss_bytes_max / 2**20, 1),
        "bot_counts_mib_max": round(seen.bot_counts_bytes_max / 2**20, 1),
        "slots_mib_max": round(seen.slots_bytes_max / 2**20, 1),
        "worker_mib_by_quarter": memory_by_quarter(seen),
        "raw_copy": raw,
        "ratio_to_raw_copy": round(committed_per_s / raw["rows_per_s"], 3),
        "limit_us": parts_us,
        "limit_events_per_s": bound,
        "ratio_to_limit": round(applied_per_s / bound, 3) if bound else None,
        "classes": filled.truth,
        "proof": proof,
    }


def _raw_copy(at: Place, writers: int) -> dict[str, float | int | None]:
    """The rows of the run into another fresh database."""
    streams = rows_of(at.settings.postgres_dsn, writers)
    with database(at.settings.postgres_dsn, f"{at.settings.topic}_raw") as dsn:
        meter = CpuMeter({"postgres": server_pids(at.settings)["postgres"]})
        raw = copy_raw(dsn, streams)
        server_us = meter.us_per(raw.rows)["postgres"]
    return {
        "rows": raw.rows,
        "writers": writers,
        "seconds": round(raw.seconds, 3),
        "rows_per_s": round(raw.rows_per_s),
        "server_us_per_row": server_us,
    }


def above_zero(text: str) -> int:
    """A whole number that counts something; argparse says so when it is none."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be above 0, not {number}")
    return number


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0, or that of an explained error."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pipeline",
        description="Measure the pipeline end to end, on private servers, or on those of HOTPATH_* when set. "
        "Further flags go to the supervisor.",
    )
    parser.add_argument(
        "--events", type=above_zero, default=2_000_000, help="messages in the topic (%(default)s)"
    )
    parser.add_argument("--procs", type=above_zero, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--verify", action="store_true", help="prove every row by `hotpath verify` as well")
    parser.add_argument("--users", type=above_zero, default=USERS, help="people (%(default)s)")
    parser.add_argument(
        "--as-if-rate",
        type=above_zero,
        default=AS_IF_RATE,
        help="events per second of event time (%(default)s)",
    )
    parser.add_argument(
        "--timeout", type=above_zero, default=600, help="give up after so many seconds (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, given.flags = parser.parse_known_args(arguments)
    console = Console(stderr=True, highlight=False)
    # As by Ctrl-C: the supervisor and the servers end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        # A flag that the supervisor would refuse is told before anything is started for it.
        load(PipelineSettings, [*given.flags, "--procs", str(given.procs)], parser.prog)
        with ExitStack() as stack:
            environment = stack.enter_context(servers())
            at = stack.enter_context(place(environment, PARTITIONS))
            configure_logging(at.settings, "bench")
            result = measure(at, given, console)
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    show(result, table, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
