"""One run of the generator: the loop that joins pace, stream and publisher.

State: when it began, whether it was told to stop, its last messages. A run can be driven from another thread
(`set_rate`, `stop`, `snapshot`), which is how a page with buttons uses it.

Invariant: what was taken from the stream is sent, so the stream's counts are those of the messages sent.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from generator.pace import Pace
from generator.plan import Shares
from generator.publish import Publisher
from generator.settings import GeneratorSettings
from generator.stream import Batch, Scenario, Stream
from hotpath.kafka import describe_topic

_US = 1_000_000
NOMINAL_RATE = 10_000
"""Events a second of event time where a start time is given, but no rate."""
FLUSH_GRACE_S = 5
FAR_APPEND_US = 3_786_912_000 * _US
"""2090: with a start time, "the future" must not depend on today, so it begins here."""


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands."""

    asked_rate: float  # events/s, 0 is no limit
    seconds: float  # since it began
    sent: int
    delivered: int
    failed: int
    trouble: str

    @property
    def reached_rate(self) -> float:
        return self.delivered / self.seconds if self.seconds > 0 else 0.0


class Run:
    """Generates and sends until its end is reached or it is stopped."""

    def __init__(self, settings: GeneratorSettings, stream: Stream, publisher: Publisher) -> None:
        self.settings = settings
        self.stream = stream
        self.publisher = publisher
        self.recent = Batch()
        """The last messages sent; replaced, never changed, so that other threads may read it."""
        self._rate = settings.asked_rate
        self._pace = Pace(self._rate, time.monotonic())
        self._stopped = threading.Event()
        self._began = time.monotonic()
        self._ended: float | None = None
        self._taken = 0

    def set_rate(self, rate: float) -> None:
        """Go on at another rate, events/s, from the next look on."""
        self._rate = rate

    def stop(self) -> None:
        """Make `__call__` send what it has begun, flush and return. Safe in signal handlers and threads."""
        self._stopped.set()

    def __call__(self, watch: Callable[[Snapshot], None] = lambda snapshot: None) -> Snapshot:
        """Run to the end; `watch` is called at each look. Returns the final state, all flushed.

        Raises Unavailable when the producer cannot go on.
        """
        self._began = time.monotonic()
        self._pace.set_rate(self._rate, self._began)
        try:
            while not self._stopped.is_set() and not self._is_over():
                self._look()
                watch(self.snapshot())
        finally:
            self._flush(watch)
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Where the run stands now."""
        publisher = self.publisher
        return Snapshot(
            self._rate,
            (self._ended or time.monotonic()) - self._began,
            publisher.sent,
            publisher.delivered,
            publisher.failed,
            publisher.trouble,
        )

    def _is_over(self) -> bool:
        ends_at = self.settings.seconds
        by_count = self.settings.events_max
        if by_count and self._taken >= by_count:
            return True
        # The last token falls due when the time is up: look a little longer than that.
        return bool(ends_at) and time.monotonic() - self._began > ends_at + 0.05

    def _look(self) -> None:
        """Send what is due now, or wait a moment."""
        now = time.monotonic()
        if self._rate != self._pace.rate:
            self._pace.set_rate(self._rate, now)
        count = self._pace.due(now)
        if self.settings.events_max:
            count = min(count, self.settings.events_max - self._taken)
        if count:
            self._send(count)
        self.publisher.poll()
        pause_s = self._pace.pause_s(time.monotonic())
        if pause_s:
            self._stopped.wait(pause_s)

    def _send(self, count: int) -> None:
        start = self.settings.start_time
        if start is None:
            times_us = np.full(count, time.time_ns() // 1_000, np.int64)
        else:
            indexes = np.arange(self._taken, self._taken + count)
            step_us = _US / (self.settings.rate or NOMINAL_RATE)
            times_us = round(start.timestamp() * _US) + (indexes * step_us).astype(np.int64)
        batch = self.stream.take(times_us, FAR_APPEND_US if start else None)
        self._taken += count
        self.publisher.send(batch)
        self.recent = batch

    def _flush(self, watch: Callable[[Snapshot], None]) -> None:
        """Wait until Kafka has acknowledged or failed everything; bounded by the delivery timeout."""
        deadline = time.monotonic() + self.settings.delivery_timeout_s + FLUSH_GRACE_S
        while self.publisher.flush(0.1) and time.monotonic() < deadline:
            watch(self.snapshot())
        self._ended = time.monotonic()


def open_run(settings: GeneratorSettings) -> Run:
    """A run against the Kafka of the settings. Raises Unavailable when it or the topic is not there."""
    partitions = describe_topic(settings).partitions
    stream = Stream(scenario(settings, partitions, run_name(settings)))
    return Run(settings, stream, Publisher(settings, settings.delivery_timeout_s))


def scenario(settings: GeneratorSettings, partitions: int, run: str) -> Scenario:
    """What the settings ask of the stream."""
    return Scenario(
        seed=settings.seed,
        users=settings.users,
        pages=settings.pages,
        shares=Shares(settings.bots, settings.malformed, settings.late),
        partitions=partitions,
        run=run,
        partitioner=settings.partitioner,
        late_max_s=settings.late_max_s,
        bot_page_views_max=settings.bot_page_views_max,
    )


def run_name(settings: GeneratorSettings) -> str:
    """A short name that no other run has; with a start time, the same every time."""
    start = settings.start_time
    return np.base_repr(time.time_ns() // _US if start is None else int(start.timestamp()), 36).lower()


def summary(run: Run, final: Snapshot) -> dict[str, object]:
    """The ground truth: what was sent, and what a correct pipeline must make of it."""
    settings, publisher = run.settings, run.publisher
    return {
        "run": run.stream.scenario.run,
        "seed": settings.seed,
        "topic": settings.topic,
        "partitions": run.stream.scenario.partitions,
        "sent": final.sent,
        "delivered": final.delivered,
        "failed": final.failed,
        "unsettled": final.sent - final.delivered - final.failed,
        "first_failure": publisher.first_failure,
        "seconds": round(final.seconds, 3),
        "asked_rate": final.asked_rate,
        "reached_rate": round(final.reached_rate, 1),
        # Of messages that failed nobody knows whether Kafka kept them, nor then what became of the rest.
        "exact": final.delivered == final.sent,
        "classes": run.stream.truth(),
    }
