"""What a run of faults happens to: private servers, a load that never stops, and a pipeline over them.

Everything is real and of this run alone. Workers reach Postgres and Redis through proxies on loopback, so that single
messages can be lost; the world itself looks at the servers directly. It owns all processes, and a clock file by which
the pipeline's clock is set. Servers must be started in the main thread: they are on its leash.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import psycopg
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewPartitions
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.kafka import KafkaServer
from deploy.local.postgres import PostgresServer
from deploy.local.processes import Process
from deploy.local.redis_server import RedisServer
from hotpath.views import link, store
from tests.support.pipeline import ROOT, Pipeline, Topic, wait_until
from tests.support.proxy import BreakingProxy, TcpProxy
from tests.support.servers import apply_schema, make_home, remove_home

MARK = "HOTPATH_CHAOS_WORLD"
"""Environment variable by which this world's processes are found, orphans among them."""
PARTITIONS_MAX = 12
TINY_TABLESPACE_MIB = 64
START_TIMEOUT_S = 90  # of a supervisor on a busy machine, while a server it needs is coming back

_CLONE_NEWNS = 0x00020000


class World:
    """See the module's docstring. A context manager; `close` leaves nothing behind."""

    def __init__(self, rate: int = 3_000, procs: int = 2, partitions: int = 4, **settings: object) -> None:
        """`rate`: events a second of the load. `settings`: of the pipeline."""
        self.rate = rate
        self.procs = procs
        self.mounts = _own_mounts()
        self.home = make_home()
        self.mark = str(self.home.path)
        self.load: subprocess.Popen | None = None
        self._loads = 0
        self.postgres = PostgresServer(self.home, small=True, leash=True)
        self.kafka = KafkaServer(self.home, small=True, leash=True)
        self.redis = RedisServer(self.home, durable=True, leash=True)
        for server in (self.postgres, self.redis, self.kafka):
            server.start()
        self.database = self.postgres.dsn()
        apply_schema(self.database)
        self.topic = self._make_topic(partitions)
        self.postgres_proxy = BreakingProxy(self.database)
        self.redis_proxy = TcpProxy(("127.0.0.1", self.redis.port))
        self._clock_path = self.home.path / "clock"
        self._clock_path.write_bytes(bytes(8))
        self._clock = np.memmap(self._clock_path, np.int64, "r+", shape=(1,))
        self._settings = {
            "procs": procs,
            "clock_file": self._clock_path,
            "flush_interval_ms": 100,
            # A ring that is full after some seconds of the load.
            "block_rows_max": 4_096,
            "ring_slots": 4,
            "hang_deadline_s": 5,
            "statement_timeout_s": 3,
            "drain_deadline_s": 10,
            "redis_timeout_s": 0.5,
            "maintenance_interval_s": 5,
            **settings,
        }
        self.pipeline = self._new_pipeline()
        self.pipeline_log = self.home.path / "log" / "pipeline.log"
        self.stopped_on_purpose = False

    def __enter__(self) -> "World":
        self.start_pipeline()
        self.start_load()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything. HOTPATH_TEST_CHAOS_LOGS is a folder to keep what was logged in."""
        if kept := os.environ.get("HOTPATH_TEST_CHAOS_LOGS"):
            shutil.copytree(self.home.path / "log", kept, dirs_exist_ok=True)
        self.stop_load(signal.SIGKILL)
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for proxy in (self.postgres_proxy, self.redis_proxy):
            proxy.close()
        for server in (self.kafka, self.redis, self.postgres):
            server.stop()
        if self.tiny_folder.is_mount():
            subprocess.run(["umount", "--lazy", self.tiny_folder], check=True)
        remove_home(self.home)

    # The topic

    def _make_topic(self, partitions: int) -> Topic:
        # Nothing may leave the topic before it was compared with Postgres.
        self.kafka.create_topic("events", partitions, {"retention.bytes": "-1", "retention.ms": "-1"})
        return Topic(self.kafka.bootstrap, self.kafka.client_options, "events", partitions)

    def recreate_topic(self) -> None:
        """Delete the topic and make it anew at once."""
        self.kafka.delete_topic("events")
        wait_until(lambda: not self._exists("events"), "the topic is deleted")
        self.topic = self._make_topic(self.topic.partitions)

    def _exists(self, topic: str) -> bool:
        admin = self.kafka.admin()
        return topic in admin.list_topics(timeout=5).topics

    def add_partitions(self, count: int) -> None:
        """Give the topic more partitions; producers go by the new number when they are started anew."""
        admin = self.kafka.admin()
        wanted = self.topic.partitions + count
        admin.create_partitions([NewPartitions("events", wanted)])["events"].result()
        self.topic = Topic(self.kafka.bootstrap, self.kafka.client_options, "events", wanted)

    # Load

    def start_load(self) -> None:
        """Stream events of every class, from now until `stop_load`."""
        self._loads += 1
        arguments = ("--rate", self.rate, "--users", 20_000, "--pages", 500, "--seed", self._loads)
        arguments += ("--bots", 0.02, "--malformed", 0.01, "--late", 0.005, "--delivery-timeout-s", 600)
        with open(self.home.path / "log" / "load.log", "a") as output:
            self.load = subprocess.Popen(
                [sys.executable, "-m", "generator", *map(str, arguments)],
                env=self.pipeline.environment,
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )

    def stop_load(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the load; what it sent is acknowledged, unless it is killed."""
        if self.load is not None:
            if self.load.poll() is None:
                self.load.send_signal(number)
            self.load.wait(120)
            self.load = None

    # The pipeline

    def _new_pipeline(self) -> Pipeline:
        pipeline = Pipeline(self.topic, self.postgres_proxy.dsn, self._redis_url, **self._settings)
        pipeline.environment[MARK] = self.mark
        return pipeline

    @property
    def _redis_url(self) -> str:
        return self.redis.url.replace(f":{self.redis.port}/", f":{self.redis_proxy.port}/")

    @property
    def environment(self) -> dict[str, str]:
        """For commands: the pipeline's settings, with the servers themselves instead of the proxies."""
        direct = {"HOTPATH_POSTGRES_DSN": self.database, "HOTPATH_REDIS_URL": self.redis.url}
        return self.pipeline.environment | direct

    def command(self, module: str, *arguments: str) -> subprocess.CompletedProcess:
        """Run a command of the project's against these servers."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def launch_pipeline(self, *arguments: str, anew: bool = False) -> Pipeline:
        """Start a supervisor without waiting; `anew`: beside the present one, whose place it takes here."""
        self.stopped_on_purpose = False
        if anew:
            self.pipeline = self._new_pipeline()
        self.pipeline_log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.pipeline_log, "a") as output:
            self.pipeline.launch(*arguments, output=output)
        return self.pipeline

    def start_pipeline(self, *arguments: str) -> None:
        """Start a supervisor as an init system would, again while a server is missing, until it is healthy."""
        self.launch_pipeline(*arguments)

        def healthy() -> bool:
            self.tend()
            return self.pipeline.process.poll() is None and self.pipeline.healthy()

        wait_until(healthy, "the supervisor is healthy", START_TIMEOUT_S)

    def tend(self) -> None:
        """Do what an init system does: start the supervisor again when it ended because a server was missing."""
        if not self.stopped_on_purpose and self.pipeline.process.poll() in (3, 6):
            self.launch_pipeline()

    def stop_pipeline(self, timeout_s: float = 40) -> int:
        """SIGTERM; the exit code."""
        self.stopped_on_purpose = True
        return self.pipeline.stop(timeout_s)

    def worker_pids(self) -> list[int]:
        """Pids of the workers that live now."""
        return [pid for pid in self.pipeline.worker_pids() if psutil.pid_exists(pid)]

    def processes(self) -> list[psutil.Process]:
        """Every supervisor and worker of this world, however it came to be."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        load = self.load.pid if self.load is not None else None
        return [process for process in found if process.pid != load]

    # Looking

    def query(self, statement: str, *parameters: object, autocommit: bool = False) -> list[tuple]:
        """Rows of a query, straight from Postgres."""
        with psycopg.connect(self.database, connect_timeout=5, autocommit=autocommit) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def redis_client(self) -> redis.Redis:
        return redis.Redis.from_url(
            self.redis.url, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    def lag(self) -> int | None:
        """Messages of the topic that Postgres does not have yet; None while a server does not answer."""
        try:
            ends = self.topic.ends()
            rows = self.query(
                "select partition, next_offset from partition_state where retired_at is null and topic = 'events'"
            )
        except (KafkaException, psycopg.OperationalError):
            return None
        positions = dict(rows)
        return sum(max(0, end - positions.get(partition, 0)) for partition, end in ends.items())

    def redis_lag(self) -> int | None:
        """Events that Postgres has and the live views do not; None while one is away or a log is missing."""
        try:
            rows = self.query("select log_id, next_offset from partition_state where retired_at is null")
            with self.redis_client() as client:
                replies = link.run(client, [link.state_script("hotpath", log_id) for log_id, _ in rows])
        except (redis.RedisError, psycopg.OperationalError):
            return None
        states = [None if isinstance(reply, Exception) else store.parse_state(reply) for reply in replies]
        if any(state is None for state in states):
            return None
        pairs = zip(rows, states, strict=True)
        return sum(max(0, next_offset - state.applied) for (_, next_offset), state in pairs)

    def status(self) -> dict | None:
        """The supervisor's status; None while it does not answer."""
        try:
            return self.pipeline.status()
        except OSError:
            return None

    def in_transaction(self) -> list[int]:
        """Server processes of workers that are inside a transaction now."""
        rows = self.query(
            """select pid from pg_stat_activity
               where application_name like 'hotpath worker%%' and application_name not like '%%reads'
                   and xact_start is not null"""
        )
        return [pid for (pid,) in rows]

    def said(self, since: int = 0) -> str:
        """What supervisors and workers have logged, from a byte of the log on."""
        with open(self.pipeline_log, "rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    # The clock

    @property
    def clock_offset_s(self) -> float:
        return float(self._clock[0]) / 1e6

    def set_clock(self, offset_s: float) -> None:
        """Set how far the pipeline's clock is ahead of the machine's."""
        self._clock[0] = round(offset_s * 1e6)

    # A disk that can be full

    @property
    def tiny_folder(self) -> Path:
        return self.home.path / "tiny"

    def move_ledger_to_tiny_disk(self) -> None:
        """Mount a small disk and move the ledger, which every flush writes, there. Raises OSError where that is not
        allowed."""
        if self.tiny_folder.is_mount():
            return
        if not self.mounts:
            raise PermissionError("this user may not mount a disk of its own")
        self.tiny_folder.mkdir(exist_ok=True)
        options = f"size={TINY_TABLESPACE_MIB}m,mode=0711"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.tiny_folder],
            check=True,
            capture_output=True,
        )
        data = self.tiny_folder / "data"
        data.mkdir()
        if self.postgres.user:
            shutil.chown(data, self.postgres.user)
        self.query(f"create tablespace tiny location '{data}'", autocommit=True)
        self.patiently(lambda: self.query("alter table ledger set tablespace tiny", autocommit=True))

    @staticmethod
    def patiently(action: Callable[[], object], timeout_s: float = 30) -> None:
        """Repeat an action that Postgres may refuse for a moment."""

        def done() -> bool:
            try:
                action()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(done, "Postgres takes it", timeout_s)


def _own_mounts() -> bool:
    """Give this thread, and all that it starts, mounts of their own, which end with them; whether that is allowed."""
    if os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0


def process_of(server: KafkaServer | PostgresServer | RedisServer) -> psutil.Process:
    """The running process of a server."""
    record: Process = server.process
    return psutil.Process(record.identity().pid)
