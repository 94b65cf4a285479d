"""What is wrong with a command's settings or servers is said in one line with the right exit code, by every command.

All are started at once: most of the time is waiting for servers that are not there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from hotpath.cli import COMMANDS
from tests.support.pipeline import ROOT, free_port

AWAY = {
    "HOTPATH_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "HOTPATH_POSTGRES_DSN": "postgresql://127.0.0.1:1/x",
    "HOTPATH_REDIS_URL": "redis://127.0.0.1:1/0",
    "HOTPATH_STATUS_PORT": str(free_port()),
}


@dataclass(frozen=True)
class Fault:
    """A command line, settings beside those of `AWAY`, and what must come of it."""

    arguments: str
    exit_code: int
    says: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join([self.arguments, *(f"{name}={value}" for name, value in self.settings.items())])


FAULTS = [
    # Some want an action first, and say that; all say where their help is.
    *(Fault(f"{command.module} --no-such-flag", 2, "--help") for command in COMMANDS),
    *(
        Fault(f"{module} --no-such-flag", 2, "--no-such-flag")
        for module in ("api", "generator", "bench.pipeline")
    ),
    Fault("hotpath.supervisor", 3, "HOTPATH_KAFKA_BOOTSTRAP"),
    Fault("hotpath.topic", 3, "HOTPATH_KAFKA_BOOTSTRAP"),
    Fault("hotpath.migrate", 3, "HOTPATH_POSTGRES_DSN"),
    Fault("hotpath.top --once", 3, "HOTPATH_STATUS_URL"),
    Fault("generator --events 1", 3, "HOTPATH_KAFKA_BOOTSTRAP"),
    Fault("bench.pipeline --events 1", 3, "HOTPATH_KAFKA_BOOTSTRAP"),
    Fault("hotpath.supervisor --procs 0", 2, "--procs"),
    Fault("hotpath.supervisor", 2, "HOTPATH_KAFKA_BOOTSTRAP", {"HOTPATH_KAFKA_BOOTSTRAP": ""}),
    Fault("hotpath.supervisor", 2, "HOTPATH_REDIS_URL", {"HOTPATH_REDIS_URL": "http://x"}),
    Fault("hotpath.supervisor", 2, "HOTPATH_REDIS_URL", {"HOTPATH_REDIS_URL": "redis://h:port"}),
    Fault("hotpath.supervisor", 3, "HOTPATH_KAFKA_OPTIONS", {"HOTPATH_KAFKA_OPTIONS": "no.such.option=1"}),
    Fault("hotpath.migrate", 2, "HOTPATH_POSTGRES_DSN", {"HOTPATH_POSTGRES_DSN": "post gres:/"}),
    Fault("api", 2, "HOTPATH_REDIS_URL", {"HOTPATH_REDIS_URL": "http://x"}),
    Fault("bench.pipeline", 2, "HOTPATH_REDIS_URL", {"HOTPATH_REDIS_URL": "http://x"}),
    Fault("bench.pipeline", 2, "HOTPATH_KAFKA_OPTIONS", {"HOTPATH_KAFKA_OPTIONS": "nonsense"}),
]


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, subprocess.Popen]]:
    """Every command, by its name, started."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTPATH_")}
    started = {
        fault.name: subprocess.Popen(
            [sys.executable, "-m", *fault.arguments.split()],
            cwd=ROOT,
            env=kept | AWAY | fault.settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for fault in FAULTS
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_told_in_one_line(fault: Fault, running: dict[str, subprocess.Popen]):
    out, said = running[fault.name].communicate(timeout=120)
    assert running[fault.name].returncode == fault.exit_code, said
    assert fault.says in said
    assert said.count("\n") == 1 and not out, said


def test_a_benchmark_wants_all_servers_or_none():
    done = subprocess.run(
        [sys.executable, "-m", "bench.pipeline"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOTPATH_REDIS_URL": AWAY["HOTPATH_REDIS_URL"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "HOTPATH_POSTGRES_DSN" in done.stderr and done.stderr.count("\n") == 1
