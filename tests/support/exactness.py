"""The proof that Postgres holds exactly what a topic says: every message through the plain reference, row by row."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

from hotpath.events import EventClass
from hotpath.reference import Reference
from tests.support.pipeline import Topic
from tests.support.stored import assert_ledger_agrees

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TABLES = {"accepted": "events", "late": "late_events"}


def read_topic(topic: Topic) -> list[tuple[int, int, bytes | None, int]]:
    """(partition, offset, value, append time in microseconds) of every message, by partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": topic.bootstrap,
            **topic.options,
            "group.id": "exactness",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic.name, partition, 0) for partition in range(topic.partitions)])
    found, ended = [], set()
    while len(ended) < topic.partitions:
        for message in consumer.consume(5_000, 1):
            if message.error() is None:
                at_us = message.timestamp()[1] * 1_000
                found.append((message.partition(), message.offset(), message.value(), at_us))
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
    consumer.close()
    return sorted(found, key=lambda entry: entry[:2])


def assert_exact(topic: Topic, dsn: str) -> Counter[str]:
    """Nothing is lost, nothing is there twice, nothing is different; how many messages there are of each class."""
    reference = Reference()
    rows: dict[str, list[tuple]] = {"accepted": [], "late": [], "quarantine": []}
    counts: Counter[tuple[int, str]] = Counter()
    for partition, offset, value, at_us in read_topic(topic):
        outcome = reference.classify(partition, value, at_us)
        counts[partition, outcome.event_class] += 1
        if outcome.event_class in TABLES:
            texts = [text.decode() for text in outcome.texts]
            rows[outcome.event_class].append((partition, offset, outcome.time_us, *texts))
        else:
            rows["quarantine"].append((partition, offset, outcome.event_class))
    with psycopg.connect(dsn, autocommit=True) as connection:
        logs = dict(
            connection.execute(
                "select log_id, partition from partition_state where topic = %s", [topic.name]
            ).fetchall()
        )
        for event_class, table in TABLES.items():
            stored = connection.execute(
                f"select log_id, kafka_offset, ts, user_id, event_type, page_url, session_id from {table}"
            ).fetchall()
            found = [
                (logs[log_id], offset, (at - EPOCH) // timedelta(microseconds=1), *texts)
                for log_id, offset, at, *texts in stored
            ]
            assert sorted(found) == rows[event_class], table
        quarantine = connection.execute("select log_id, kafka_offset, class from quarantine").fetchall()
        assert sorted((logs[log_id], *rest) for log_id, *rest in quarantine) == rows["quarantine"]
        labels = [c.label for c in EventClass]
        sums = ", ".join(f"sum({label})::bigint" for label in labels)
        for log_id, *of_log in connection.execute(f"select log_id, {sums} from ledger group by log_id"):
            expected = [counts[logs[log_id], label] for label in labels]
            assert of_log == expected, f"ledger of partition {logs[log_id]}"
    assert_ledger_agrees(dsn)
    totals: Counter[str] = Counter()
    for (_, event_class), count in counts.items():
        totals[event_class] += count
    return totals
