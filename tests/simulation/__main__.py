"""Simulated worlds, many (`--first 1 --seeds 1000`) or one of them with its steps (`--seed 17 --trace`)."""

import argparse
import logging
import os
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation import mutants, stand_ins
from tests.simulation.runs import Failure, catch, run_parallel
from tests.simulation.scheduler import Violation
from tests.simulation.world import run

FAILURES_SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="print its steps")
    parser.add_argument("--first", type=int, default=1, help="the first of many")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="on so many cores")
    parser.add_argument("--mutants", action="store_true", help="look for a seed that catches each mutant")
    parser.add_argument("--mutant", metavar="NAME", help="with --seed: under this mutant")
    options = parser.parse_args()
    if options.mutants:
        return _catch_all()
    if options.seed is not None:
        return _one(options.seed, options.trace, options.mutant)
    return _many(options.first, options.seeds, options.workers)


def _one(seed: int, trace: bool, name: str | None) -> int:
    logging.disable(logging.CRITICAL)
    more = next((mutant.apply for mutant in mutants.MUTANTS if mutant.name == name), lambda stack: None)
    try:
        with stand_ins.installed(more):
            world = run(seed, print if trace else None)
    except Violation as violation:
        print(f"seed {seed}: {violation}")
        return 1
    print(f"seed {seed}: {world.scheduler.steps} steps, all is as it must be")
    return 0


def _many(first: int, count: int, workers: int) -> int:
    console = Console(stderr=True)
    began, steps = time.perf_counter(), 0
    failures: list[Failure] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("seeds", total=count)
        for seeds, their_steps, failed in run_parallel(first, count, workers):
            steps += their_steps
            failures += failed
            progress.update(task, advance=seeds, description=f"seeds, {len(failures)} failed")
    for failure in failures[:FAILURES_SHOWN]:
        print(f"seed {failure.seed}: {failure.violation}")
        print(f"    python -m tests.simulation --seed {failure.seed} --trace")
    took_s = time.perf_counter() - began
    print(f"{count:,} seeds from {first} on: {steps:,} steps in {took_s:.0f} s, {len(failures)} failed")
    return 1 if failures else 0


def _catch_all() -> int:
    table = Table("mutant", "what it does wrong", "seeds", "caught by")
    missed = 0
    for mutant in mutants.MUTANTS:
        found = catch(mutant)
        missed += found.failure is None
        shown = found.failure.violation[:100] if found.failure else "nothing"
        table.add_row(mutant.name, mutant.what, str(found.seeds or "-"), shown)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    print(f"{len(mutants.MUTANTS) - missed} of {len(mutants.MUTANTS)} mutants caught")
    return 1 if missed else 0


if __name__ == "__main__":
    # Sets of strings must come in the same order each time, or a seed would not replay.
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main())
