"""Sends messages that ended in quarantine again, whole and with their keys, once.

Quarantine keeps the beginning of a message only; the whole is read from Kafka by its offset. A message is sent again
when the rules have changed since it was refused, and not a second time. That it was is noted in its quarantine row:
the note lives as long as what can be replayed at all, and asking it costs no search of the log for the header that
goes with each replay. The note comes first: should this process end in between, the message is not sent (and can be,
by force), rather than twice.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from hotpath import sql
from hotpath.errors import Unavailable
from hotpath.kafka import client_log, client_options
from hotpath.partitioner import LIBRDKAFKA_NAMES
from hotpath.settings import Settings

HEADER = "hotpath-replayed-from"
"""Header of a message that was sent again; its value is partition/offset of the first one."""
FETCH_TIMEOUT_S = 15.0
DELIVERY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Quarantined:
    """A row of quarantine; `rules` are those that refused the message, None when nobody knows any more."""

    log_id: int
    topic_id: str
    partition: int
    offset: int
    event_class: str
    detail: str
    payload: bytes
    payload_size: int
    stored_at: datetime
    replayed_at: datetime | None
    rules: dict[str, int | str] | None


@dataclass(frozen=True)
class Outcome:
    """What became of one message: `refusal` says why it was not sent, else it went to partition and offset."""

    row: Quarantined
    refusal: str = ""
    partition: int | None = None
    offset: int | None = None


class Fetcher:
    """Reads single messages by their offsets. Owns a consumer that joins no group and commits nothing."""

    def __init__(self, settings: Settings) -> None:
        options = client_options(
            settings,
            **{
                "group.id": settings.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
            },
        )
        self._topic = settings.topic
        try:
            self._consumer = Consumer(options, logger=client_log)
        except KafkaException as error:
            raise Unavailable(f"Kafka client: {error.args[0].str()}; see HOTPATH_KAFKA_OPTIONS") from None

    def close(self) -> None:
        self._consumer.close()

    def fetch(self, partition: int, offset: int) -> Message | None:
        """The message; None when it is no longer there. Raises Unavailable."""
        self._consumer.assign([TopicPartition(self._topic, partition, offset)])
        deadline = time.monotonic() + FETCH_TIMEOUT_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                return message if message.offset() == offset else None
            if error.code() in (
                KafkaError._PARTITION_EOF,
                KafkaError._AUTO_OFFSET_RESET,
                KafkaError.OFFSET_OUT_OF_RANGE,
            ):
                return None
            if error.fatal() or not error.retriable():
                raise Unavailable(f"Kafka: {error.str()}")
        raise Unavailable(f"Kafka gave nothing of partition {partition} in {FETCH_TIMEOUT_S:g} s")


class Replay:
    """Replays messages of the topic's present incarnation."""

    def __init__(
        self, settings: Settings, topic_id: str, connection: psycopg.Connection, *, force: bool, dry_run: bool
    ) -> None:
        """`connection` is in autocommit mode. `dry_run`: only say what would be sent."""
        self._settings = settings
        self._topic_id = topic_id
        self._connection = connection
        self._force = force
        self._dry_run = dry_run
        self._delivered: dict[tuple[int, int], Message | KafkaError] = {}
        self._fetcher = Fetcher(settings)
        self._producer = Producer(
            client_options(
                settings,
                **{
                    "partitioner": LIBRDKAFKA_NAMES[settings.partitioner],
                    "enable.idempotence": True,
                    "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1_000),
                },
            ),
            logger=client_log,
        )

    def close(self) -> None:
        self._fetcher.close()

    def run(self, rows: Iterable[Quarantined]) -> Iterator[Outcome]:
        """Send these, in their order; one outcome for each. Raises Unavailable and psycopg.Error."""
        for row in rows:
            refusal = self._why_not(row)
            message = None if refusal else self._fetcher.fetch(row.partition, row.offset)
            if not refusal and message is None:
                refusal = "Kafka has it no more, and quarantine keeps only its beginning"
            if refusal or self._dry_run:
                yield Outcome(row, refusal)
            else:
                yield self._send(row, message)

    def _why_not(self, row: Quarantined) -> str:
        if row.topic_id != self._topic_id:
            return "it was in an earlier incarnation of the topic"
        if self._force:
            return ""
        if row.replayed_at is not None:
            return f"it was replayed at {row.replayed_at:%Y-%m-%d %H:%M:%S} already; --force sends it again"
        if row.rules == self._settings.rules():
            return "the rules are still those that refused it; change them, or --force"
        return ""

    def _send(self, row: Quarantined, message: Message) -> Outcome:
        claim = {"log_id": row.log_id, "offset": row.offset, "force": self._force}
        if self._connection.execute(sql.QUERIES["claim_replay"], claim).fetchone() is None:
            return Outcome(row, "somebody else has just replayed it, or it has left quarantine")
        place = (row.partition, row.offset)
        headers = [*(message.headers() or ()), (HEADER, f"{row.partition}/{row.offset}".encode())]
        # A key finds its partition; a message without one goes where it was.
        where = {"partition": row.partition} if message.key() is None else {}
        try:
            self._producer.produce(
                self._settings.topic,
                message.value(),
                message.key(),
                headers=headers,
                on_delivery=lambda error, sent: self._delivered.__setitem__(place, error or sent),
                **where,
            )
            self._producer.flush(DELIVERY_TIMEOUT_S + 5)
        except KafkaException as error:
            self._delivered[place] = error.args[0]
        sent = self._delivered.pop(place, None)
        if isinstance(sent, Message):
            return Outcome(row, partition=sent.partition(), offset=sent.offset())
        why = sent.str() if sent is not None else "no answer"
        return Outcome(row, f"Kafka: {why}; whether it was sent is not known: look, then --force")
