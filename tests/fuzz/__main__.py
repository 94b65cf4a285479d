"""`python -m tests.fuzz --minutes 10`: looks for messages on which the stages and the plain reference differ.

Every core searches by itself, each round from another seed. What is found is shrunk, kept in tests/fuzz/corpus, and
from then on replayed by every run of the tests. Exit code 1 when anything was found.
"""

import argparse
import multiprocessing
import os
import queue
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hotpath.events import DETAIL_TEXTS, EventClass
from tests.fuzz import corpus
from tests.fuzz.search import search
from tests.support.agreement import Case

CRASHED = "a crash of the process"
SEEDS_APART = 1_000_000
ENDS_WITHIN_S = 60
"""A case may be shrunk when the time is over."""


class Crew:
    """The searching processes: started anew when one crashes, which is a find, too."""

    def __init__(self, procs: int, seconds: float, first_seed: int, folder: Path) -> None:
        self.told: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
        self._until = time.monotonic() + seconds
        self._first_seed = first_seed
        self._folder = folder
        self._lives = 0
        self._processes = dict(self._start() for _ in range(procs))

    def _start(self) -> tuple[Path, multiprocessing.Process]:
        now_at = self._folder / f"{self._lives}.json"
        seconds = max(0.0, self._until - time.monotonic())
        first_seed = self._first_seed + SEEDS_APART * self._lives
        self._lives += 1
        process = multiprocessing.get_context("spawn").Process(
            target=search, args=(self.told, now_at, seconds, first_seed), daemon=True
        )
        process.start()
        return now_at, process

    def crashed(self) -> list[tuple[str, str]]:
        """(kind, kept file) of the cases on which processes ended since the last call."""
        found = []
        for now_at, process in list(self._processes.items()):
            if process.exitcode not in (None, 0):
                del self._processes[now_at]
                kind = f"{CRASHED} by {process.exitcode}"
                if not now_at.exists():
                    raise SystemExit(f"a process could not start: {kind}; see above")
                found.append((kind, str(corpus.keep(Case.from_json(now_at.read_text()), kind))))
                self._processes.update([self._start()])
        return found

    @property
    def done(self) -> bool:
        """Whether all have come to their end."""
        return not any(process.is_alive() for process in self._processes.values())


def watch(crew: Crew, seconds: float, console: Console) -> tuple[int, Counter, list[tuple[str, str]]]:
    """Show the progress to the end; (cases, messages by outcome, finds)."""
    cases, outcomes, finds = 0, Counter(), []
    began = time.monotonic()
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=seconds)
        while True:
            done = crew.done
            new = crew.crashed()
            try:
                kind, *what = crew.told.get(timeout=0.2)
                if kind == "tried":
                    cases += what[0]
                    outcomes += what[1]
                else:
                    new.append(tuple(what))
            except queue.Empty:
                if done or time.monotonic() - began > seconds + ENDS_WITHIN_S:
                    return cases, outcomes, finds
            for name, path in new:
                progress.console.print(f"[red]found[/red] {name}: {path}", soft_wrap=True)
            finds += new
            elapsed = time.monotonic() - began
            text = f"{cases:,} cases, {outcomes.total():,} messages, {cases / elapsed:,.0f} cases/s, {len(finds)} found"
            progress.update(task, completed=min(elapsed, seconds), description=text)


def reached(outcomes: Counter) -> Table:
    """How often each class was reached, and by how many different faults."""
    table = Table(box=None, pad_edge=False)
    for heading in ("class", "messages", "faults"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for event_class in EventClass:
        own = {detail: count for (name, detail), count in outcomes.items() if name == event_class.label}
        table.add_row(event_class.label, f"{sum(own.values()):,}", str(len(own)))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long to search")
    parser.add_argument("--procs", type=int, default=os.cpu_count(), help="processes that search")
    parser.add_argument(
        "--seed", type=int, default=None, help="the first seed; another one each time if not given"
    )
    given = parser.parse_args()
    if given.minutes <= 0 or given.procs < 1:
        parser.error("--minutes and --procs must be above 0")
    first_seed = secrets.randbelow(1 << 40) if given.seed is None else given.seed
    console = Console(highlight=False)
    console.print(f"{given.minutes:g} minutes on {given.procs} processes, seed {first_seed}")
    with tempfile.TemporaryDirectory(prefix="hotpath-fuzz-") as folder:
        crew = Crew(given.procs, 60 * given.minutes, first_seed, Path(folder))
        cases, outcomes, finds = watch(crew, 60 * given.minutes, console)
    console.print(reached(outcomes))
    untouched = len(DETAIL_TEXTS) - len({detail for _, detail in outcomes})
    console.print(
        f"{cases:,} cases, {outcomes.total():,} messages; {untouched} kinds of faults were not reached"
    )
    for name, path in finds:
        print(f"found: {name}: {path}")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
