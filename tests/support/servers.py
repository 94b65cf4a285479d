"""Private servers for tests: what the fixtures of tests/conftest.py hand out.

Everything is real, started by the code of `make up`, on ports and in a temporary folder of its own, once per
test session and only when a test asks for it. The servers are on a leash: they die with the test process,
even by kill -9; the folder such a process leaves behind is removed by the next session.

A test that kills or restarts a server starts one for itself (`another_redis`, `another_kafka`); the shared
ones stay up.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from deploy.local.home import Home
from deploy.local.kafka import KafkaServer
from deploy.local.postgres import PostgresServer
from deploy.local.processes import Identity, end, tagged
from deploy.local.redis_server import RedisServer

REPOSITORY = Path(__file__).parents[2]
_PREFIX = "hotpath-tests-"
_TEMPLATE = "hotpath_template"
_numbers = itertools.count(1)


class Databases:
    """Databases on one Postgres: cloned from a template that holds the schema, dropped when done with."""

    def __init__(self, server: PostgresServer) -> None:
        """Starts the server and applies the schema, once."""
        self.server = server
        server.start()
        self._run("CREATE DATABASE {}", _TEMPLATE)
        apply_schema(server.dsn(_TEMPLATE))

    def create(self, *, schema: bool = True) -> str:
        """DSN of a new database, with the schema or empty."""
        name = f"test_{next(_numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {}", name, _TEMPLATE if schema else "template0")
        return self.server.dsn(name)

    def clone(self, dsn: str) -> str:
        """DSN of a copy of a database, to which nobody may be connected."""
        name = f"test_{next(_numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {}", name, psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
        return self.server.dsn(name)

    def drop(self, dsn: str) -> None:
        """Drop a database made by `create`, ending the sessions that still use it."""
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])

    def _run(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.server.dsn("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def apply_schema(dsn: str) -> None:
    """Apply the schema as `make up` does: by `python -m hotpath.migrate`."""
    if find_spec("hotpath.migrate") is None:
        return
    subprocess.run(
        [sys.executable, "-m", "hotpath.migrate"],
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "HOTPATH_POSTGRES_DSN": dsn},
    )


def connection_environment(
    *, kafka: KafkaServer | None = None, topic: str = "", postgres_dsn: str = "", redis_url: str = ""
) -> dict[str, str]:
    """HOTPATH_* variables by which a process, or `hotpath.settings`, reaches what is given."""
    found = {}
    if kafka is not None:
        found["HOTPATH_KAFKA_BOOTSTRAP"] = kafka.bootstrap
        found["HOTPATH_KAFKA_OPTIONS"] = json.dumps(kafka.client_options)
    named = {"TOPIC": topic, "POSTGRES_DSN": postgres_dsn, "REDIS_URL": redis_url}
    return found | {f"HOTPATH_{name}": value for name, value in named.items() if value}


def start_redis(home: Home, *, durable: bool = False) -> RedisServer:
    """Another Redis, running. `durable`: it has its data again after a restart."""
    server = RedisServer(home, f"redis-{next(_numbers)}", durable=durable, leash=True)
    server.start()
    return server


def start_kafka(home: Home) -> KafkaServer:
    """Another Kafka, running, in a home of its own below `home`."""
    server = KafkaServer(Home(home.path / f"kafka-{next(_numbers)}"), small=True, leash=True)
    server.start()
    return server


def make_home() -> Home:
    """A temporary home, marked as this process's."""
    path = Path(tempfile.mkdtemp(prefix=_PREFIX))
    path.chmod(0o711)  # Postgres may have to run as another user
    (path / "owner.json").write_text(json.dumps(asdict(Identity.of(os.getpid()))))
    return Home(path)


def remove_home(home: Home) -> None:
    """End what still runs there (a test's own processes, too), then remove it."""
    for path in (home.path, *home.path.glob("kafka-*")):
        end(list(tagged(path)), signal.SIGKILL, 10)
    home.remove()


def remove_abandoned_homes() -> None:
    """Remove the homes of test processes that were killed before they could do it themselves."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, ValueError, TypeError):
            if not Identity(**json.loads((path / "owner.json").read_text())).alive():
                remove_home(Home(path))
                shutil.rmtree(path, ignore_errors=True)
