"""The read API under load, beside a pipeline at work: `python -m bench.api [--json]`.

    as many requests as it answers ► 500 requests/s: their latency ► 500 open streams ► both together

The load comes from processes of their own (bench.http_load), which say how much CPU they took. CPU of the API is its
process's; the servers, the workers, the generator and the load share the machine with it.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from bench.harness import ROOT, child_environment, cpu_seconds, machine
from bench.live import WARM_UP_S, Live, live
from bench.show import show
from hotpath.console import configure_logging
from hotpath.errors import HotpathError, WorkersFailed

PATHS = (
    "/api/v1/summary",
    "/api/v1/active-users",
    "/api/v1/top-pages?limit=5",
    "/api/v1/users?limit=20",
    "/api/v1/top-pages?limit=100",
)
"""What is asked for, in turn."""
STREAM = "/api/v1/stream"


def load(running: Live, seconds: float, *flags: str, paths: tuple[str, ...] = PATHS) -> dict[str, object]:
    """What a load generator tells, and the API's share of a core meanwhile. Raises WorkersFailed when it fails."""
    port = running.api_url.rpartition(":")[2]
    command = [
        sys.executable,
        "-m",
        "bench.http_load",
        f"--port={port}",
        f"--seconds={seconds:g}",
        *flags,
        *paths,
    ]
    before, began = cpu_seconds(running.api_pid), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=child_environment({}), stdout=subprocess.PIPE)
    if done.returncode:
        raise WorkersFailed(f"the load generator ended with exit code {done.returncode}; see above")
    cores = (cpu_seconds(running.api_pid) - before) / (time.perf_counter() - began)
    return json.loads(done.stdout) | {"api_cores": round(cores, 3)}


def measure(running: Live, given: argparse.Namespace, console: Console) -> dict[str, object]:
    """All of it, under steady traffic."""
    seconds, streams = given.seconds, f"--streams={given.streams}"
    steady = (f"--rate={given.requests:g}",)
    with running.traffic(given.rate, given.warm_up) as traffic, ThreadPoolExecutor(2) as pool:
        console.print("as many requests as it answers")
        most = load(running, seconds)
        console.print(f"{given.requests:g} requests/s")
        calm = load(running, seconds, *steady)
        console.print(f"{given.streams} streams")
        listening = load(running, seconds, streams, paths=(STREAM,))
        console.print("both")
        together = pool.submit(load, running, seconds + 4, streams, paths=(STREAM,))
        time.sleep(2)
        beside = load(running, seconds, *steady)
        beside_streams = together.result()
    return {
        "machine": machine(),
        "events_per_s": traffic.reached,
        "most": most,
        "steady": calm,
        "streams": listening,
        "steady_beside_streams": beside,
        "streams_beside_requests": beside_streams,
    }


def table(result: dict) -> Table:
    """The result for people."""
    shown = Table(box=None, pad_edge=False, title=f"beside {result['events_per_s']:,.0f} events/s")
    for name in ("load", "answered", "failed", "p50 ms", "p99 ms", "max ms", "API cores", "load's cores"):
        shown.add_column(name, justify="left" if name == "load" else "right")
    names = {
        "most": "requests, as many as it answers",
        "steady": "requests at a rate",
        "steady_beside_streams": "the same, beside streams",
        "streams": "streams",
        "streams_beside_requests": "the same, beside requests",
    }
    for key, name in names.items():
        row = result[key]
        if "streams" in row:
            name = f"{row['streams']} {name}" if key == "streams" else name
            answered = f"{row['events_per_stream_and_s_mean']} events/s each"
            failed = row["streams"] - min(row["still_open"], row["served"])
        else:
            answered, failed = f"{row['requests_per_s']:,.0f}/s", row["failed"]
        times = [str(row.get(part, "-")) for part in ("p50_ms", "p99_ms", "max_ms")]
        shown.add_row(name, answered, str(failed), *times, str(row["api_cores"]), str(row["own_cores"]))
    return shown


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0, or that of an explained error."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.api",
        description="Measure the read API while the pipeline works. Further flags go to the supervisor.",
    )
    parser.add_argument("--rate", type=float, default=10_000, help="events/s meanwhile (%(default)s)")
    parser.add_argument("--requests", type=float, default=500, help="steady requests/s (%(default)s)")
    parser.add_argument("--streams", type=int, default=500, help="open streams (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of each load (%(default)s)")
    parser.add_argument(
        "--warm-up", type=float, default=WARM_UP_S, help="seconds of traffic before it counts (%(default)s)"
    )
    parser.add_argument("--procs", type=int, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, flags = parser.parse_known_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        with live(given.procs, flags) as running:
            configure_logging(running.at.settings, "bench")
            result = measure(running, given, console)
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    show(result, table, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
