"""The peers: how each is made and started, what it stores, what it keeps beside, and what it guarantees."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.harness import free_port
from bench.peers.environments import jar_folder, virtual_environment
from bench.peers.job import PROGRAMS, Job, Running, running
from deploy.local import jars

AT_LEAST_ONCE = "at least once"


@dataclass(frozen=True)
class Peer:
    """One tool."""

    name: str
    title: str
    guarantee: str
    does: str
    clean: bool
    """Whether it reads the topic of clean messages: it could not judge the others."""
    start: Callable[[Job, Path], AbstractContextManager[Running]]
    """Its processes, in a folder of their own."""
    tells_apart: bool = False
    """Whether it stores accepted events alone: bot and late ones elsewhere, or nowhere."""
    prepare: Callable[[], object] = lambda: None
    """Makes its environment, before anything is timed. Raises StackError."""


@contextmanager
def _python(job: Job, folder: Path, python: str, program: str) -> Iterator[Running]:
    """As many processes as hotpath has workers; the consumer group spreads the partitions."""
    command = [python, str(PROGRAMS / program)]
    with running([command] * job.procs, job.environment(), folder) as processes:
        yield processes


def _per_event(job: Job, folder: Path) -> AbstractContextManager[Running]:
    # What it needs is what this project needs, too: there is nothing to install.
    return _python(job, folder, sys.executable, "per_event.py")


def _quix(job: Job, folder: Path) -> AbstractContextManager[Running]:
    return _python(job, folder, str(virtual_environment("quix")), "quix.py")


@contextmanager
def _bytewax(job: Job, folder: Path, program: str = "bytewax_flow") -> Iterator[Running]:
    """A cluster of processes with one worker each, as its documentation scales Python code; recovery is on."""
    python = str(virtual_environment("bytewax"))
    recovery, addresses = folder / "recovery", ";".join(f"127.0.0.1:{free_port()}" for _ in range(job.procs))
    recovery.mkdir()
    environment = job.environment() | {"PYTHONPATH": str(PROGRAMS)}
    made = [python, "-m", "bytewax.recovery", str(recovery), str(job.procs)]
    os.spawnve(os.P_WAIT, python, made, environment)
    command = [python, "-m", "bytewax.run", f"{program}:flow", "-r", str(recovery), "-s", "10", "-b", "0"]
    commands = [[*command, "-i", str(number), "-a", addresses] for number in range(job.procs)]
    with running(commands, environment, folder) as processes:
        yield processes


@contextmanager
def _connect(job: Job, folder: Path) -> Iterator[Running]:
    """One worker process in standalone mode with as many tasks as hotpath has workers."""
    worker, connector = folder / "worker.properties", folder / "sink.properties"
    _properties(worker, connect_worker(job, folder))
    _properties(connector, connect_sink(job))
    command = [jars.java(), "-Xms256M", "-Xmx2G", "-Duser.timezone=UTC", "-cp", f"{jar_folder('connect')}/*"]
    command += ["org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(connector)]
    with running([command], job.environment(), folder) as processes:
        yield processes


@contextmanager
def _flink(job: Job, folder: Path) -> Iterator[Running]:
    """A cluster inside one process, with a slot for each of hotpath's workers."""
    where, jar_files = job.postgres, sorted(jar_folder("flink").glob("*.jar"))
    environment = job.environment() | {
        "PEER_JAVA_CLIENT": json.dumps(job.flink_client),
        "PEER_JARS": ";".join(path.as_uri() for path in jar_files),
        "PEER_JDBC_URL": job.jdbc_url,
        "PEER_JDBC_USER": where["user"],
        "PEER_JDBC_PASSWORD": where.get("password", ""),
        "JAVA_HOME": str(Path(jars.java()).resolve().parents[1]),
        "TZ": "UTC",
    }
    command = [str(virtual_environment("flink")), str(PROGRAMS / "flink.py")]
    with running([command], environment, folder) as processes:
        yield processes


