"""Supervisors as on several machines: processes that share a topic and nothing else, each behind links of its own."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psutil
import psycopg.conninfo

from tests.support.link import Link
from tests.support.pipeline import ROOT, Pipeline, Topic, wait_until

SESSION_S = float(os.environ.get("HOTPATH_TEST_GROUP_SESSION_S", "2"))
"""The production default is 6; tests have no time for it, and a broker that allows less."""


class Machine(Pipeline):
    """A supervisor in group mode; Kafka, Postgres and Redis are reached over links that can be cut."""

    def __init__(
        self, name: str, topic: Topic, database: str, redis: str, host: str = "127.0.0.1", **settings: object
    ) -> None:
        """`host`: where the links are entered."""
        broker, port = topic.bootstrap.split(":")
        info = psycopg.conninfo.conninfo_to_dict(database)
        self.kafka_link = Link((broker, int(port)), host, kafka=True)
        self.postgres_link = Link((str(info["host"]), int(info["port"])), host)
        where = urlsplit(redis)
        self.redis_link = Link((str(where.hostname), int(where.port or 6379)), host)
        self.name = name
        self.before: list[str] = []
        """What the command begins with."""
        values = {
            "assign": "group",
            "group": f"group-{topic.name}",
            "machine": name,
            "kafka_bootstrap": "{}:{}".format(*self.kafka_link.address),
            "group_session_s": SESSION_S,
            "restart_backoff_max_s": 1,
            **settings,
        }
        redis = redis.replace(f"{where.hostname}:{where.port}", "{}:{}".format(*self.redis_link.address))
        super().__init__(topic, database, redis, **values)
        self.environment["HOTPATH_POSTGRES_DSN"] = psycopg.conninfo.make_conninfo(
            database, host=host, port=self.postgres_link.address[1]
        )

    def start(self, *arguments: str) -> "Machine":
        """Start the supervisor and wait until its workers are in the group."""
        command = [*self.before, sys.executable, "-m", "hotpath.supervisor", *arguments]
        self.process = subprocess.Popen(command, env=self.environment, cwd=ROOT)
        wait_until(self.healthy, f"{self.name} is healthy", 60)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal_all(signal.SIGKILL)
        for link in (self.kafka_link, self.postgres_link, self.redis_link):
            link.close()

    def processes(self) -> list[psutil.Process]:
        """The supervisor and its workers."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def signal_all(self, number: signal.Signals) -> None:
        """Signal all of its processes, the supervisor first; wait for them when that ends them."""
        ended = self.processes()
        for process in ended:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait()
            psutil.wait_procs(ended, timeout=10)

    def partitions(self) -> set[int]:
        """The partitions its workers work on."""
        return {log["partition"] for worker in self.status()["workers"] for log in worker["logs"]}


class Load(threading.Thread):
    """Sends events of many classes, a few hundred a second, until `stop`."""

    def __init__(self, topic: Topic, seed: int, pause_s: float = 0.1) -> None:
        super().__init__(name="load", daemon=True)
        self._topic = topic
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._stopped = threading.Event()
        self.sent = 0
        self.error: BaseException | None = None

    def __enter__(self) -> "Load":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self) -> None:
        try:
            while not self._stopped.wait(self._pause_s):
                messages = self._messages()
                self._topic.produce(messages)
                self.sent += len(messages)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        if self.error is not None:
            raise self.error

    def _messages(self) -> list[tuple[bytes, bytes]]:
        rng, now = self._random, time.time()
        events = [
            (f"u{rng.randrange(3_000)}", now - rng.random() * 5, f"/p/{rng.randrange(50)}") for _ in range(40)
        ]
        bot = f"bot-{rng.randrange(3)}"
        events += [(bot, now, "/bot")] * rng.randrange(8)
        events += [(f"late-{rng.randrange(50)}", now - 1_000, "/late"), ("wrong", now, "no page")]
        rng.shuffle(events)
        return [(user.encode(), _event(user, second, page)) for user, second, page in events]


def _event(user: str, second: float, page: str) -> bytes:
    moment = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f'{{"timestamp": "{moment}", "user_id": "{user}", "event_type": "page_view", "page_url": "{page}", '
        f'"session_id": "s-{user}"}}'
    ).encode()


def one_in_each_partition(topic: Topic) -> None:
    """Send an event to every partition."""
    for partition, number in zip(range(topic.partitions), itertools.count(time.time_ns()), strict=False):
        user = f"each-{number}"
        topic.produce([(user.encode(), _event(user, time.time(), "/each"))], partition)


def owners(machines: list[Machine]) -> Counter[str]:
    """How many partitions each machine works on."""
    return Counter({machine.name: len(machine.partitions()) for machine in machines})


class Cable:
    """A network namespace, joined with this one by a cable (a veth pair) that can be pulled."""

    def __init__(self) -> None:
        """Raises OSError or CalledProcessError where this machine does not let us."""
        self.name = f"hotpath-{os.getpid()}"
        self._end = f"hp{os.getpid()}"
        net = next(
            f"10.{number}.0" for number in range(10, 100) if f" 10.{number}." not in _ip("-4", "address")
        )
        self.here, self.there = f"{net}.1", f"{net}.2"
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self._end, "type", "veth", "peer", "name", "cable", "netns", self.name)
            _ip("address", "add", f"{self.here}/24", "dev", self._end)
            _ip("-n", self.name, "address", "add", f"{self.there}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", self.name, "link", "set", device, "up")
            self.mend()
        except BaseException:
            self.remove()
            raise

    def pull(self) -> None:
        _ip("link", "set", self._end, "down")

    def mend(self) -> None:
        _ip("link", "set", self._end, "up")

    def remove(self) -> None:
        _ip("netns", "delete", self.name)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
