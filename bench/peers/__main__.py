"""`python -m bench.peers --events 2000000 [--only per_event hotpath ...]`: other tools on the same job, in one run.

fill the topic ► judge it by the reference ► hotpath ► each peer into a database of its own ► compare every row
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import psycopg
import redis
from rich.console import Console
from rich.progress import Progress

from bench.harness import Place, database, machine, place, redis_prefix, servers
from bench.live import wait_for
from bench.peers.catalogue import PEERS, Peer
from bench.peers.job import Job
from bench.peers.race import Finding, Race, find, settle, watch
from bench.peers.report import result_of, table, write
from bench.peers.truth import Digest, Truth, truth_of
from bench.pipeline import (
    PARTITIONS,
    Supervised,
    above_zero,
    check,
    supervised,
    watch_to_the_end,
)
from bench.results import FOLDER
from bench.show import show
from bench.workload import USERS, Filled, Workload, fill
from deploy.local.errors import StackError
from hotpath.console import configure_logging
from hotpath.errors import HotpathError
from hotpath.kafka import log_ranges

HOTPATH, HOTPATH_ROWS = "hotpath", "hotpath_rows"
STATUS_PAUSE_S = 0.02
AWAY_MAX_MS = 600_000
NAMES = (HOTPATH, HOTPATH_ROWS, *(peer.name for peer in PEERS))


class Races:
    """What all of them share: the place, the truth, and how long one may take."""

    def __init__(
        self, at: Place, truth: Truth, filled: Filled, arguments: argparse.Namespace, console: Console
    ):
        self._at = at
        self._truth = truth
        self._filled = filled
        self._procs = arguments.procs
        self._partitions = arguments.partitions
        self._timeout_s = arguments.timeout
        self._console = console

    def hotpath(self) -> dict[str, object]:
        """The pipeline itself: its database is the place's. Raises WorkersFailed when any answer is wrong."""
        return self._run(
            self._at,
            HOTPATH,
            "exactly once; live views follow every commit",
            "checks, bots and late events told apart, COPY with ledger, live views of users, sessions and pages",
        )

    def hotpath_rows(self) -> dict[str, object]:
        """The pipeline while Redis answers nobody: rows alone, as most of the others write them. Raises as above."""
        name = f"{self._at.settings.topic}_{HOTPATH_ROWS}"
        with (
            database(self._at.settings.postgres_dsn, name) as dsn,
            redis_prefix(self._at.settings.redis_url, name),
        ):
            settings = self._at.settings.model_copy(update={"postgres_dsn": dsn, "redis_prefix": name})
            environment = self._at.environment | {
                "HOTPATH_POSTGRES_DSN": dsn,
                "HOTPATH_REDIS_PREFIX": name,
            }
            return self._run(
                replace(self._at, settings=settings, environment=environment),
                f"{HOTPATH}, Redis away",
                "exactly once; live views catch up when Redis is back",
                "checks, bots and late events told apart, COPY with ledger; nothing in Redis meanwhile",
                redis_away,
            )

    def _run(
        self,
        at: Place,
        title: str,
        guarantee: str,
        does: str,
        meanwhile: Callable[[Place, Supervised], AbstractContextManager] = lambda at, running: nullcontext(),
    ) -> dict[str, object]:
        ends = {
            number: end for number, (_, end) in log_ranges(at.settings, list(range(self._partitions))).items()
        }
        dsn, wanted = at.settings.postgres_dsn, self._truth.accepted
        self._make_days(dsn)
        with supervised(at, self._procs, []) as running:
            with meanwhile(at, running):
                race = self._watch(title, dsn, wanted, [running.process.pid], running)
            seen = watch_to_the_end(at, running, ends, self._timeout_s)
        check(at, self._filled, seen)
        return self._told(title, guarantee, does, race, find(dsn, wanted))

    def peer(self, peer: Peer) -> dict[str, object]:
        """One of the others."""
        at, name = self._at, f"{self._at.settings.topic}_{peer.name}"
        wanted = self._truth.accepted if peer.tells_apart else self._truth.valid
        with ExitStack() as stack:
            dsn = stack.enter_context(database(at.settings.postgres_dsn, name))
            stack.enter_context(redis_prefix(at.settings.redis_url, name))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hotpath-peer-")))
            self._make_days(dsn)
            job = Job(self._truth.clean if peer.clean else at.settings, dsn, name, self._procs)
            with peer.start(job, folder) as running:
                race = self._watch(peer.name, dsn, wanted, running.pids, running)
                settle(dsn, wanted)
            return self._told(peer.title, peer.guarantee, peer.does, race, find(dsn, wanted))

    def _watch(self, name: str, dsn: str, wanted: Digest, pids: list[int], running: object) -> Race:
        peers = {f"peer{number}": pid for number, pid in enumerate(pids)}
        alive = running.status if isinstance(running, Supervised) else running.check
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task(name, total=wanted.rows)
            return watch(
                dsn,
                wanted,
                self._truth.bytes_per_row,
                peers | self._at.pids,
                alive,
                lambda rows: progress.update(task, completed=rows),
                self._timeout_s,
            )

    def _make_days(self, dsn: str) -> None:
        """The days that hotpath's maintenance would make: nobody is to find only the default partition."""
        with psycopg.connect(dsn) as connection:
            for day in self._truth.days:
                connection.execute("SELECT make_time_partition('events', %s)", (day,))

    def _told(self, title: str, guarantee: str, does: str, race: Race, finding: Finding) -> dict[str, object]:
        result = result_of(title, guarantee, does, race, finding)
        self._console.print(f"{title}: {result['rows_per_s'] or 0:,} rows/s; {finding.said}")
        return result


