"""How soon the live views are back after a FLUSHALL under traffic: `python -m bench.heal [--rate 10000] [--json]`.

    steady traffic ► FLUSHALL ► every log has live views that lack no more than a second's events
                   ► `hotpath consolidate --check` compares all of them with Postgres

Nobody runs anything: the workers heal by themselves. The aim is 5 s and 1 s more per million events inside the windows.
"""

import argparse
import json
import subprocess
import sys
import time

import psycopg
import redis
from rich.console import Console
from rich.progress import Progress

from bench.harness import ROOT, Place, child_environment, machine, place, servers
from bench.live import wait_for
from bench.load import Load
from bench.pipeline import PARTITIONS, above_zero, positions_of, supervised
from bench.workload import USERS
from hotpath.console import configure_logging
from hotpath.errors import HotpathError, WorkersFailed
from hotpath.views import link, store

LOOK_PAUSE_S = 0.02
DEADLINE_S = 120
AIM_S, AIM_S_PER_MILLION = 5.0, 1.0


def events_behind(postgres: psycopg.Connection, views: redis.Redis, at: Place) -> int | None:
    """Committed events that the views lack; None while a log has no live views."""
    positions = sorted(positions_of(postgres, at).values())
    replies = link.run(
        views, [link.state_script(at.settings.redis_prefix, log_id) for log_id, _ in positions]
    )
    states = [store.parse_state(reply) for reply in replies]
    if not states or any(state is None for state in states):
        return None
    pairs = zip(states, positions, strict=True)
    return sum(max(0, next_offset - state.applied) for state, (_, next_offset) in pairs)


def measure(at: Place, arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    """One outage. Raises HotpathError when the views do not come back, or not as they were."""
    with (
        supervised(at, arguments.procs, ["--log-level", "warning"]),
        psycopg.connect(at.settings.postgres_dsn, autocommit=True) as postgres,
        redis.Redis.from_url(at.settings.redis_url) as views,
        Load(at.settings, PARTITIONS, arguments.users, arguments.rate),
    ):
        wait_for(
            lambda: events_behind(postgres, views, at) is not None, "the views", DEADLINE_S, LOOK_PAUSE_S
        )
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("events flow", total=arguments.warm_up)
            for _ in range(arguments.warm_up):
                time.sleep(1)
                progress.advance(task)
        window_s = at.settings.top_pages_window_s
        query = "select count(*) from events where ts > now() - make_interval(secs => %s)"
        in_windows = postgres.execute(query, [window_s]).fetchone()[0]
        views.flushall()
        began = time.monotonic()
        wait_for(
            lambda: (behind := events_behind(postgres, views, at)) is not None and behind <= arguments.rate,
            "the way back",
            DEADLINE_S,
            LOOK_PAUSE_S,
        )
        took_s = time.monotonic() - began
        console.print(f"back after {took_s:.1f} s; now all of it is compared with Postgres")
        check = [sys.executable, "-m", "hotpath.consolidate", "--check"]
        done = subprocess.run(
            check, env=child_environment(at.environment), cwd=ROOT, capture_output=True, text=True
        )
    if done.returncode:
        raise WorkersFailed(f"consolidate --check found differences:\n{done.stdout}{done.stderr}")
    return {
        "machine": machine(),
        "rate": arguments.rate,
        "events_in_windows": in_windows,
        "seconds": round(took_s, 2),
        "aim_s": round(AIM_S + AIM_S_PER_MILLION * in_windows / 1e6, 2),
        "check": "clean",
    }


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0, or that of an explained error."""
    parser = argparse.ArgumentParser(prog="python -m bench.heal", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=above_zero, default=10_000, help="events/s meanwhile (%(default)s)")
    parser.add_argument("--users", type=above_zero, default=USERS, help="people (%(default)s)")
    parser.add_argument("--warm-up", type=above_zero, default=120, help="seconds before it (%(default)s)")
    parser.add_argument("--procs", type=above_zero, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        with servers() as environment, place(environment, PARTITIONS) as at:
            configure_logging(at.settings, "bench")
            result = measure(at, given, console)
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    if given.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['events_in_windows']:,} events in the windows: back {result['seconds']} s after a FLUSHALL at "
            f"{given.rate:,} events/s (aim: {result['aim_s']} s); consolidate --check: {result['check']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
