"""Many worlds: ranges of seeds, over the machine's cores, and every mutant until it is caught."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

from tests.simulation import mutants, stand_ins
from tests.simulation.mutants import Mutant
from tests.simulation.scheduler import Violation
from tests.simulation.world import run

CHUNK_SEEDS = 50


@dataclass(frozen=True)
class Failure:
    """A seed, and what did not hold in its world."""

    seed: int
    violation: str


@dataclass(frozen=True)
class Catch:
    """What became of a mutant: after how many seeds it was caught, and how; 0 when it was not."""

    mutant: Mutant
    seeds: int
    failure: Failure | None


def run_seeds(seeds: Iterable[int]) -> tuple[int, list[Failure]]:
    """Steps of all worlds of `seeds`, and those that failed."""
    logging.disable(logging.CRITICAL)  # every world is full of things that workers warn of
    steps, failures = 0, []
    with stand_ins.installed():
        for seed in seeds:
            try:
                steps += run(seed).scheduler.steps
            except Violation as violation:
                failures.append(Failure(seed, str(violation)))
    return steps, failures


def run_parallel(first: int, count: int, workers: int) -> Iterator[tuple[int, int, list[Failure]]]:
    """(seeds, steps, failures) of chunk after chunk as they are done, on so many cores."""
    chunks = iter(range(first, first + count, CHUNK_SEEDS))
    with ProcessPoolExecutor(workers) as pool:
        pending: dict[Future, range] = {}

        def submit() -> None:
            if (start := next(chunks, None)) is not None:
                seeds = range(start, min(start + CHUNK_SEEDS, first + count))
                pending[pool.submit(run_seeds, seeds)] = seeds

        for _ in range(2 * workers):
            submit()
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                seeds = pending.pop(future)
                submit()
                yield len(seeds), *future.result()


def catch(mutant: Mutant) -> Catch:
    """Look for a seed whose world shows what a mutant does."""
    logging.disable(logging.CRITICAL)
    with stand_ins.installed(mutant.apply):
        for number in range(mutants.SEEDS_MAX):
            seed = mutant.first + number
            try:
                run(seed)
            except Violation as violation:
                return Catch(mutant, number + 1, Failure(seed, str(violation)))
    return Catch(mutant, 0, None)