@contextmanager
def redis_away(at: Place, running: Supervised) -> Iterator[None]:
    """Once the supervisor is up, Redis answers no script and no write until the block ends."""
    with redis.Redis.from_url(at.settings.redis_url) as client:
        wait_for(running.status, "the supervisor's status", pause_s=STATUS_PAUSE_S)
        client.client_pause(AWAY_MAX_MS, all=False)  # not even an end of the pause is heard in one of all
        try:
            yield
        finally:
            client.client_unpause()


@contextmanager
def prepared(names: list[str], console: Console) -> Iterator[None]:
    """Environments are made before any server runs."""
    for peer in PEERS:
        if peer.name in names:
            with console.status(f"making the environment of {peer.name}"):
                peer.prepare()
    yield


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    """Every peer asked for, one after the other, on one topic."""
    with ExitStack() as stack:
        stack.enter_context(prepared(arguments.only, console))
        at = stack.enter_context(place(stack.enter_context(servers()), arguments.partitions))
        configure_logging(at.settings, "bench")
        progress = stack.enter_context(Progress(console=console, transient=True))
        task = progress.add_task("filling the topic", total=arguments.events)
        workload = Workload(arguments.events, partitions=arguments.partitions, users=arguments.users)
        filled = fill(at.settings, workload, lambda sent: progress.update(task, completed=sent))
        task = progress.add_task("judging it by the reference", total=arguments.events)
        truth = stack.enter_context(
            truth_of(at, arguments.partitions, lambda read: progress.update(task, completed=read))
        )
        progress.stop()
        races = Races(at, truth, filled, arguments, console)
        found = {}
        for name, race in ((HOTPATH, races.hotpath), (HOTPATH_ROWS, races.hotpath_rows)):
            if name in arguments.only:
                found[name] = race()
        for peer in PEERS:
            if peer.name in arguments.only:
                try:
                    found[peer.name] = races.peer(peer)
                except HotpathError as error:
                    console.print(f"[red]{peer.title}: no result: {error}[/red]")
                    found[peer.name] = {"title": peer.title, "failed": str(error)}
        return {
            "machine": machine(),
            "events": filled.events,
            "value_bytes_mean": round(filled.value_bytes / filled.events, 1),
            "procs": arguments.procs,
            "peers": found,
        }


def main(arguments: list[str]) -> int:
    """Measure, print and write down; exit code 1 when a peer stored something wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description="Other tools on the same job: one topic into a table like ours, in one run. "
        "On private servers, or on those of HOTPATH_* when set.",
    )
    parser.add_argument(
        "--events", type=above_zero, default=2_000_000, help="messages in the topic (%(default)s)"
    )
    parser.add_argument("--users", type=above_zero, default=USERS, help="people (%(default)s)")
    parser.add_argument("--procs", type=above_zero, default=2, help="processes of each peer (%(default)s)")
    parser.add_argument(
        "--partitions", type=above_zero, default=PARTITIONS, help="of the topic (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="these alone")
    parser.add_argument(
        "--timeout", type=above_zero, default=1_800, help="give a peer up after so many seconds (%(default)s)"
    )
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder for peers.json, .png and .md")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        result = measure(given, console)
    except (HotpathError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 3)
    write(result, given.results)
    show(result, table, given.json)
    return 0 if all(found.get("right") for found in result["peers"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