def connect_worker(job: Job, folder: Path) -> dict[str, str]:
    """The worker's settings."""
    clients = job.java_client
    return {
        **clients,
        **{f"consumer.{name}": value for name, value in clients.items()},
        "offset.storage.file.filename": str(folder / "offsets"),
        "listeners": f"http://127.0.0.1:{free_port()}",
        "plugin.discovery": "only_scan",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        # Plain JSON under a schema that stands here instead of in every message.
        "value.converter.schemas.enable": "true",
        "value.converter.schema.content": json.dumps(_schema()),
        "consumer.auto.offset.reset": "earliest",
        # Batches can only be as large as what one poll returns; the default of 500 is the usual complaint.
        "consumer.max.poll.records": "5000",
        "consumer.fetch.min.bytes": "100000",
    }


def connect_sink(job: Job) -> dict[str, str]:
    """The connector's settings: inserts of 5,000 rows, the message's place in the log beside its fields."""
    where = job.postgres
    return {
        "name": "peer",
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": str(job.procs),
        "topics": job.kafka.topic,
        "connection.url": job.jdbc_url,
        "connection.username": where["user"],
        "connection.password": where.get("password", ""),
        "insert.mode": "insert",
        "primary.key.mode": "none",
        "schema.evolution": "none",
        "batch.size": "5000",
        "dialect.postgres.unnest.insert.enabled": "true",
        "collection.name.format": "events",
        "transforms": "place,names",
        "transforms.place.type": "org.apache.kafka.connect.transforms.InsertField$Value",
        "transforms.place.partition.field": "log_id",
        "transforms.place.offset.field": "kafka_offset",
        "transforms.names.type": "org.apache.kafka.connect.transforms.ReplaceField$Value",
        "transforms.names.renames": "timestamp:ts",
    }


def _schema() -> dict[str, object]:
    texts = ("user_id", "event_type", "page_url", "session_id")
    time = {"type": "string", "name": "io.debezium.time.ZonedTimestamp", "field": "timestamp"}
    fields = [time, *({"type": "string", "field": name} for name in texts)]
    return {"type": "struct", "name": "event", "fields": fields}


def _properties(path: Path, settings: dict[str, str]) -> None:
    path.touch(0o600)  # it holds passwords
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


PEERS = (
    Peer(
        "per_event",
        "per-event consumer",
        AT_LEAST_ONCE + "; Redis counts repeats twice",
        "json, checks, one Redis pipeline of three commands per event, INSERTs of 500 rows",
        False,
        _per_event,
    ),
    Peer(
        "quix",
        "Quix Streams 3.28.1",
        AT_LEAST_ONCE,
        "orjson, checks, PostgreSQLSink, RedisSink (each user's last page)",
        False,
        _quix,
        prepare=lambda: virtual_environment("quix"),
    ),
    Peer(
        "bytewax",
        "Bytewax 0.21.1",
        AT_LEAST_ONCE + " (recovery on)",
        "orjson, checks, COPY by a sink of ours; nothing in Redis",
        False,
        _bytewax,
        prepare=lambda: virtual_environment("bytewax"),
    ),
    Peer(
        "bytewax_whole",
        "Bytewax 0.21.1, the whole job",
        AT_LEAST_ONCE + " (recovery on); Redis counts repeats twice",
        "orjson, checks, bots and late events told apart, COPY, live views of users, sessions and pages; no ledger",
        False,
        partial(_bytewax, program="bytewax_whole"),
        tells_apart=True,
        prepare=lambda: virtual_environment("bytewax"),
    ),
    Peer(
        "connect",
        "Kafka Connect 4.4.0, Debezium JDBC sink 3.6.0",
        AT_LEAST_ONCE,
        "clean messages only, no checks; INSERTs of 5,000 rows; nothing in Redis",
        True,
        _connect,
        prepare=lambda: jar_folder("connect"),
    ),
    Peer(
        "flink",
        "Flink SQL 2.3.0, JDBC connector 4.0.0",
        AT_LEAST_ONCE,
        "clean messages only, no checks; INSERTs of 5,000 rows; nothing in Redis",
        True,
        _flink,
        prepare=lambda: (virtual_environment("flink"), jar_folder("flink")),
    ),
)
