"""The whole private stack: servers, schema, topic and services, brought up and down in order.

Up:   Postgres, Redis, Kafka ► topic, schema ► `env` ► services, in the order of their table.
Down: services, last one first ► Kafka, Redis, Postgres ► whatever else carries the home's tag.

Both may be run again at any time, also after kill -9 of anything: what runs and is right is left alone.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Protocol

from deploy.local import jars
from deploy.local.errors import StackError
from deploy.local.home import Home
from deploy.local.kafka import KafkaServer
from deploy.local.postgres import PostgresServer
from deploy.local.processes import Process, end, tagged, write_private
from deploy.local.redis_server import RedisServer
from deploy.local.services import REPOSITORY, SERVICES, RunningService, Service

TOPIC = "events"
PARTITIONS = 16
_STRAYS_DEADLINE_S = 5
_ADDRESS_ATTEMPTS = 3
"""A stranger, such as another stack that starts beside this one, may take a port between its choice and its use."""

Step = Callable[[str], AbstractContextManager[object]]
"""Shows what is being done: `with step("starting Kafka"): ...`."""


class Server(Protocol):
    """What Postgres, Redis and Kafka have in common."""

    process: Process

    def start(self) -> None: ...
    def healthy(self) -> bool: ...
    def stop(self) -> None: ...


class Stack:
    """The stack of one home."""

    def __init__(self, home: Home, services: Sequence[Service] = SERVICES) -> None:
        self.home = home
        self.postgres = PostgresServer(home)
        self.redis = RedisServer(home)
        self.kafka = KafkaServer(home)
        self.servers: dict[str, Server] = {
            "postgres": self.postgres,
            "redis": self.redis,
            "kafka": self.kafka,
        }
        self.services = [RunningService(home, service) for service in services]

    def up(self, step: Step) -> None:
        """Start what does not run and return when all is healthy. Raises StackError."""
        with self.home.locked():
            with step("fetching Kafka (once)"):
                jars.folder()
            for name, server in self.servers.items():
                with step(f"starting {name}"):
                    server.start()
            self._prepare(step)
            for attempt in range(1, _ADDRESS_ATTEMPTS + 1):
                try:
                    self._start_services(step)
                    return
                except StackError:
                    lost = any(running.lost_its_port() for running in self.services)
                    if not lost or attempt == _ADDRESS_ATTEMPTS:
                        raise

    def _start_services(self, step: Step) -> None:
        """Choose their addresses, tell clients, start them. One that runs with other settings starts again."""
        settings = self.settings()
        write_private(self.home.path / "env", shell_lines(settings))
        write_private(self.home.path / "kafka.conf", self._kafka_lines())
        for running in self.services:
            with step(f"starting {running.service.name}"):
                running.start(settings)

    def down(self, step: Step) -> int:
        """Stop everything; how many processes that were. Data and choices stay."""
        if not self.home.path.exists():
            return 0
        with self.home.locked():
            return self._stop(step)

    def clean(self, step: Step) -> None:
        """Stop everything and remove all data."""
        if self.home.path.exists():
            with self.home.locked():
                self._stop(step)
                with step("removing the data"):
                    self.home.remove()

    def settings(self) -> dict[str, str]:
        """HOTPATH_* variables by which services and users reach the stack."""
        found = {
            "HOTPATH_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "HOTPATH_KAFKA_OPTIONS": json.dumps(self.kafka.client_options, separators=(",", ":")),
            "HOTPATH_TOPIC": TOPIC,
            "HOTPATH_POSTGRES_DSN": self.postgres.dsn(),
            "HOTPATH_REDIS_URL": self.redis.url,
        }
        for running in self.services:
            found |= running.choose_address()
        return found

    def _kafka_lines(self) -> str:
        """How clients built on librdkafka (kcat -F) reach Kafka."""
        options = {"bootstrap.servers": self.kafka.bootstrap, **self.kafka.client_options}
        return "".join(f"{name}={value}\n" for name, value in options.items())

    def _prepare(self, step: Step) -> None:
        """What the services need before they start."""
        with step("making the topic"):
            self.kafka.create_topic(TOPIC, PARTITIONS)
        if find_spec("hotpath.migrate"):
            with step("applying the schema"):
                migrate(self.postgres.dsn())

    def _stop(self, step: Step) -> int:
        stopped = 0
        for running in reversed(self.services):
            if running.process.identity() is not None:
                with step(f"stopping {running.service.name}"):
                    stopped += running.stop()
        for name, server in reversed(self.servers.items()):
            if server.process.identity() is not None:
                with step(f"stopping {name}"):
                    server.stop()
                    stopped += 1
        # Children of services that were killed, services that are no longer in the table, a server whose
        # record was lost: none of them may stay.
        strays = list(tagged(self.home.path))
        if strays:
            with step("stopping what was left behind"):
                end(strays, signal.SIGTERM, _STRAYS_DEADLINE_S)
        for record in (self.home.path / "run").glob("*.json"):
            record.unlink()
        return stopped + len(strays)


def migrate(dsn: str) -> None:
    """Bring a database to the schema of this checkout. Raises StackError with what the program said."""
    done = subprocess.run(
        [sys.executable, "-m", "hotpath.migrate"],
        cwd=REPOSITORY,
        env={**os.environ, "HOTPATH_POSTGRES_DSN": dsn},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StackError(f"the schema could not be applied: {(done.stderr or done.stdout).strip()}")


def shell_lines(settings: dict[str, str]) -> str:
    """Settings as a file to be sourced: by `. env` alone they reach the programs started afterwards."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join([*lines, f"export {' '.join(settings)}"]) + "\n"
