"""`python -m hotpath.topic --partitions 16`: makes the topic as the pipeline wants it, unless it is there."""

import logging
import sys

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic
from pydantic import Field

from hotpath.console import configure_logging, exit_code_of
from hotpath.errors import Unavailable
from hotpath.kafka import admin_client, check_broker, why
from hotpath.settings import Settings, load

log = logging.getLogger(__name__)

PROGRAM = "python -m hotpath.topic"
REQUEST_TIMEOUT_S = 15


class TopicSettings(Settings):
    """How the topic is made."""

    partitions: int = Field(16, ge=1, le=10_000, description="partitions: the most workers that can share it")
    replication_factor: int = Field(1, ge=1, le=100, description="brokers that keep each partition")
    retention_hours: int = Field(
        24, ge=1, description="how long Kafka keeps events: the outage that is survived"
    )


def make_topic(settings: TopicSettings) -> bool:
    """Make the topic; False when it is there already, and left as it is. Raises Unavailable."""
    wanted = NewTopic(
        settings.topic,
        settings.partitions,
        settings.replication_factor,
        # The rule `future` compares with the append time; a client's own clock could not be trusted for it.
        config={
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(settings.retention_hours * 3_600_000),
        },
    )
    admin = admin_client(settings)
    try:
        admin.create_topics([wanted], request_timeout=REQUEST_TIMEOUT_S)[settings.topic].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise Unavailable(why(settings, error)) from None
    return True


def run(arguments: list[str]) -> None:
    """The command. Raises HotpathError."""
    settings = load(TopicSettings, arguments, PROGRAM)
    configure_logging(settings, "topic")
    check_broker(settings)
    made = make_topic(settings)
    log.info("topic %r %s", settings.topic, "is made" if made else "is there already")


def main() -> int:
    return exit_code_of(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
