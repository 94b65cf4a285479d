"""What benchmarks share: servers to run against, places of their own on them, and CPU accounting.

State owned: one database, one topic and one prefix in Redis per `Place`, removed again when its `with` block
ends; the private servers (unless the environment names others) are those of `bench.servers`.

CPU is read from the kernel's accounting of the server processes, found by the port they listen on; of servers
on other machines it is None.
"""

import json
import os
import platform
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic
from psycopg import sql

from bench.servers import private_servers
from deploy.local.kafka import TOPIC_CONFIG
from hotpath import migrate
from hotpath.errors import ConfigError, Unavailable
from hotpath.kafka import admin_client, check_broker, why
from hotpath.preflight import check_redis
from hotpath.settings import Settings, load

ROOT = Path(__file__).parents[1]
NEEDED = ("HOTPATH_KAFKA_BOOTSTRAP", "HOTPATH_POSTGRES_DSN", "HOTPATH_REDIS_URL")
"""With all of these set, those servers are used; with none, private ones are started."""


@dataclass(frozen=True)
class Place:
    """A database with the schema, an empty topic and an empty prefix in Redis, for one run."""

    environment: dict[str, str]  # HOTPATH_*, complete
    settings: Settings
    pids: dict[str, int | None]  # of kafka, postgres and redis


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """HOTPATH_* of running servers: the environment's, or private ones that end with the block.

    Raises ConfigError or Unavailable when the environment names some of them, or ones that do not answer.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith("HOTPATH_")}
    lacking = [name for name in NEEDED if name not in given]
    if not lacking:
        _check(given)
        yield given
        return
    if len(lacking) < len(NEEDED):
        raise ConfigError(
            f"{', '.join(lacking)} must be set, too; with none of {', '.join(NEEDED)}, private ones run"
        )
    with private_servers() as private:
        yield {
            "HOTPATH_KAFKA_BOOTSTRAP": private.kafka.bootstrap,
            "HOTPATH_KAFKA_OPTIONS": json.dumps(private.kafka.client_options),
            "HOTPATH_POSTGRES_DSN": private.postgres.dsn(),
            "HOTPATH_REDIS_URL": private.redis.url,
        }


def _check(environment: dict[str, str]) -> None:
    """Raises ConfigError or Unavailable with one line about the first server at fault."""
    settings = load(Settings, [], "bench")
    check_broker(settings)
    with migrate.connect(environment["HOTPATH_POSTGRES_DSN"]):
        pass
    check_redis(settings)


@contextmanager
def place(
    environment: dict[str, str], partitions: int = 16, topic_config: dict[str, str] = TOPIC_CONFIG
) -> Iterator[Place]:
    """A fresh place on the servers of `environment`."""
    name = f"bench_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        dsn = stack.enter_context(database(environment["HOTPATH_POSTGRES_DSN"], name))
        own = environment | {
            "HOTPATH_POSTGRES_DSN": dsn,
            "HOTPATH_TOPIC": name,
            "HOTPATH_REDIS_PREFIX": name,
            "HOTPATH_GROUP": name,
        }
        # Exactly this environment: what the caller's shell has set beside it is in there already.
        settings = Settings(**given_settings(own))
        stack.enter_context(new_topic(settings, partitions, topic_config))
        stack.enter_context(redis_prefix(settings.redis_url, settings.redis_prefix))
        yield Place(own, settings, server_pids(settings))


def given_settings(environment: dict[str, str]) -> dict[str, str]:
    """Fields of Settings as `environment` sets them."""
    names = {field: f"HOTPATH_{field.upper()}" for field in Settings.model_fields}
    return {field: environment[name] for field, name in names.items() if name in environment}


@contextmanager
def database(dsn: str, name: str) -> Iterator[str]:
    """DSN of a new database `name` with the schema; dropped at the end."""
    try:
        with migrate.connect(dsn) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise Unavailable(f"Postgres makes no database: {' '.join(str(error).split())}") from None
    own = psycopg.conninfo.make_conninfo(dsn, dbname=name)
    try:
        made = subprocess.run(
            [sys.executable, "-m", "hotpath.migrate"],
            env=child_environment({"HOTPATH_POSTGRES_DSN": own}),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        if made.returncode:
            raise Unavailable(f"the schema was not applied to database {name}: see above")
        yield own
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def child_environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment of a program of ours: the shell's, with these HOTPATH_* and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTPATH_")}
    return kept | settings | {"PYTHONPATH": str(ROOT)}


@contextmanager
def new_topic(settings: Settings, partitions: int, config: dict[str, str] = TOPIC_CONFIG) -> Iterator[None]:
    """The settings' topic, made; deleted at the end."""
    admin = admin_client(settings)
    topic = NewTopic(settings.topic, partitions, 1, config=config)
    try:
        for made in admin.create_topics([topic]).values():
            made.result(30)
    except KafkaException as error:
        raise Unavailable(why(settings, error)) from None
    try:
        yield
    finally:
        for removed in admin.delete_topics([settings.topic]).values():
            removed.result(30)


@contextmanager
def redis_prefix(url: str, prefix: str) -> Iterator[None]:
    """Removes every key of a prefix at the end."""
    try:
        yield
    finally:
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(f"{prefix}:*", count=10_000):
                client.unlink(key)


def free_port() -> int:
    """A port of the loopback address that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# CPU accounting


def server_pids(settings: Settings) -> dict[str, int | None]:
    """The processes that serve Kafka, Postgres and Redis, where they run on this machine."""
    conninfo = psycopg.conninfo.conninfo_to_dict(settings.postgres_dsn)
    ports = {
        "kafka": int(settings.kafka_bootstrap.split(",")[0].rpartition(":")[2]),
        "postgres": int(conninfo.get("port") or 5432),
        "redis": urlsplit(settings.redis_url).port or 6379,
    }
    try:
        listening = {
            connection.laddr.port: connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.pid
        }
    except psutil.AccessDenied:
        listening = {}
    return {name: listening.get(port) for name, port in ports.items()}


def cpu_seconds(pid: int | None) -> float | None:
    """CPU that a process and its children, living and ended, have used; None when it is not there."""
    try:
        process = psutil.Process(pid) if pid else None
        if process is None:
            return None
        own = process.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in process.children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total
    except psutil.NoSuchProcess:
        return None


class CpuMeter:
    """CPU of named processes since it was made."""

    def __init__(self, pids: dict[str, int | None]) -> None:
        self._pids = pids
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}

    def us_per(self, events: int) -> dict[str, float | None]:
        """Microseconds of CPU per event by name; None where it is not known."""
        used = {}
        for name, before in self._before.items():
            now = cpu_seconds(self._pids[name])
            used[name] = None if before is None or now is None else round((now - before) / events * 1e6, 3)
        return used


def machine() -> dict[str, object]:
    """What a figure was measured on."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }
