"""Sends events to Kafka in a thread, at a rate and with faults that anybody may change at any time.

State: what is wished for (rate, faults), what is done (stream, producer, counts). The wish is replaced as a
whole under a lock, so that two people who press buttons at once get one of their wishes, never a mixture, and the
later one holds. It goes on until it is told otherwise, whoever watches or leaves.

Invariants: what is counted as delivered was acknowledged by Kafka; while Kafka is away at most WAITING_MAX messages
wait, and what fell due meanwhile is not made up for.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from confluent_kafka import KafkaError, Message

from generator.pace import Pace
from generator.publish import Publisher
from generator.run import run_name, scenario
from generator.settings import AppSettings
from generator.stream import Stream
from hotpath.errors import HotpathError
from hotpath.kafka import describe_topic

log = logging.getLogger(__name__)

WAITING_MAX = 20_000
"""Messages not settled yet beyond which nothing is sent: two seconds at 10,000/s, a fifth of the producer's queue."""
RATE_OVER_S = 2.0
"""The rate reached is a mean over so long."""
SILENT_S = 2.0
"""Kafka that has settled nothing for so long, though messages wait, is away."""
RETRY_S = 1.0
CLOSE_DEADLINE_S = 3.0

Settled = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True)
class Wish:
    """What is asked for. A rate of 0 is to send nothing."""

    rate: float
    bots: bool
    malformed: bool


@dataclass(frozen=True)
class State:
    """What is done."""

    wish: Wish
    reached_per_s: float
    sent: int
    delivered: int
    failed: int
    trouble: str
    """Why events do not reach Kafka now; empty when they do."""

    @property
    def waiting(self) -> int:
        return self.sent - self.delivered - self.failed


class Sender:
    """One producer and its thread; `with` starts and ends it."""

    def __init__(self, settings: AppSettings, settled: Settled) -> None:
        """`settled` is called in the sender's thread for each message that Kafka has acknowledged or refused."""
        self._settings = settings
        self._settled = settled
        self._wish = Wish(settings.rate, settings.bots > 0, settings.malformed > 0)
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._closing = False
        self._publisher: Publisher | None = None
        self._trouble = "connecting to Kafka"
        self._delivered = 0
        self._progress: deque[tuple[float, int]] = deque()
        self._progressed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._woken.set()
        self._thread.join(CLOSE_DEADLINE_S + 2)

    def change(self, **wished: float | bool) -> None:
        """Wish for another rate or other faults; fields of Wish that are not named stay."""
        with self._lock:
            self._wish = replace(self._wish, **wished)
        self._woken.set()

    def state(self) -> State:
        """Where it stands now."""
        publisher = self._publisher
        sent, failed = (publisher.sent, publisher.failed) if publisher else (0, 0)
        return State(self._wish, self._reached(), sent, self._delivered, failed, self._trouble)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._send_until_told()
            except HotpathError as error:
                self._trouble = str(error)
            except Exception:
                log.exception("the sender failed, and begins again")
                self._trouble = "an unexpected failure; the log has the details"
            if not self._closing:
                self._woken.wait(RETRY_S)
                self._woken.clear()

    def _send_until_told(self) -> None:
        """Send until the sender is closed. Raises Unavailable when Kafka or the topic is not there."""
        partitions = describe_topic(self._settings).partitions
        if self._publisher is None:
            self._publisher = Publisher(self._settings, self._settings.delivery_timeout_s, self._on_settled)
        publisher = self._publisher
        self._trouble = ""
        wish = replace(self._wish, rate=0)
        stream = self._stream(wish, partitions)
        # A pace of 0 would be one without limit: while stopped it is not asked.
        pace = Pace(1, time.monotonic())
        while not self._closing:
            wished = self._wish
            if (wished.bots, wished.malformed) != (wish.bots, wish.malformed):
                stream = self._stream(wished, partitions)
            if wished.rate != wish.rate:
                pace.set_rate(wished.rate or 1, time.monotonic())
            wish = wished
            self._look(publisher, pace, stream, wish)
            self._woken.wait(pace.pause_s(time.monotonic()) if wish.rate else 0.1)
            self._woken.clear()
        publisher.flush(CLOSE_DEADLINE_S)

    def _look(self, publisher: Publisher, pace: Pace, stream: Stream, wish: Wish) -> None:
        """Send what is due now, learn what was settled, and note how it goes."""
        publisher.poll()
        now = time.monotonic()
        waiting = publisher.sent - publisher.failed - self._delivered
        if wish.rate:
            due = pace.due(now)
            if due and waiting < WAITING_MAX:
                times_us = np.full(due, time.time_ns() // 1_000, np.int64)
                publisher.send(stream.take(times_us))
        if not waiting:
            self._progressed_at = now
        away = now - self._progressed_at > SILENT_S
        self._trouble = (publisher.trouble or "Kafka acknowledges nothing") if away else ""
        self._note_progress(now)

    def _stream(self, wish: Wish, partitions: int) -> Stream:
        settings = self._settings
        shares = {
            "bots": settings.bots or 0.02 if wish.bots else 0.0,
            "malformed": settings.malformed or 0.01 if wish.malformed else 0.0,
        }
        return Stream(scenario(settings.model_copy(update=shares), partitions, run_name(settings)))

    def _on_settled(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._delivered += 1
            self._progressed_at = time.monotonic()
            self._publisher.trouble = ""
        self._settled(error, message)

    def _note_progress(self, now: float) -> None:
        progress = self._progress
        if not progress or now - progress[-1][0] >= 0.1:
            progress.append((now, self._delivered))
        while len(progress) > 2 and now - progress[0][0] > RATE_OVER_S:
            progress.popleft()

    def _reached(self) -> float:
        progress = list(self._progress)
        if len(progress) < 2 or progress[-1][0] - progress[0][0] < 0.3:
            return 0.0
        (since, before), (until, after) = progress[0], progress[-1]
        return (after - before) / (until - since)
