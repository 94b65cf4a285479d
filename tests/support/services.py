"""A service of ours as a process (`python -m api`, `python -m generator.app`), to be killed and started at will."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

from tests.support.pipeline import ROOT, free_port, wait_until


class ServiceProcess:
    """One service, at an address that stays when it is started again."""

    def __init__(self, module: str, prefix: str, settings: dict[str, str]) -> None:
        """`prefix`: of the settings for its address, such as HOTPATH_API. No HOTPATH_* of this process reach it."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", module]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOTPATH_")}
        self._environment = {**clean, **settings, f"{prefix}_PORT": str(port), "PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.process = subprocess.Popen(self._command, env=self._environment, cwd=ROOT)
        wait_until(self.healthy, f"{self._command[-1]} serves")

    def kill(self) -> None:
        """kill -9; nothing when it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def healthy(self) -> bool:
        assert self.process.poll() is None, f"{self._command[-1]} ended with {self.process.returncode}"
        try:
            return self.ask("/healthz")[0] == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def ask(
        self, path: str, body: bytes | None = None, media_type: str = "application/json"
    ) -> tuple[int, dict]:
        """GET, or PUT of a body: status and JSON."""
        method = "GET" if body is None else "PUT"
        request = urllib.request.Request(self.url + path, body, {"Content-Type": media_type}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


class GeneratorProcess(ServiceProcess):
    """`python -m generator.app`."""

    def __init__(self, settings: dict[str, str]) -> None:
        super().__init__("generator.app", "HOTPATH_GENERATOR", settings)

    def state(self) -> dict:
        return self.ask("/api/v1/state")[1]

    def change(self, **wished: object) -> dict:
        """Press buttons; the state that was answered."""
        status, state = self.ask("/api/v1/state", json.dumps(wished).encode())
        assert status == 200, state
        return state

    def settled(self) -> dict:
        """Stop it, and its state when nothing is sent or waits any more."""
        self.change(rate=0)

        def nothing_moves() -> dict | None:
            before, after = self.state(), self.state()
            still = after["reached_per_s"] == 0 and before["sent"] == after["sent"]
            return after if still and after["waiting"] == 0 else None

        return wait_until(nothing_moves, "nothing is sent or waits")
