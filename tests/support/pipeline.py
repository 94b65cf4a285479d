"""A supervisor with its workers as real processes, and what tests ask of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psycopg
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

ROOT = Path(__file__).parents[2]
PARTITIONER = "murmur2_random"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
    """Poll until `condition` gives something true, and return that; fail the test when it never does."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


class Topic:
    """A topic of a test's own, and a producer for it."""

    def __init__(self, bootstrap: str, options: dict[str, str], name: str, partitions: int) -> None:
        self.name = name
        self.partitions = partitions
        self.bootstrap = bootstrap
        self.options = options
        # log_level 0: where a test restarts the broker, every refused connection would be a line on stderr.
        client = {"bootstrap.servers": bootstrap, "log_level": 0, **options}
        self._producer = Producer(
            {**client, "partitioner": PARTITIONER, "enable.idempotence": True, "linger.ms": 2}
        )
        self._client = client
        self._admin = AdminClient(client)

    def produce(
        self, messages: list[tuple[bytes | None, bytes | None]], partition: int | None = None
    ) -> list[int]:
        """Send (key, value) pairs, in order, and return their offsets, in the same order."""
        where: dict[int, int] = {}

        def note(index: int) -> Callable:
            def delivered(error, message) -> None:
                assert error is None, error
                where[index] = message.offset()

            return delivered

        for index, (key, value) in enumerate(messages):
            placed = {} if partition is None else {"partition": partition}
            self._producer.produce(self.name, value, key, on_delivery=note(index), **placed)
            self._producer.poll(0)
        self._producer.flush(30)
        return [where[index] for index in range(len(messages))]

    def produce_events(self, events: list[dict]) -> list[int]:
        """Send events keyed by their user, as producers must."""
        return self.produce([(event["user_id"].encode(), json.dumps(event).encode()) for event in events])

    def ends(self) -> dict[int, int]:
        """Partition to the offset after its last message."""
        asked = {
            TopicPartition(self.name, partition): OffsetSpec.latest() for partition in range(self.partitions)
        }
        try:
            futures = self._admin.list_offsets(asked, request_timeout=5)
            return {tp.partition: future.result().offset for tp, future in futures.items()}
        except KafkaException:
            # After a restart of the broker a client is told FENCED_LEADER_EPOCH for minutes; a new one is not.
            self._admin = AdminClient(self._client)
            raise


class Pipeline:
    """`python -m hotpath.supervisor` over private servers."""

    def __init__(self, kafka_topic: Topic, database: str, redis: str, **settings: object) -> None:
        self.topic = kafka_topic
        self.database = database
        self.status_url = f"http://127.0.0.1:{free_port()}"
        values = {
            "kafka_bootstrap": kafka_topic.bootstrap,
            "kafka_options": json.dumps(kafka_topic.options),
            "topic": kafka_topic.name,
            "postgres_dsn": database,
            "redis_url": redis,
            "status_port": self.status_url.rpartition(":")[2],
            "procs": 2,
            "flush_interval_ms": 50,
            **settings,
        }
        own = {f"HOTPATH_{name.upper()}": str(value) for name, value in values.items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOTPATH_")}
        self.environment = clean | own | {"PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen | None = None

    def start(self, *arguments: str) -> "Pipeline":
        """Start the supervisor and wait until its workers run."""
        self.launch(*arguments)
        wait_until(self.healthy, "the supervisor is healthy", 90)
        return self

    def launch(self, *arguments: str, output: IO | None = None) -> None:
        """Start the supervisor; what it says goes to `output`, or where ours goes."""
        command = [sys.executable, "-m", "hotpath.supervisor", *arguments]
        self.process = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=output, stderr=output)

    def __enter__(self) -> "Pipeline":
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def healthy(self) -> bool:
        assert self.process.poll() is None, f"the supervisor ended with {self.process.returncode}"
        try:
            with urllib.request.urlopen(f"{self.status_url}/healthz", timeout=2) as reply:
                return reply.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def status(self) -> dict:
        with urllib.request.urlopen(f"{self.status_url}/status", timeout=5) as reply:
            return json.load(reply)

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"] if "pid" in worker]

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def positions(self) -> dict[int, int]:
        """Partition to Postgres's next_offset."""
        rows = self.query(
            "SELECT partition, next_offset FROM partition_state WHERE topic = %s", self.topic.name
        )
        return dict(rows)

    def wait_until_committed(self, timeout_s: float = 60) -> None:
        """Until Postgres holds the log to the end it has now."""
        ends = self.topic.ends()
        wait_until(
            lambda: all(self.positions().get(p, 0) >= end for p, end in ends.items()),
            f"Postgres reaches {ends}",
            timeout_s,
        )

    def wait_until_applied(self, timeout_s: float = 60) -> None:
        """Until Postgres and Redis hold the log to the end it has now."""
        self.wait_until_committed(timeout_s)

        def applied() -> bool:
            logs = [log for worker in self.status()["workers"] for log in worker["logs"]]
            return len(logs) == self.topic.partitions and all(
                log["applied"] >= log["committed"] for log in logs
            )

        wait_until(applied, "Redis has what Postgres has", timeout_s)

    def query(self, statement: str, *parameters: object) -> list[tuple]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(statement, parameters).fetchall()
