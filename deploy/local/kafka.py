"""A private Kafka: one node, broker and controller in one (KRaft), on the machine's Java.

State owned: `kafka/` in the home: the configuration (with the password) and the logs of the topics.
Clients and the controller alike show a password (SASL PLAIN on loopback).
"""

import signal
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local import jars
from deploy.local.errors import StackError
from deploy.local.home import LOOPBACK, Home
from deploy.local.processes import Process, write_private

USER = "hotpath"
TOPIC_CONFIG = {
    # The rule `future` compares with the append time, and a client's own clock could not be trusted for it.
    "message.timestamp.type": "LogAppendTime",
    # A day of outage may be caught up with. Postgres keeps the events for longer.
    "retention.ms": str(24 * 3600 * 1000),
    # Whatever the rate, 16 partitions then take 8 GiB at most, and a half-full segment more.
    "retention.bytes": str(512 << 20),
    "segment.bytes": str(64 << 20),
}
_START_DEADLINE_S = 120  # 4 s on an idle machine; recovery after kill -9 of a full one takes longer
_STOP_DEADLINE_S = 30
_REQUEST_TIMEOUT_S = 15


class KafkaServer:
    """The Kafka of a home."""

    def __init__(self, home: Home, *, small: bool = False, leash: bool = False) -> None:
        """`small`: a smaller heap and a quicker start. `leash`: it ends with us. Both are for tests."""
        self.home = home
        self.small = small
        self.leash = signal.SIGKILL if leash else None
        self.process = Process(home.path, "kafka")
        self.folder = home.path / "kafka"

    @property
    def bootstrap(self) -> str:
        port = self.home.kept_port("kafka")
        if port is None:
            raise StackError("kafka has not been started yet")
        return f"{LOOPBACK}:{port}"

    @property
    def client_options(self) -> dict[str, str]:
        """librdkafka settings that a client needs beside `bootstrap.servers`."""
        return {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": self.home.password("kafka"),
        }

    def start(self) -> None:
        """Start it and return when it answers; nothing when it runs already."""
        if self.process.identity() is None:
            # Outside the lock of the data: two stacks may wait for one download.
            command = [jars.java(), *self._java_options(), "-cp", f"{jars.folder()}/*"]
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ports = self.home.port("kafka"), self.home.port("kafka-controller")
            configuration = self.folder / "server.properties"
            write_private(configuration, self._configuration(*ports))
            self._format(command, configuration)
            self.process.start(
                [*command, "kafka.Kafka", str(configuration)],
                folder=self.folder,
                leash=self.leash,
                long_slices=True,
            )
        self.process.wait_until(self.healthy, "answering", _START_DEADLINE_S)

    def healthy(self) -> bool:
        """Whether it answers, and to our password: nobody else's broker on that port would."""
        try:
            return bool(self.admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def stop(self) -> None:
        """Stop it, its logs flushed: the next start needs no recovery."""
        self.process.stop(signal.SIGTERM, _STOP_DEADLINE_S)

    def kill(self) -> None:
        """kill -9, for tests."""
        self.process.stop(signal.SIGKILL)

    def admin(self) -> AdminClient:
        """A client for topics and groups."""
        # log_level 0: while the broker starts, every refused connection would be a line on stderr.
        return AdminClient({"bootstrap.servers": self.bootstrap, **self.client_options, "log_level": 0})

    def create_topic(self, topic: str, partitions: int, config: dict[str, str] | None = None) -> None:
        """Make a topic with TOPIC_CONFIG, overridden by `config`; one that is there stays as it is."""
        wanted = NewTopic(topic, partitions, replication_factor=1, config={**TOPIC_CONFIG, **(config or {})})
        admin = self.admin()  # held here: the requests end with it
        try:
            admin.create_topics([wanted], operation_timeout=_REQUEST_TIMEOUT_S)[topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def delete_topic(self, topic: str) -> None:
        """Delete a topic; raises KafkaException when there is none."""
        admin = self.admin()  # held here: the request ends with it
        admin.delete_topics([topic], operation_timeout=_REQUEST_TIMEOUT_S)[topic].result()

    def _java_options(self) -> list[str]:
        heap_mib = 256 if self.small else 512
        return [
            f"-Xms{heap_mib // 2}m",
            f"-Xmx{heap_mib}m",
            # Two cores have no room for a concurrent collector; pauses of a heap this small are short.
            "-XX:+UseSerialGC",
            # A broker without memory limps; one that has ended is seen and started again.
            "-XX:+ExitOnOutOfMemoryError",
            # Tests are over before the optimising compiler has earned what it costs.
            *(["-XX:TieredStopAtLevel=1"] if self.small else []),
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.folder}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
        ]

    def _format(self, command: list[str], configuration: Path) -> None:
        """Give the log folder its cluster id; nothing when it has one."""
        if (self.folder / "logs" / "meta.properties").exists():
            return
        cluster = self.home.note("kafka-cluster", lambda: urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22])
        # With the equals sign, because one id in 64 begins like an option.
        arguments = ("format", f"--cluster-id={cluster}", "--config", configuration, "--ignore-formatted")
        done = subprocess.run(
            [*command, "kafka.tools.StorageTool", *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
        )
        if done.returncode:
            raise StackError(f"Kafka could not prepare its folder: {(done.stderr or done.stdout).strip()}")

    def _configuration(self, port: int, controller_port: int) -> str:
        password = self.home.password("kafka")
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{USER}" password="{password}" user_{USER}="{password}";'
        )
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
            "listeners": f"CLIENT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
            "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": login,
            "listener.name.controller.plain.sasl.jaas.config": login,
            "log.dirs": str(self.folder / "logs"),
            # A mistyped topic is an error, not a new topic without our settings.
            "auto.create.topics.enable": "false",
            # One node: nothing can be replicated, and nobody else will join.
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # Tests of what follows when a session times out cannot wait for the least that is usual.
            "group.min.session.timeout.ms": "1000" if self.small else "6000",
            # 50 of each by default: files, and time to make them, for a handful of groups.
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.num.partitions": "1",
            # The cleaner compacts the offsets topic only; its 128 MiB by default are a quarter of the heap.
            "log.cleaner.dedupe.buffer.size": str(8 << 20),
            # Threads for two cores and a few clients; the defaults (3, 8, 10) are for a machine of its own.
            "num.network.threads": "2",
            "num.io.threads": "4",
            "background.threads": "2",
            # Topics made without TOPIC_CONFIG are bounded too.
            "log.retention.hours": "24",
            "log.retention.bytes": TOPIC_CONFIG["retention.bytes"],
            "log.segment.bytes": TOPIC_CONFIG["segment.bytes"],
            # Retention is looked at often enough that a fast producer cannot fill the disk in between.
            "log.retention.check.interval.ms": "30000",
            # A broker that was killed may register again only when this has passed since its last heartbeat;
            # a busy one that misses it loses its partitions for a moment. Tests prefer a short wait.
            "broker.session.timeout.ms": "4000" if self.small else "9000",
            "broker.heartbeat.interval.ms": "1000" if self.small else "2000",
            # The cluster's own metadata: a snapshot each 4 MiB, and little of it kept.
            "metadata.log.max.record.bytes.between.snapshots": str(4 << 20),
            "metadata.log.segment.bytes": str(8 << 20),
            "metadata.max.retention.bytes": str(16 << 20),
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())
