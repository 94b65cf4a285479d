"""From an event's production to its being in /api/v1/summary: `python -m bench.freshness [--json]`.

Beside steady traffic, some users open a session now and then: each session is one event, and makes its user's number
of active sessions in the summary one greater. An event's age is the time from `produce()` to the end of the first reply
that shows that number. Replies are asked for all the time, so the figures are up to POLL_S too great.
"""

import argparse
import math
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import orjson
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from bench.harness import machine
from bench.live import WARM_UP_S, Live, live, wait_for
from bench.pipeline import PARTITIONS
from bench.show import show
from hotpath.console import configure_logging
from hotpath.errors import HotpathError, Unavailable
from hotpath.kafka import client_options
from hotpath.partitioner import LIBRDKAFKA_NAMES, partition_for
from hotpath.settings import Settings

PROBES = 8
"""Users that probe, each in a log of its own; the summary shows the ten with the most sessions."""
PROBE_INTERVAL_S = 0.037
"""Out of step with flushes, ticks and refreshes."""
POLL_S = 0.01
LOST_AFTER_S = 30
LINGER_MS = 5
"""As producers have it unless told otherwise."""
SESSIONS_BEFORE = 12
"""Sessions of each probe before the first that counts: more than anybody else has."""


@dataclass
class Probe:
    """A user, and when each of their sessions was produced (time.perf_counter; NaN where it does not count)."""

    user_id: str
    produced: list[float] = field(default_factory=list)
    seen: int = 0


def probes() -> list[Probe]:
    """Users of different logs."""
    found: dict[int, Probe] = {}
    number = 0
    while len(found) < PROBES:
        user_id = f"probe-{number}"
        found.setdefault(partition_for(user_id.encode(), PARTITIONS), Probe(user_id))
        number += 1
    return list(found.values())


class Prober:
    """Opens sessions, the user with the fewest first."""

    def __init__(self, settings: Settings, users: list[Probe]) -> None:
        options = {"partitioner": LIBRDKAFKA_NAMES["murmur2"], "linger.ms": LINGER_MS}
        self._producer = Producer(client_options(settings, **options))
        self._topic = settings.topic
        self._users = users

    def send(self, measured: bool) -> None:
        """One session."""
        user = min(self._users, key=lambda user: len(user.produced))
        event = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "user_id": user.user_id,
            "event_type": "probe",
            "page_url": "/probe",
            "session_id": f"s-{len(user.produced)}",
        }
        value = orjson.dumps(event)
        user.produced.append(time.perf_counter() if measured else math.nan)
        self._producer.produce(self._topic, value, user.user_id.encode())
        self._producer.poll(0)

    def send_for(self, seconds: float) -> None:
        """Sessions at intervals, for so long. Raises Unavailable when Kafka does not take them all."""
        began = due = time.perf_counter()
        while due < began + seconds:
            self.send(measured=True)
            due += PROBE_INTERVAL_S
            time.sleep(max(0.0, due - time.perf_counter()))
        self.flush()

    def flush(self) -> None:
        if self._producer.flush(LOST_AFTER_S):
            raise Unavailable("Kafka did not take all probes")


def watch(running: Live, users: list[Probe], done: threading.Event) -> list[float]:
    """Ages of all sessions, seconds, in the order in which they were seen. Raises Unavailable when one never is."""
    ages: list[float] = []
    by_id = {user.user_id: user for user in users}
    give_up_at = math.inf
    while not done.is_set() or any(user.seen < len(user.produced) for user in users):
        body = running.summary()
        now = time.perf_counter()
        for row in body.get("top_users", {}).get("users", []):
            user = by_id.get(row["user_id"])
            if user is not None:
                ages += [now - produced for produced in user.produced[user.seen : row["active_sessions"]]]
                user.seen = max(user.seen, row["active_sessions"])
        if done.is_set():
            give_up_at = min(give_up_at, now + LOST_AFTER_S)
        if now > give_up_at:
            raise Unavailable(f"an event was not in the summary after {LOST_AFTER_S} s")
        time.sleep(POLL_S)
    return ages


def _shown(summary: dict) -> set[str]:
    return {row["user_id"] for row in summary.get("top_users", {}).get("users", [])}


def measure(
    running: Live, users: list[Probe], rate: float, seconds: float, warm_up_s: float
) -> dict[str, object]:
    """One rate."""
    ids = {user.user_id for user in users}
    prober, done, errors = Prober(running.at.settings, users), threading.Event(), []

    def send() -> None:
        try:
            prober.send_for(seconds)
        except HotpathError as error:
            errors.append(error)
        finally:
            done.set()

    with running.traffic(rate, warm_up_s) as traffic:
        # So many that the summary shows these users and no others.
        for _ in range(PROBES * SESSIONS_BEFORE):
            prober.send(measured=False)
        prober.flush()
        wait_for(lambda: ids <= _shown(running.summary()), "the probes in the summary")
        thread = threading.Thread(target=send)
        thread.start()
        ages = watch(running, users, done)
        thread.join()
    if errors:
        raise errors[0]
    milliseconds = np.array([age for age in ages if not math.isnan(age)]) * 1_000
    return {
        "rate": rate,
        "reached": traffic.reached,
        "probes": len(milliseconds),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 1),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 1),
        "max_ms": round(float(milliseconds.max()), 1),
    }


def table(result: dict) -> Table:
    """The result for people."""
    shown = Table(box=None, pad_edge=False)
    for name in ("events/s asked", "reached", "probes", "p50 ms", "p99 ms", "max ms"):
        shown.add_column(name, justify="right")
    for row in result["rates"]:
        shown.add_row(
            f"{row['rate']:,.0f}",
            f"{row['reached']:,.0f}",
            str(row["probes"]),
            str(row["p50_ms"]),
            str(row["p99_ms"]),
            str(row["max_ms"]),
        )
    return shown


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0, or that of an explained error."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.freshness",
        description="Measure how long events take to be in /api/v1/summary. Further flags go to the supervisor.",
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1_000, 10_000], help="events/s")
    # Sessions leave the window after 300 s: all rates together must be done by then.
    parser.add_argument("--seconds", type=float, default=30, help="of each rate (%(default)s)")
    parser.add_argument(
        "--warm-up", type=float, default=WARM_UP_S, help="seconds of traffic before it counts (%(default)s)"
    )
    parser.add_argument("--procs", type=int, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, flags = parser.parse_known_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        with live(given.procs, flags) as running:
            configure_logging(running.at.settings, "bench")
            users, rates = probes(), []
            for rate in given.rates:
                console.print(f"{rate:,.0f} events/s for {given.seconds:g} s")
                rates.append(measure(running, users, rate, given.seconds, given.warm_up))
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    result = {"machine": machine(), "procs": given.procs, "rates": rates}
    show(result, table, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
