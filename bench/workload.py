"""The standard workload, which every figure of this project is measured on.

A million people, none over one page view a second, 1.2 sessions each; a thousand pages by Zipf's law; 0.5 %
malformed messages, 0.5 % bot events, 0.1 % late ones; timestamps as if the events had been produced at the
rate at which they are to be consumed. (Plain Zipf over people would make bots of the first few by the rule.)

It is the generator's stream under a clock of its own, so the two cannot drift apart. What grows with its numbers is
asked by changing one of them (`bench.scale`). State: the place in it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import orjson

from generator.plan import Shares
from generator.publish import Publisher
from generator.stream import Batch, Scenario, Stream
from hotpath.errors import Unavailable
from hotpath.settings import Settings

SEED = 7
USERS = 1_000_000
PAGES = 1_000
SHARES = Shares(bots=0.005, malformed=0.005, late=0.001)
AS_IF_RATE = 300_000
"""Events per second of event time, unless told otherwise: the sustained rate that is aimed for."""
BATCH_ROWS = 2_048
_PADDING_FIELD = ',"padding":""'
_US = 1_000_000


@dataclass(frozen=True)
class Filled:
    """What was put into a topic."""

    events: int
    value_bytes: int
    seconds: float
    truth: dict[str, int]  # class label to the number of messages that must end in it


class Workload:
    """`events` messages whose times end about now."""

    def __init__(
        self,
        events: int,
        *,
        partitions: int = 16,
        users: int = USERS,
        pages: int = PAGES,
        shares: Shares = SHARES,
        value_bytes: int = 0,
        as_if_rate: float = AS_IF_RATE,
    ) -> None:
        """`value_bytes`: messages of people and bots that are shorter are padded to so many, by a field more."""
        self.events = events
        self._value_bytes = value_bytes
        self._began_us = time.time_ns() // 1_000 - round(events / as_if_rate * _US)
        self._step_us = _US / as_if_rate
        run = f"bench{time.time_ns() // _US % 10**8}"
        self._stream = Stream(Scenario(SEED, users, pages, shares, partitions, run))

    def batches(self, rows_max: int = BATCH_ROWS) -> Iterator[Batch]:
        """All messages, up to `rows_max` at a time."""
        for start in range(0, self.events, rows_max):
            indexes = np.arange(start, min(start + rows_max, self.events))
            times_us = self._began_us + (indexes * self._step_us).astype(np.int64)
            batch = self._stream.take(times_us, time.time_ns() // 1_000)
            if self._value_bytes:
                batch.values = [padded(value, self._value_bytes) for value in batch.values]
            yield batch

    def truth(self) -> dict[str, int]:
        """Class label to the number of messages made so far that must end in it."""
        return self._stream.truth()


def padded(value: str | bytes | None, value_bytes: int) -> str | bytes | None:
    """An event of people or bots (text, ASCII) with a field more, so that it has so many bytes; others as they are."""
    if not isinstance(value, str):
        return value
    lacking = value_bytes - len(value) - len(_PADDING_FIELD)
    return value if lacking < 0 else f'{value[:-1]},"padding":"{"x" * lacking}"}}'


def prepared(events: int, **options: float) -> list[Batch]:
    """The workload in memory, for benchmarks of stages: about 0.4 KB a message."""
    return list(Workload(events, **options).batches())


def values_of(batches: list[Batch]) -> list[bytes]:
    """Values of messages as a consumer sees them; null ones as no bytes."""
    return [
        value.encode() if isinstance(value, str) else value or b""
        for batch in batches
        for value in batch.values
    ]


def parsable(values: list[bytes]) -> list[bytes]:
    """Those of `values` that are JSON objects, also as elements of an array (which is one level more)."""

    def is_object(value: bytes) -> bool:
        try:
            elements = orjson.loads(b"[" + value + b"]")
        except orjson.JSONDecodeError:
            return False
        return len(elements) == 1 and isinstance(elements[0], dict)

    return [value for value in values if is_object(value)]


def fill(
    settings: Settings, workload: Workload, progress: Callable[[int], None] = lambda sent: None
) -> Filled:
    """Put the workload into the settings' topic, as fast as it goes; `progress` is told how many were sent.

    Raises Unavailable when Kafka did not take all of it.
    """
    publisher = Publisher(settings, delivery_timeout_s=60)
    began = time.perf_counter()
    value_bytes = 0
    for batch in workload.batches():
        publisher.send(batch)
        value_bytes += sum(map(len, filter(None, batch.values)))
        progress(publisher.sent)
    publisher.flush(90)
    if publisher.delivered < publisher.sent:
        raise Unavailable(
            f"Kafka took {publisher.delivered:,} of {publisher.sent:,} events ({publisher.first_failure})"
        )
    return Filled(publisher.sent, value_bytes, time.perf_counter() - began, workload.truth())
