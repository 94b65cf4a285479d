"""Steady traffic of the standard kind from a thread of this process, whose truth is known at every moment.

State: the stream and the producer, which the thread alone uses until it has ended. Beside `python -m generator` it can
be stamped by a clock that is ahead of the machine's, and knows what a correct pipeline makes of what it sent.
"""

import threading
import time
from collections.abc import Callable

import numpy as np

from bench.workload import PAGES, SEED, SHARES
from generator.pace import Pace
from generator.publish import Publisher
from generator.stream import Scenario, Stream
from hotpath.errors import Unavailable
from hotpath.settings import Settings

FLUSH_DEADLINE_S = 90
LINGER_MS = 50
"""Ten times what producers take by default, which leaves 100,000 events/s over 16 partitions 30 messages a request: the
producer's requests, not the pipeline, would use up the machine."""
HELD_PAUSE_S = 0.01


def machine_clock_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class Load:
    """A `with` block of traffic; once it has ended, `truth` is exact."""

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        users: int,
        rate: float,
        clock_us: Callable[[], int] = machine_clock_us,
    ) -> None:
        """`rate`: events/s, 0 for as many as go; `clock_us`: the time of events."""
        self.hold: Callable[[], bool] = lambda: False
        """While this says so, nothing is sent; looked at between batches."""
        run = f"load{time.time_ns() // 10**6 % 10**8}"
        self._stream = Stream(Scenario(SEED, users, PAGES, SHARES, partitions, run))
        self._publisher = Publisher(settings, delivery_timeout_s=60, linger_ms=LINGER_MS)
        self._pace = Pace(rate, time.monotonic())
        self._clock_us = clock_us
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def set_rate(self, rate: float) -> None:
        """Go on at another rate."""
        self._pace.set_rate(rate, time.monotonic())

    @property
    def sent(self) -> int:
        """Messages handed to the producer so far."""
        return self._publisher.sent

    def truth(self) -> dict[str, int]:
        """Class label to the number of messages that must end in it."""
        return self._stream.truth()

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Raises Unavailable when Kafka did not take all of it."""
        self._stop.set()
        self._thread.join()
        if kind is not None:
            return
        self._publisher.flush(FLUSH_DEADLINE_S)
        if self._error is not None:
            raise self._error
        if self._publisher.delivered < self.sent:
            raise Unavailable(
                f"Kafka took {self._publisher.delivered:,} of {self.sent:,} events ({self._publisher.first_failure})"
            )

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                count = 0 if self.hold() else self._pace.due(time.monotonic())
                if count:
                    now_us = self._clock_us()
                    self._publisher.send(self._stream.take(np.full(count, now_us, np.int64), now_us))
                else:
                    self._publisher.poll()
                pause_s = self._pace.pause_s(time.monotonic()) if count else HELD_PAUSE_S
                if pause_s:
                    time.sleep(pause_s)
        except BaseException as error:
            self._error = error
