"""One peer's job on one topic, and the processes that do it.

The processes end with the `with` block that started them.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from hotpath.errors import WorkersFailed
from hotpath.scheduling import take_long_slices
from hotpath.settings import Settings

PROGRAMS = Path(__file__).parent / "programs"
STOP_DEADLINE_S = 20
_LINES_SHOWN = 25


@dataclass(frozen=True)
class Job:
    """What is read and where it goes; the database and the prefix are this peer's alone."""

    kafka: Settings  # whose topic is read
    dsn: str
    prefix: str
    procs: int

    @property
    def postgres(self) -> dict[str, str]:
        """Connection parameters as libpq names them; host, port, dbname and user are always there."""
        found = psycopg.conninfo.conninfo_to_dict(self.dsn)
        with psycopg.connect(self.dsn) as connection:
            info = connection.info
            return {
                "host": info.host,
                "port": str(info.port),
                "dbname": info.dbname,
                "user": info.user,
            } | found

    @property
    def jdbc_url(self) -> str:
        """Without user and password. Rows of a batch go as one INSERT, as every guide to the driver says."""
        where = self.postgres
        host = f"{where['host']}:{where['port']}"
        return f"jdbc:postgresql://{host}/{where['dbname']}?reWriteBatchedInserts=true"

    @property
    def java_client(self) -> dict[str, str]:
        """Kafka's Java clients' settings to reach the broker."""
        return self._java_client("")

    @property
    def flink_client(self) -> dict[str, str]:
        """The same for Flink's connector, whose client lives in a package of its own."""
        return self._java_client("org.apache.flink.kafka.shaded.")

    def _java_client(self, package: str) -> dict[str, str]:
        options = self.kafka.kafka_options
        found = {"bootstrap.servers": self.kafka.kafka_bootstrap}
        if "sasl.username" in options:
            user, password = options["sasl.username"], options["sasl.password"]
            found |= {
                "security.protocol": options["security.protocol"],
                "sasl.mechanism": options["sasl.mechanism"],
                "sasl.jaas.config": f"{package}org.apache.kafka.common.security.plain.PlainLoginModule required "
                f'username="{user}" password="{password}";',
            }
        return found

    def environment(self) -> dict[str, str]:
        """What a Python peer's program reads (programs/job.py): nothing of this project is on its path."""
        apart = ("HOTPATH_", "PYTHON", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(apart)}
        return kept | {
            "PEER_KAFKA_BOOTSTRAP": self.kafka.kafka_bootstrap,
            "PEER_KAFKA_OPTIONS": json.dumps(self.kafka.kafka_options),
            "PEER_TOPIC": self.kafka.topic,
            "PEER_GROUP": self.prefix,
            "PEER_POSTGRES": json.dumps(self.postgres),
            "PEER_REDIS_URL": self.kafka.redis_url,
            "PEER_PREFIX": self.prefix,
            "PEER_PROCS": str(self.procs),
        }


class Running:
    """Processes of one peer."""

    def __init__(self, processes: list[subprocess.Popen], log: Path) -> None:
        self._processes = processes
        self._log = log

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def check(self) -> None:
        """Raises WorkersFailed with the end of their output when one has ended: none ends by itself."""
        for process in self._processes:
            if process.poll() is not None:
                lines = "\n".join(self._log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])
                raise WorkersFailed(
                    f"a process of the peer ended with exit code {process.returncode}:\n{lines}"
                )


@contextmanager
def running(commands: list[list[str]], environment: dict[str, str], folder: Path) -> Iterator[Running]:
    """Start them, all writing to one log; at the end they are told to stop, then made to."""
    log = folder / "output.log"
    processes: list[subprocess.Popen] = []
    try:
        with open(log, "ab") as output:
            for command in commands:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    cwd=folder,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=take_long_slices,  # as our workers do
                )
                processes.append(process)  # one by one: what has been started must be stopped
        yield Running(processes, log)
    finally:
        # With all that they started themselves: PyFlink's JVM would outlive it.
        everybody = [each for process in processes for each in _tree(process.pid)]
        for process in everybody:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(everybody, STOP_DEADLINE_S)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in processes:
            process.wait()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
