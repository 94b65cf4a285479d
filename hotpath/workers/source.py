"""The source: messages of the worker's logs, in chunks, and what is known of each log's end.

It owns the Kafka consumer and, per log, whether the log was seen at its end with nothing newer. Positions come from
Postgres, never from Kafka: offsets committed to Kafka follow Postgres's and are there to be monitored.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from hotpath import clock
from hotpath.errors import PositionLost, Unavailable
from hotpath.kafka import any_broker_up, client_log, client_options
from hotpath.settings import PipelineSettings
from hotpath.workers.logs import LogHandle

log = logging.getLogger(__name__)

CommitOffsets = Callable[[list[TopicPartition]], None]
"""Tells Kafka, or has it told, the offsets to go on from. Raises KafkaException."""

POSITION_LOST = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
END_SEEN_WITHIN_US = 1_500_000
"""A broker that was silent for longer than a fetch may wait (0.5 s), with room to spare, proves nothing."""


@dataclass(frozen=True)
class Chunk:
    """Messages consumed together, sorted by log and within a log by offset.

    values: the messages' bytes, None for a null value; log_indexes: int16[n], into the worker's logs;
    offsets: int64[n]; append_times_us: int64[n], when the broker appended each one (or, for topics without
    LogAppendTime, when it was consumed), microseconds since 1970; sample: one of the messages.
    """

    values: list[bytes | None]
    log_indexes: np.ndarray
    offsets: np.ndarray
    append_times_us: np.ndarray
    sample: Message

    def __len__(self) -> int:
        return len(self.values)


class Source:
    """Consumes the given logs from the offsets that Postgres holds for them."""

    def __init__(
        self,
        settings: PipelineSettings,
        topic: str,
        handles: list[LogHandle],
        status: np.ndarray,
        page: np.void,
        commit_offsets: CommitOffsets | None = None,
    ) -> None:
        """`status` (LOG_STATUS_DTYPE) has a row per handle; `page` is the control page. Raises Unavailable.

        `commit_offsets`: used instead of this client's own commits, which Kafka refuses while the group has members.
        """
        self._topic = topic
        self._status = status
        self._page = page
        self._index_of = {handle.partition: index for index, handle in enumerate(handles)}
        self._index_by_partition = np.full(max(self._index_of, default=0) + 1, -1, np.int16)
        for partition, index in self._index_of.items():
            self._index_by_partition[partition] = index
        self._at_end = np.zeros(len(handles), bool)
        self._end_offsets = np.zeros(len(handles), np.int64)
        self._timeout_error_at = 0.0
        try:
            self._consumer = Consumer(self._options(settings), logger=client_log)
        except KafkaException as error:
            raise Unavailable(f"Kafka client: {error.args[0].str()}; see HOTPATH_KAFKA_OPTIONS") from None
        self._commit_offsets = commit_offsets or self._commit
        self._assigned = [TopicPartition(topic, handle.partition, handle.next_offset) for handle in handles]
        self._consumer.assign(self._assigned)

    def _options(self, settings: PipelineSettings) -> dict[str, object]:
        return client_options(
            settings,
            **{
                "group.id": settings.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",  # a position that is gone is a loss to be told, not to be skipped
                "enable.partition.eof": True,  # how "quiet" is told from "behind"
                "fetch.queue.backoff.ms": 5,  # 1000 by default: starves a consumer that empties the queue
                "queued.min.messages": 50_000,
                "queued.max.messages.kbytes": 32_768,  # bounds memory whatever the backlog
                "fetch.min.bytes": 32_768,  # 1 by default: an answer for each few messages, when they come fast
                "fetch.wait.max.ms": 50,  # but not longer than this; the end of a log is heard of as often
                "statistics.interval.ms": 1_000,
                "stats_cb": self._on_statistics,
                "error_cb": self._on_error,
            },
        )

    def poll(self, messages_max: int, timeout_s: float) -> Chunk | None:
        """Up to `messages_max` messages, or None when there are none within `timeout_s`.

        Raises PositionLost when a log no longer holds the offset to go on from.
        """
        messages = self._consumer.consume(messages_max, timeout_s)
        if not messages:
            return None
        ended: dict[int, int] = {}
        if any(map(Message.error, messages)):
            messages = self._messages_among(messages, ended)
        chunk = self._chunk(messages) if messages else None
        # Only now: the end of a log lies behind those of its messages that came along with the news of it.
        for index, offset in ended.items():
            self._note_end(index, offset)
        return chunk

    def _chunk(self, messages: list[Message]) -> Chunk:
        partitions = np.fromiter(map(Message.partition, messages), np.int32, len(messages))
        log_indexes = self._index_by_partition[partitions]
        if np.any(log_indexes[1:] < log_indexes[:-1]):
            order = np.argsort(log_indexes, kind="stable")
            log_indexes = log_indexes[order]
            messages = [messages[i] for i in order.tolist()]
        lasts = np.flatnonzero(np.append(log_indexes[1:] != log_indexes[:-1], True))
        offsets = _offsets(messages, lasts)
        values = list(map(Message.value, messages))
        chunk = Chunk(values, log_indexes, offsets, _append_times(messages), messages[0])
        touched = log_indexes[lasts]
        self._at_end[touched] = False
        self._status["consumed"][touched] = offsets[lasts] + 1
        self._status["log_end"][touched] = np.maximum(self._status["log_end"][touched], offsets[lasts] + 1)
        return chunk

    def _messages_among(self, entries: list[Message], ended: dict[int, int]) -> list[Message]:
        """The messages of consume()'s list; puts the logs that are at their end, and the offset there, into `ended`."""
        messages = []
        for entry in entries:
            error = entry.error()
            if error is None:
                messages.append(entry)
                ended.pop(self._index_of[entry.partition()], None)  # it was at its end, and is so no more
            elif error.code() == KafkaError._PARTITION_EOF:
                ended[self._index_of[entry.partition()]] = entry.offset()
            else:
                self._refuse(entry, error)
        return messages

    def _note_end(self, index: int, end_offset: int) -> None:
        self._at_end[index] = True
        self._end_offsets[index] = end_offset
        # The end of a log can lie behind its last message: transaction markers have offsets, too.
        self._status["log_end"][index] = self._status["consumed"][index]
        self._status["ended_offset"][index] = self._status["consumed"][index]
        self._status["ended_at_us"][index] = clock.now_us()

    def _refuse(self, message: Message, error: KafkaError) -> None:
        """An entry that is neither a message nor a log's end."""
        if error.code() in POSITION_LOST:
            raise PositionLost(
                f"topic {message.topic()!r}, partition {message.partition()}: the offset to go on from is no "
                f"longer in the log ({error.str()})"
            )
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        self._page["kafka_errors"] += 1
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._page["kafka_down"] = 1
        if error.fatal():
            raise KafkaException(error)
        now = time.monotonic()
        if now - self._timeout_error_at > 5:  # librdkafka repeats itself several times a second
            self._timeout_error_at = now
            log.warning("Kafka: %s", error.str())

    def _on_statistics(self, text: str) -> None:
        """Once a second: how far each log reaches, and that a log still stands at the end it was seen at."""
        statistics = orjson.loads(text)
        brokers = {broker["nodeid"]: broker for broker in statistics["brokers"].values()}
        self._page["kafka_down"] = 0 if any_broker_up(statistics) else 1
        partitions = statistics["topics"].get(self._topic, {}).get("partitions", {})
        for partition in partitions.values():
            index = self._index_of.get(partition["partition"])
            if index is None:
                continue
            end = partition["ls_offset"]  # transactions that are still open are not to be waited for
            leader = brokers.get(partition["leader"])
            if not self._at_end[index]:
                self._status["log_end"][index] = max(int(self._status["log_end"][index]), end)
            elif leader is not None and leader["state"] == "UP" and end <= self._end_offsets[index]:
                # `time` is whole seconds, cut: early rather than late is right here.
                silent_us = max(leader["rxidle"], 0)
                if silent_us < END_SEEN_WITHIN_US and partition["fetch_state"] == "active":
                    seen_at = statistics["time"] * 1_000_000 + clock.offset_us() - silent_us
                    self._status["ended_at_us"][index] = max(int(self._status["ended_at_us"][index]), seen_at)

    def pause(self) -> None:
        """Fetch nothing more until `resume`; go on polling meanwhile."""
        self._consumer.pause(self._assigned)

    def resume(self) -> None:
        self._consumer.resume(self._assigned)

    def report_committed(self) -> None:
        """Tell Kafka, for its monitoring tools, how far Postgres is. It is never read back."""
        offsets = [
            TopicPartition(self._topic, int(row["partition"]), int(row["committed"])) for row in self._status
        ]
        try:
            self._commit_offsets(offsets)
        except KafkaException as error:
            self._on_error(error.args[0])

    def _commit(self, offsets: list[TopicPartition]) -> None:
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        self._consumer.close()


def _offsets(messages: list[Message], lasts: np.ndarray) -> np.ndarray:
    """Offset of each message: int64[n]. `lasts`: the places of the last message of each log.

    Offsets rise within a log. As many messages as there are numbers from the first to the last have all of those, so
    that only logs with gaps (transactions, compaction) are asked message by message: 0.03 µs each.
    """
    offsets = np.empty(len(messages), np.int64)
    first = 0
    for last in lasts.tolist():
        begin, end, rows = messages[first].offset(), messages[last].offset() + 1, slice(first, last + 1)
        if end - begin == last + 1 - first:
            offsets[rows] = np.arange(begin, end)
        else:
            offsets[rows] = np.fromiter(map(Message.offset, messages[rows]), np.int64, last + 1 - first)
        first = last + 1
    return offsets


def _append_times(messages: list[Message]) -> np.ndarray:
    """Microseconds since 1970 at which each message was appended: int64[n]."""
    stamps = map(Message.timestamp, messages)
    now_ms = clock.now_us() // 1_000
    times_ms = [stamp if kind == TIMESTAMP_LOG_APPEND_TIME else now_ms for kind, stamp in stamps]
    return np.fromiter(times_ms, np.int64, len(messages)) * 1_000
