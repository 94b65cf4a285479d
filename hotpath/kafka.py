"""What every Kafka client of the project shares: options, the topic's description, and where its logs begin and end."""

import logging
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from hotpath.errors import Unavailable
from hotpath.settings import Settings

log = logging.getLogger(__name__)

client_log = logging.getLogger("librdkafka")
"""Where librdkafka's own lines go."""


@dataclass(frozen=True)
class Topic:
    """One incarnation of a topic: a topic that is deleted and made again has another `topic_id`."""

    name: str
    topic_id: str
    partitions: int


def client_options(settings: Settings, **own: object) -> dict[str, object]:
    """librdkafka's options: ours, and over them those that the user set."""
    return {"bootstrap.servers": settings.kafka_bootstrap, **own, **settings.kafka_options}


def admin_client(settings: Settings) -> AdminClient:
    """An administration client. Raises Unavailable when librdkafka refuses an option."""
    try:
        return AdminClient(client_options(settings), logger=client_log)
    except KafkaException as error:
        raise Unavailable(
            f"Kafka client: {error.args[0].str()}; see HOTPATH_KAFKA_BOOTSTRAP and HOTPATH_KAFKA_OPTIONS"
        ) from None


def describe_topic(settings: Settings, timeout_s: float = 10, admin: AdminClient | None = None) -> Topic:
    """The topic as the broker knows it. Raises Unavailable when the broker or the topic is not there.

    `admin`: a client to ask by, for callers who ask again and again.
    """
    admin = admin or admin_client(settings)
    found = admin.describe_topics(TopicCollection([settings.topic]), request_timeout=timeout_s)
    try:
        description = found[settings.topic].result(timeout_s + 1)
    except KafkaException as error:
        raise Unavailable(why(settings, error)) from None
    except TimeoutError:
        raise Unavailable(f"Kafka at {settings.kafka_bootstrap} did not answer in {timeout_s:g} s") from None
    return Topic(settings.topic, str(description.topic_id), len(description.partitions))


def check_broker(settings: Settings, timeout_s: float = 5) -> None:
    """Return when a broker answers. Raises Unavailable."""
    try:
        admin_client(settings).list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise Unavailable(why(settings, error)) from None


def why(settings: Settings, error: KafkaException) -> str:
    """One line about a broker or topic that does not answer as it should."""
    reason = error.args[0]
    if reason.name() == "UNKNOWN_TOPIC_OR_PART":
        return f"topic {settings.topic!r} does not exist at {settings.kafka_bootstrap}; create it, or set HOTPATH_TOPIC"
    return f"Kafka at {settings.kafka_bootstrap}: {reason.str()}; is it running, and is HOTPATH_KAFKA_BOOTSTRAP right?"


def any_broker_up(statistics: dict) -> bool:
    """Whether a client's statistics know of a broker that answers."""
    return any(b["state"] == "UP" and b["nodeid"] >= 0 for b in statistics["brokers"].values())


def log_ranges(
    settings: Settings, partitions: list[int], timeout_s: float = 10
) -> dict[int, tuple[int, int]]:
    """Per partition the first offset that is still kept and the one after the last. Raises Unavailable."""
    admin = admin_client(settings)
    ends = []
    for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
        asked = {TopicPartition(settings.topic, partition): spec for partition in partitions}
        futures = admin.list_offsets(asked, request_timeout=timeout_s)
        try:
            ends.append({tp.partition: future.result(timeout_s + 1).offset for tp, future in futures.items()})
        except KafkaException as error:
            raise Unavailable(why(settings, error)) from None
        except TimeoutError:
            raise Unavailable(
                f"Kafka at {settings.kafka_bootstrap} did not answer in {timeout_s:g} s"
            ) from None
    first, after_last = ends
    return {partition: (first[partition], after_last[partition]) for partition in partitions}
