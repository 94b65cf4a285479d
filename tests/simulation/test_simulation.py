"""Two thousand seeds, and every mutant caught. A failing seed is printed with the command that replays it."""

import os
import subprocess
import sys

import pytest

from tests.simulation import mutants
from tests.simulation.mutants import MUTANTS, in_code, in_query, in_script

SEEDS_PER_TEST = 500


def simulation(*arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own: the stand-ins change modules, and the hash seed must be fixed."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("first", range(1, 2_001, SEEDS_PER_TEST))
def test_every_world_ends_as_it_must(first):
    done = simulation("--first", str(first), "--seeds", str(SEEDS_PER_TEST))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_replays_exactly():
    traces = [simulation("--seed", "4", "--trace").stdout for _ in range(2)]
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) > 100


def test_every_mutant_is_caught():
    done = simulation("--mutants")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(MUTANTS)} of {len(MUTANTS)} mutants caught" in done.stdout
    assert len(MUTANTS) >= 15


@pytest.mark.parametrize("change", [in_query, in_script])
def test_a_mutant_whose_text_is_gone_fails(change):
    with pytest.raises(mutants.Gone):
        change("raise_epochs" if change is in_query else "apply", "no such text", "")


def test_a_mutant_whose_code_is_gone_fails():
    with pytest.raises(mutants.Gone):
        in_code(mutants.Pipeline, "_append", ("no such text", ""))
