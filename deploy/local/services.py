"""Our own services, as `make up` starts them: one table.

A service is a Python module that is configured by HOTPATH_* alone. One that is to be added (another page,
another worker) is a row of SERVICES. The pages that two of them serve are built before, by pages.py.
"""

import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from deploy.local.home import LOOPBACK, Home, is_free
from deploy.local.processes import Process

REPOSITORY = Path(__file__).parents[2]
_START_DEADLINE_S = 60
_ALIVE_S = 1.0  # a service without a health page is taken for healthy when it has not ended for so long
# Loopback needs no proxy, whatever the environment says.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Service:
    """One service. Ports are asked for by name, so that `preferred_port` holds only when it is free."""

    name: str
    module: str
    what: str
    """What a person finds at its address."""
    arguments: tuple[str, ...] = ()
    listens_on: str = ""
    """Prefix of the settings for its address: PREFIX_HOST, PREFIX_PORT; clients find it in PREFIX_URL."""
    preferred_port: int | None = None
    health: str | None = None
    """Path that answers 200 when all is well; None for one that serves no pages."""
    stop_deadline_s: float = 10


SERVICES = (
    Service(
        name="supervisor",
        module="hotpath.supervisor",
        what="state of the workers, metrics",
        arguments=("--procs", os.environ.get("HOTPATH_PROCS", "2")),
        listens_on="HOTPATH_STATUS",
        preferred_port=9464,
        health="/healthz",
        stop_deadline_s=30,  # workers flush and commit within 20 s, then the supervisor kills them itself
    ),
    Service(
        name="api",
        module="api",
        what="dashboard and read API",
        listens_on="HOTPATH_API",
        preferred_port=8000,
        health="/healthz",
    ),
    Service(
        name="generator",
        module="generator.app",
        what="sends mock events, at the rate that its page's buttons choose",
        listens_on="HOTPATH_GENERATOR",
        preferred_port=4000,
        health="/healthz",
    ),
)


class RunningService:
    """A service of a home: its process and its address."""

    def __init__(self, home: Home, service: Service) -> None:
        self.home = home
        self.service = service
        self.process = Process(home.path, service.name)

    def choose_address(self) -> dict[str, str]:
        """The setting that tells its clients where it listens. A running one keeps its port."""
        if not self.service.listens_on:
            return {}
        port = self.home.kept_port(self.service.name)
        if port is None or self.process.identity() is None:
            port = self.home.port(self.service.name, self.service.preferred_port)
        return {f"{self.service.listens_on}_URL": f"http://{LOOPBACK}:{port}"}

    def lost_its_port(self) -> bool:
        """Whether it does not run, and a stranger listens on the port that was chosen for it."""
        port = self.home.kept_port(self.service.name)
        return port is not None and self.process.identity() is None and not is_free(port)

    def _listening(self) -> dict[str, str]:
        """The settings that tell it itself."""
        if not self.service.listens_on:
            return {}
        port = str(self.home.kept_port(self.service.name))
        return {f"{self.service.listens_on}_HOST": LOOPBACK, f"{self.service.listens_on}_PORT": port}

    @property
    def url(self) -> str | None:
        """Its address, if it serves pages."""
        port = self.home.kept_port(self.service.name)
        return f"http://{LOOPBACK}:{port}" if port and self.service.health else None

    def start(self, settings: dict[str, str]) -> None:
        """Start it with these HOTPATH_* settings, at the address chosen before; return when it is healthy.

        One that runs with the same settings already is left alone, one with others is started again.
        """
        settings = settings | self._listening()
        command = [sys.executable, "-m", self.service.module, *self.service.arguments]
        given = sha256(repr((command, sorted(settings.items()))).encode()).hexdigest()
        if self.process.identity() is None or self.process.started_as() != given:
            self.stop()
            # Unbuffered: what it says last, before it ends, is in the log.
            environment = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
            self.process.start(command, environment=environment, folder=REPOSITORY, started_as=given)
        since = time.monotonic()
        if self.service.health is None:
            self.process.wait_until(lambda: time.monotonic() - since > _ALIVE_S, "running", _START_DEADLINE_S)
        else:
            self.process.wait_until(self.healthy, "healthy", _START_DEADLINE_S)

    def healthy(self) -> bool:
        """Whether its health page says so; of one without, whether it runs."""
        if self.service.health is None:
            return self.process.identity() is not None
        try:
            with _DIRECTLY.open(f"{self.url}{self.service.health}", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> bool:
        """Stop it, gently at first; False when it was not running."""
        return self.process.stop(deadline_s=self.service.stop_deadline_s)
