"""Reads Kafka's log for a proof: one partition after the other, from an offset up to an offset, and nothing else.

Its consumer is assigned and never commits: it joins no group, and no offset anywhere is moved by it. Offsets may be
missing (compacted topics, transactions); what is skipped over is not waited for.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from hotpath.errors import Unavailable
from hotpath.kafka import client_log, client_options
from hotpath.settings import Settings

MESSAGES_MAX = 2_000
"""Messages that are looked at together: the size that decoding is fastest at (see settings.chunk_rows_max)."""
SILENCE_MAX_S = 30.0
"""So long without a message or the end of the log, and Kafka counts as away."""
POLL_S = 0.2


@dataclass(frozen=True)
class Messages:
    """Messages of one log, n of them, by rising offset.

    values: bytes, None for a null value; offsets: int64[n]; append_times_us: int64[n], microseconds since 1970, -1
    where the broker did not say when it appended.
    """

    values: list[bytes | None]
    offsets: np.ndarray
    append_times_us: np.ndarray

    def part(self, start: int, stop: int) -> "Messages":
        if start == 0 and stop == len(self.values):
            return self
        cut = slice(start, stop)
        return Messages(self.values[cut], self.offsets[cut], self.append_times_us[cut])


class LogReader:
    """Owns the consumer. One log is read at a time."""

    def __init__(self, settings: Settings) -> None:
        options = client_options(
            settings,
            **{
                "group.id": settings.group,  # never joined: a right to read it is all that is needed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 5,
                "queued.min.messages": 50_000,
                "queued.max.messages.kbytes": 32_768,
                "fetch.wait.max.ms": 20,  # a fetch at the end of the last log must not hold up the next log
            },
        )
        try:
            self._consumer = Consumer(options, logger=client_log)
        except KafkaException as error:
            raise Unavailable(f"Kafka client: {error.args[0].str()}; see HOTPATH_KAFKA_OPTIONS") from None
        self._topic = settings.topic
        self.end: int | None = None
        """Where the log that was read last was seen to end; None when it goes on beyond what was asked for."""

    def close(self) -> None:
        self._consumer.close()

    def offsets_at(self, partitions: list[int], time_us: int) -> dict[int, int]:
        """Per partition the first offset appended at or after a time; those without one are left out."""
        asked = [TopicPartition(self._topic, partition, time_us // 1_000) for partition in partitions]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=10)
        except KafkaException as error:
            raise Unavailable(f"Kafka: {error.args[0].str()}") from None
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def read(self, partition: int, first: int, next_offset: int) -> Iterator[Messages]:
        """Messages of offsets [first, next_offset). Raises Unavailable when Kafka does not give them."""
        self.end = None
        if first >= next_offset:
            return
        self._consumer.assign([TopicPartition(self._topic, partition, first)])
        heard_at = time.monotonic()
        reached = first
        while True:
            # No more than there can be: it would wait for the rest until the time-out.
            batch = self._consumer.consume(min(MESSAGES_MAX, next_offset - reached), POLL_S)
            if batch:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_MAX_S:
                raise Unavailable(
                    f"Kafka sent nothing of topic {self._topic!r}, partition {partition}, for {SILENCE_MAX_S:g} s"
                )
            if any(map(Message.error, batch)):
                batch = [message for message in batch if self._is_message(message)]
            done = self.end is not None
            if batch and batch[-1].offset() >= next_offset - 1:
                batch = [message for message in batch if message.offset() < next_offset]
                self.end, done = None, True
            if batch:
                reached = batch[-1].offset() + 1
                yield _messages(batch)
            if done:
                return

    def _is_message(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self.end = message.offset()
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise Unavailable(
                f"topic {self._topic!r}, partition {message.partition()}: retention passed the offset that was to be "
                "read next; begin later (--from)"
            )
        elif error.fatal() or not error.retriable():
            raise Unavailable(f"Kafka: {error.str()}")
        return False


def _messages(batch: list[Message]) -> Messages:
    count = len(batch)
    stamps = map(Message.timestamp, batch)
    times_ms = [stamp if kind == TIMESTAMP_LOG_APPEND_TIME else None for kind, stamp in stamps]
    if None in times_ms:
        times_us = [-1 if stamp is None else stamp * 1_000 for stamp in times_ms]
        append_times_us = np.array(times_us, np.int64)
    else:
        append_times_us = np.fromiter(times_ms, np.int64, count) * 1_000
    offsets = np.fromiter(map(Message.offset, batch), np.int64, count)
    return Messages([message.value() for message in batch], offsets, append_times_us)
