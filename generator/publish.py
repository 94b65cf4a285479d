"""Batches into Kafka, in order, with a count of what arrived.

State: the librdkafka producer and the counts. Delivery reports are asked for failures only (a report per
message costs a microsecond of Python each) unless somebody wants to see each message, so
delivered = sent - failed - still in the queue.

Invariants: a log holds its messages in the order in which they were sent (idempotent producer; a full queue
is waited for, and nothing behind the message that waits is sent first); nothing is dropped in silence: a
message that Kafka does not acknowledge in time is counted as failed.

`Producer.produce` rather than `produce_batch`: measured on 2.16 both take 0.7 µs a message, but
produce_batch ignores a message's own partition, and on a full queue goes on with later messages, so that
a retry would change their order.
"""

from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from generator.stream import Batch
from hotpath.errors import ConfigError, Unavailable
from hotpath.kafka import client_log, client_options
from hotpath.partitioner import LIBRDKAFKA_NAMES
from hotpath.settings import Settings

QUEUE_MESSAGES_MAX = 100_000
"""Messages that wait in the producer: a third of a second at full speed, about 30 MB."""
QUEUE_KIB_MAX = 1 << 20
"""Never the limit that is met first: the largest messages are few."""
LINGER_MS = 5
"""Time to fill a batch: as long as a tick of the pace, so that each log gets one batch a tick at most."""


class Publisher:
    """A producer for one topic."""

    def __init__(
        self,
        settings: Settings,
        delivery_timeout_s: float = 30,
        settled: Callable[[KafkaError | None, Message], None] | None = None,
        linger_ms: int = LINGER_MS,
    ) -> None:
        """`settled` is told of every message that was acknowledged or has failed, in `send`, `poll` or `flush`.
        `kafka_options` of the settings go over all that is chosen here. Raises ConfigError when librdkafka
        refuses one."""
        self._settled = settled
        self.sent = 0
        self.failed = 0
        self.first_failure = ""
        self.trouble = ""
        """What is wrong with the connection now, empty when nothing was heard of."""
        self._topic = settings.topic
        defaults = {
            "client.id": "hotpath-generator",
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": QUEUE_MESSAGES_MAX,
            "queue.buffering.max.kbytes": QUEUE_KIB_MAX,
            "message.timeout.ms": round(1_000 * delivery_timeout_s),
            "partitioner": LIBRDKAFKA_NAMES[settings.partitioner],
        }
        reports = {
            "delivery.report.only.error": settled is None,
            "on_delivery": self._on_report,
            "error_cb": self._on_error,
        }
        try:
            self._producer = Producer({**client_options(settings, **defaults), **reports}, logger=client_log)
        except KafkaException as error:
            raise ConfigError(f"HOTPATH_KAFKA_OPTIONS: {error.args[0].str()}") from None

    @property
    def delivered(self) -> int:
        """Messages that Kafka has acknowledged: exact between calls of `send`, once `flush` returned 0."""
        return max(0, self.sent - self.failed - len(self._producer))

    def send(self, batch: Batch) -> None:
        """Hand a batch to the producer, waiting while its queue is full.

        The wait is bounded: messages that Kafka does not take leave the queue as failed after the delivery
        timeout. Raises Unavailable when the producer cannot go on at all.
        """
        produce, topic = self._producer.produce, self._topic
        self.sent += len(batch)
        rows = zip(batch.keys, batch.values, batch.partitions, strict=True)
        for row, (key, value, partition) in enumerate(rows):
            while True:
                try:
                    produce(topic, value, key, partition)
                    break
                except BufferError:
                    self._producer.poll(0.01)
                except KafkaException as error:
                    self.failed += len(batch) - row
                    self.first_failure = self.first_failure or error.args[0].str()
                    raise Unavailable(f"Kafka's producer cannot go on: {error.args[0].str()}") from None
        self._producer.poll(0)

    def poll(self) -> None:
        """Learn of failures and errors; call it often, also when there is nothing to send."""
        self._producer.poll(0)

    def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged or failed; returns how many messages still wait."""
        return self._producer.flush(timeout_s)

    def _on_report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed += 1
            self.first_failure = self.first_failure or error.str()
        if self._settled is not None:
            self._settled(error, message)

    def _on_error(self, error: KafkaError) -> None:
        self.trouble = error.str()
