"""The command `hotpath` finds its commands and says what there is."""

import subprocess
import sys
from importlib import import_module

import pytest

from hotpath.cli import COMMANDS
from tests.support.pipeline import ROOT


def hotpath(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "hotpath", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_main(command):
    assert callable(import_module(command.module).main)


def test_help_names_every_command():
    done = hotpath("--help")
    assert done.returncode == 0
    assert all(f"  {command.name} " in done.stdout for command in COMMANDS)


def test_a_command_gets_its_flags():
    done = hotpath("topic", "--help")
    assert done.returncode == 0
    assert "--replication-factor" in done.stdout


def test_an_unknown_command_is_told_in_one_line():
    done = hotpath("verfy")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'verfy'" in done.stderr
