"""Private servers for a benchmark, as `make up` runs them, in a folder of their own that is removed afterwards."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.home import Home
from deploy.local.kafka import KafkaServer
from deploy.local.postgres import PostgresServer
from deploy.local.redis_server import RedisServer


@dataclass(frozen=True)
class Servers:
    """The three servers, running."""

    kafka: KafkaServer
    postgres: PostgresServer
    redis: RedisServer


@contextmanager
def private_servers() -> Iterator[Servers]:
    """Kafka, Postgres and Redis for the length of a `with` block; they die with this process, however it dies."""
    folder = Path(tempfile.mkdtemp(prefix="hotpath-bench-"))
    folder.chmod(0o711)  # Postgres runs as another user when we are root
    home = Home(folder / "home")
    home.make()
    servers = Servers(
        KafkaServer(home, leash=True), PostgresServer(home, leash=True), RedisServer(home, leash=True)
    )
    try:
        for server in (servers.postgres, servers.redis, servers.kafka):
            server.start()
        yield servers
    finally:
        for server in (servers.kafka, servers.redis, servers.postgres):
            server.stop()
        home.remove()
        shutil.rmtree(folder, ignore_errors=True)
