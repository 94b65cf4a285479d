"""End to end: `python -m bench.pipeline --events 2000000 --procs 2 [--json]`.

Fills a topic first, then times the supervisor over it until the last Postgres commit and the last Redis apply, and
checks the ledger against what was sent. In the same run, as many writers COPY the same rows raw: what this Postgres
takes when nothing else is to be done.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from confluent_kafka import Producer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.servers import Servers, private_servers
from bench.workload import Truth, standard_workload
from hotpath.events import EventClass

TOPIC = "events"
PARTITIONS = 16
POLL_S = 0.1
STALLED_S = 60

console = Console(stderr=True)


@dataclass
class Result:
    """What a run measured. Rates in events/s, costs in µs of CPU per event."""

    events: int
    procs: int
    cold_start_s: float
    committed_per_s: float
    applied_per_s: float
    worker_cpu_us: float
    stage_cpu_us: dict[str, float]
    server_cpu_us: dict[str, float]
    worker_rss_max_mib: float
    bot_counts_max_mib: float
    raw_copy_per_s: float
    share_of_raw_copy: float


def fill(servers: Servers, events: int, rate: float) -> Truth:
    """Produce the standard workload. Raises RuntimeError when a message is not delivered."""
    failed = []
    producer = Producer(
        {
            "bootstrap.servers": servers.kafka.bootstrap,
            **servers.kafka.client_options,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 50,
            "batch.size": 500_000,
            "queue.buffering.max.messages": 1_000_000,
            "on_delivery": lambda error, message: failed.append(error) if error else None,
        }
    )
    truth = Truth()
    columns = (TextColumn("filling the topic"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=events)
        for batch in standard_workload(events, rate, truth):
            for key, value in batch:
                while True:
                    try:
                        producer.produce(TOPIC, value, key)
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.poll(0)
            progress.advance(task, len(batch))
        producer.flush(60)
    if failed:
        raise RuntimeError(f"{len(failed)} messages were not delivered: {failed[0]}")
    return truth


class Supervisor:
    """The supervisor under test, and its status."""

    def __init__(self, servers: Servers, procs: int, settings: list[str]) -> None:
        port = servers.kafka.home.port("bench-status")
        self._url = f"http://127.0.0.1:{port}/status"
        self.environment = os.environ | {
            "HOTPATH_KAFKA_BOOTSTRAP": servers.kafka.bootstrap,
            "HOTPATH_KAFKA_OPTIONS": json.dumps(servers.kafka.client_options),
            "HOTPATH_TOPIC": TOPIC,
            "HOTPATH_POSTGRES_DSN": servers.postgres.dsn(),
            "HOTPATH_REDIS_URL": servers.redis.url,
            "HOTPATH_STATUS_PORT": str(port),
            "HOTPATH_LOG_LEVEL": "warning",
        }
        subprocess.run([sys.executable, "-m", "hotpath.migrate"], env=self.environment, check=True, stdout=2)
        command = [sys.executable, "-m", "hotpath.supervisor", "--procs", str(procs), *settings]
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(command, env=self.environment)

    def workers(self) -> list[dict[str, Any]]:
        """Status of the workers; none while the supervisor starts. Raises RuntimeError when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the supervisor ended with {self._process.returncode}")
        try:
            with urllib.request.urlopen(self._url, timeout=5) as reply:
                return json.load(reply)["workers"]
        except OSError:
            return []

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def watch(supervisor: Supervisor, servers: Servers, events: int, procs: int) -> Result:
    """Follow the supervisor until everything is committed and applied."""
    first_at = committed_at = applied_at = 0.0
    rss_max = bots_max = 0
    before = servers.cpu_s()
    columns = (TextColumn("pipeline"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=events)
        moved_at, seen = time.monotonic(), 0
        while not applied_at:
            time.sleep(POLL_S)
            now, workers = time.monotonic(), supervisor.workers()
            committed = sum(worker.get("rows_committed", 0) for worker in workers)
            rss_max = max([rss_max, *(worker.get("rss_bytes", 0) for worker in workers)])
            bots_max = max([bots_max, *(worker.get("bot_counts_bytes", 0) for worker in workers)])
            progress.update(task, completed=committed)
            if not first_at and any(worker.get("received") for worker in workers):
                first_at = now
            if committed > seen:
                moved_at, seen = now, committed
            if committed >= events:
                committed_at = committed_at or now
                if all(worker["redis_lag_events"] == 0 for worker in workers):
                    applied_at = now
            if now - moved_at > STALLED_S:
                raise RuntimeError(f"nothing was committed for {STALLED_S} s, at {committed} of {events}")
    servers_cpu = {name: (after - before[name]) / events * 1e6 for name, after in servers.cpu_s().items()}
    stages: dict[str, float] = {}
    for worker in workers:
        for stage, cpu_s in worker["stage_cpu_s"].items():
            stages[stage] = stages.get(stage, 0) + cpu_s / events * 1e6
    return Result(
        events=events,
        procs=procs,
        cold_start_s=first_at - supervisor.started_at,
        committed_per_s=events / (committed_at - first_at),
        applied_per_s=events / (applied_at - first_at),
        worker_cpu_us=sum(worker["cpu_s"] for worker in workers) / events * 1e6,
        stage_cpu_us=stages,
        server_cpu_us=servers_cpu,
        worker_rss_max_mib=rss_max / 2**20,
        bot_counts_max_mib=bots_max / 2**20,
        raw_copy_per_s=0,
        share_of_raw_copy=0,
    )


def check(dsn: str, truth: Truth) -> None:
    """Raises RuntimeError when the ledger is not what was sent: a fast wrong answer is none."""
    labels = [c.label for c in EventClass]
    with psycopg.connect(dsn) as connection:
        counts = connection.execute(
            f"SELECT {', '.join(f'sum({label})::bigint' for label in labels)} FROM ledger"
        )
        found = dict(zip(labels, counts.fetchone(), strict=True))
        stored = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    if found != truth.classes() or stored != truth.accepted:
        raise RuntimeError(
            f"sent {truth.classes()}, but the ledger has {found} and {stored} events are stored"
        )


def raw_copy(dsn: str, procs: int) -> float:
    """Rows/s of a COPY of the stored events into a table of the same definition, by `procs` writers at once."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE raw_copy (LIKE events INCLUDING ALL)")
        rows = connection.execute("SELECT count(*) FROM events").fetchone()[0]
        streams = []
        for writer in range(procs):
            query = f"COPY (SELECT * FROM events WHERE log_id % {procs} = {writer}) TO STDOUT (FORMAT BINARY)"
            with connection.cursor().copy(query) as copy:
                streams.append(b"".join(copy))

    def write(stream: bytes) -> None:
        with (
            psycopg.connect(dsn) as connection,
            connection.cursor() as cursor,
            cursor.copy("COPY raw_copy FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write(stream)

    threads = [threading.Thread(target=write, args=(stream,)) for stream in streams]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begin
    with psycopg.connect(dsn, autocommit=True) as connection:
        if connection.execute("SELECT count(*) FROM raw_copy").fetchone()[0] != rows:
            raise RuntimeError("the raw COPY lost rows")
        connection.execute("DROP TABLE raw_copy")
    return rows / elapsed


def show(result: Result) -> None:
    table = Table(title=f"{result.events:,} events, {result.procs} workers", title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("events/s until the last Postgres commit", f"{result.committed_per_s:,.0f}")
    table.add_row("events/s until the last Redis apply", f"{result.applied_per_s:,.0f}")
    table.add_row("raw COPY of the same rows, rows/s", f"{result.raw_copy_per_s:,.0f}")
    table.add_row("share of raw COPY", f"{result.share_of_raw_copy:.2f}")
    table.add_row("start to first message, s", f"{result.cold_start_s:.2f}")
    table.add_row("worker CPU, µs an event", f"{result.worker_cpu_us:.2f}")
    for stage, cost in result.stage_cpu_us.items():
        table.add_row(f"  {stage}", f"{cost:.2f}")
    for server, cost in result.server_cpu_us.items():
        table.add_row(f"{server} CPU, µs an event", f"{cost:.2f}")
    table.add_row("largest worker, MiB", f"{result.worker_rss_max_mib:.0f}")
    table.add_row("  of it bot counts, MiB", f"{result.bot_counts_max_mib:.0f}")
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--procs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=100_000, help="events a second of event time")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options, settings = parser.parse_known_args()
    try:
        with private_servers() as servers:
            servers.kafka.create_topic(TOPIC, PARTITIONS)
            truth = fill(servers, options.events, options.rate)
            supervisor = Supervisor(servers, options.procs, settings)
            try:
                result = watch(supervisor, servers, options.events, options.procs)
            finally:
                supervisor.stop()
            check(servers.postgres.dsn(), truth)
            result.raw_copy_per_s = raw_copy(servers.postgres.dsn(), options.procs)
            result.share_of_raw_copy = result.committed_per_s / result.raw_copy_per_s
    except (RuntimeError, KeyboardInterrupt) as error:
        print(f"bench: {error or 'stopped'}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
