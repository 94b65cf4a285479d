"""The whole pipeline under steady traffic, for benchmarks of what people see: workers, API, generator, as processes."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.harness import ROOT, Place, child_environment, free_port, place, servers
from bench.pipeline import PARTITIONS
from hotpath.errors import Unavailable, WorkersFailed

START_DEADLINE_S = 60
WARM_UP_S = 5.0


@dataclass
class Traffic:
    """What the generator was asked for; once it has ended, what it did."""

    rate: float
    reached: float = 0.0


@dataclass(frozen=True)
class Live:
    """A running stack without traffic."""

    at: Place
    api_url: str
    api_pid: int

    def summary(self) -> dict:
        """What /api/v1/summary replies; empty unless that is numbers."""
        try:
            with urllib.request.urlopen(f"{self.api_url}/api/v1/summary", timeout=5) as reply:
                return json.load(reply)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}

    @contextmanager
    def traffic(self, rate: float, warm_up_s: float) -> Iterator[Traffic]:
        """Events at a steady rate while the `with` block lasts; it begins when they have come through for a while.

        Raises Unavailable when they do not come through.
        """
        command = [sys.executable, "-m", "generator", f"--rate={rate:g}", "--summary=-"]
        process = subprocess.Popen(
            command,
            env=child_environment(self.at.environment),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        traffic = Traffic(rate)
        try:
            wait_for(
                lambda: (self.summary().get("events_per_s") or 0) >= rate / 2,
                f"{rate:,.0f} events/s in the summary",
            )
            time.sleep(warm_up_s)
            yield traffic
        finally:
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=60)[0]
        if process.returncode:
            raise WorkersFailed(f"the generator ended with exit code {process.returncode}")
        traffic.reached = json.loads(told)["reached_rate"]


@contextmanager
def live(procs: int, flags: list[str]) -> Iterator[Live]:
    """Servers (see bench.harness), workers and an API; `flags` are further ones of the supervisor."""
    with ExitStack() as stack:
        at = stack.enter_context(place(stack.enter_context(servers()), PARTITIONS))
        status_port, api_port = free_port(), free_port()
        environment = child_environment(
            at.environment
            | {
                "HOTPATH_STATUS_PORT": str(status_port),
                "HOTPATH_STATUS_URL": f"http://127.0.0.1:{status_port}",
                "HOTPATH_API_PORT": str(api_port),
            }
        )
        supervisor = [sys.executable, "-m", "hotpath.supervisor", "--procs", str(procs), *flags]
        stack.enter_context(_running(supervisor, environment))
        api = stack.enter_context(_running([sys.executable, "-m", "api"], environment))
        running = Live(at, f"http://127.0.0.1:{api_port}", api.pid)
        wait_for(running.summary, "a summary with numbers")
        yield running


def wait_for(
    condition: Callable[[], object], what: str, deadline_s: float = START_DEADLINE_S, pause_s: float = 0.2
) -> None:
    """Look every `pause_s` seconds. Raises Unavailable when that does not come about."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise Unavailable(f"{what} did not come about within {deadline_s:g} s")
        time.sleep(pause_s)


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    # Standard output is for the result.
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=sys.stderr)
    try:
        yield process
        if process.poll() is not None:
            raise WorkersFailed(f"{command[2]} ended with exit code {process.returncode}; see above")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
