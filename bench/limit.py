"""The yardstick that travels between machines: what no pipeline of this kind can do without.

L = cores / (CPU per event of: librdkafka consuming the topic and doing nothing, the broker serving it, orjson
parsing the payloads, the Postgres backend taking a raw COPY, the Redis server applying the same changes).
Everything is measured in the run that it is compared with.
"""

import gc
import time
from dataclasses import dataclass

import orjson
from confluent_kafka import Consumer, TopicPartition

from bench.harness import CpuMeter
from bench.workload import parsable
from hotpath.errors import Unavailable
from hotpath.kafka import client_options, log_ranges
from hotpath.settings import Settings

SAMPLE_ROWS = 100_000
"""Payloads that are parsed: more give the same figure."""
CHUNK_ROWS = 1_000
_CONSUME_ROWS = 2_000
_DEADLINE_S = 300


@dataclass(frozen=True)
class Consumed:
    """A topic read by a client that does nothing with it."""

    events: int
    seconds: float
    client_us: float  # CPU per event
    broker_us: float | None
    sample: list[bytes]


def consume_only(settings: Settings, partitions: int, kafka_pid: int | None) -> Consumed:
    """Read the topic from its beginning to the ends of its logs. Raises Unavailable when that does not work."""
    own = {
        "group.id": f"{settings.group}-limit",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        # A consumer that is faster than its fetches waits a second by default.
        "fetch.queue.backoff.ms": 5,
        "queued.max.messages.kbytes": 65_536,
        "log_level": 0,
    }
    ranges = log_ranges(settings, list(range(partitions)))
    expected = sum(end - first for first, end in ranges.values())
    consumer = Consumer(client_options(settings, **own))
    consumer.assign([TopicPartition(settings.topic, number, first) for number, (first, _) in ranges.items()])
    broker = CpuMeter({"broker": kafka_pid})
    began, cpu = time.perf_counter(), time.process_time()
    events, kept = 0, []
    while events < expected:
        if time.perf_counter() - began > _DEADLINE_S:
            raise Unavailable(f"topic {settings.topic}: {events:,} of {expected:,} read in {_DEADLINE_S} s")
        messages = consumer.consume(_CONSUME_ROWS, 0.2)
        events += len(messages)
        if len(kept) < SAMPLE_ROWS:
            kept += messages
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    broker_us = broker.us_per(events)["broker"]
    consumer.close()
    for message in kept:
        if message.error():
            raise Unavailable(f"topic {settings.topic}: {message.error().str()}")
    sample = [message.value() or b"" for message in kept]
    return Consumed(events, seconds, round(cpu / events * 1e6, 3), broker_us, sample)


def parse_us(values: list[bytes]) -> float:
    """CPU of orjson per event, in chunks that stay in the cache, garbage collection off."""
    good = parsable(values)
    chunks = [
        b"[" + b",".join(good[start : start + CHUNK_ROWS]) + b"]" for start in range(0, len(good), CHUNK_ROWS)
    ]
    gc.disable()
    try:
        cpu = time.process_time()
        for chunk in chunks:
            orjson.loads(chunk)
        return round((time.process_time() - cpu) / max(len(good), 1) * 1e6, 3)
    finally:
        gc.enable()


def limit(cores: int, parts_us: dict[str, float | None]) -> float | None:
    """Events/s that `cores` could do at best; None when a part is not known."""
    if None in parts_us.values():
        return None
    return round(cores / sum(parts_us.values()) * 1e6)
