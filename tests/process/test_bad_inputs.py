"""Every bad input goes through Kafka and the whole pipeline, and ends, message by message, as the reference says."""

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from hotpath.events import EventClass
from hotpath.reference import Outcome, Reference
from tests.bad_inputs import BAD_INPUTS, SEQUENCES, message
from tests.support.pipeline import Pipeline, Topic

AMONG_GOOD, BAD_ONLY = 0, 1
"""The partitions that hold the table: each input between good neighbours; inputs alone, in another order."""
FIRST_SEQUENCE = 2
PARTITIONS = FIRST_SEQUENCE + len(SEQUENCES)
LARGEST_BYTES = "12000000"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PAYLOAD_KEPT_BYTES = 1_024

Place = tuple[int, int]
"""(partition, offset)."""


@dataclass(frozen=True)
class Sent:
    """A message as the log holds it."""

    partition: int
    offset: int
    value: bytes | None
    append_time_us: int

    @property
    def place(self) -> Place:
        return self.partition, self.offset


def good(number: int) -> bytes:
    return message(user_id=f"neighbour_{number}")


@pytest.fixture
def topic(kafka, new_topic) -> Topic:
    """A topic that takes the largest input, filled."""
    config = {"max.message.bytes": LARGEST_BYTES, "retention.bytes": "-1"}
    options = kafka.client_options | {"message.max.bytes": LARGEST_BYTES}
    topic = Topic(kafka.bootstrap, options, new_topic(PARTITIONS, config), PARTITIONS)
    values = [bad.value for bad in BAD_INPUTS]
    among = [value for number, bad in enumerate(values) for value in (good(number), bad)] + [good(-1)]
    topic.produce([(b"\xff", value) for value in among], AMONG_GOOD)
    random.Random(5).shuffle(values)
    topic.produce([(None, value) for value in values], BAD_ONLY)
    for number, sequence in enumerate(SEQUENCES, FIRST_SEQUENCE):
        topic.produce([(b"k", value) for value in sequence.values], number)
    return topic


def read(topic: Topic) -> list[Sent]:
    """What the log holds, and when it got it."""
    consumer = Consumer(
        {
            "bootstrap.servers": topic.bootstrap,
            **topic.options,
            "group.id": "reader",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic.name, partition, 0) for partition in range(topic.partitions)])
    sent, ended = [], set()
    while len(ended) < topic.partitions:
        for found in consumer.consume(1_000, 0.2):
            if found.error() is None:
                append_time_us = found.timestamp()[1] * 1_000
                sent.append(Sent(found.partition(), found.offset(), found.value(), append_time_us))
            else:
                assert found.error().code() == KafkaError._PARTITION_EOF, found.error()
                ended.add(found.partition())
    consumer.close()
    return sorted(sent, key=lambda one: one.place)


def outcomes(sent: list[Sent], bot_page_views_max: int) -> dict[Place, Outcome]:
    model = Reference(bot_page_views_max=bot_page_views_max)
    return {one.place: model.classify(one.partition, one.value, one.append_time_us) for one in sent}


def events_in(pipeline: Pipeline, table: str) -> dict[Place, tuple]:
    """What a table of events holds: (microseconds, texts) by place."""
    rows = pipeline.query(
        f"""SELECT partition, kafka_offset, ts, user_id, event_type, page_url, session_id
            FROM {table} JOIN partition_state USING (log_id)"""
    )
    found = {
        (partition, offset): ((ts - EPOCH) // timedelta(microseconds=1), tuple(map(str.encode, texts)))
        for partition, offset, ts, *texts in rows
    }
    assert len(found) == len(rows), "each place once"
    return found


def check_tables(pipeline: Pipeline, sent: list[Sent], expected: dict[Place, Outcome]) -> None:
    for table, name in (("events", "accepted"), ("late_events", "late")):
        assert events_in(pipeline, table) == {
            place: (outcome.time_us, outcome.texts)
            for place, outcome in expected.items()
            if outcome.event_class == name
        }
    rows = pipeline.query(
        """SELECT partition, kafka_offset, class, payload, payload_size
           FROM quarantine JOIN partition_state USING (log_id)"""
    )
    assert sorted(rows) == sorted(
        (
            *one.place,
            expected[one.place].event_class,
            (one.value or b"")[:PAYLOAD_KEPT_BYTES],
            len(one.value or b""),
        )
        for one in sent
        if expected[one.place].event_class not in ("accepted", "late")
    )
    bots = Counter(
        (place[0], outcome.texts[0].decode(), outcome.time_us // 1_000_000)
        for place, outcome in expected.items()
        if outcome.event_class == "bot"
    )
    rows = pipeline.query(
        """SELECT partition, user_id, extract(epoch FROM second)::bigint, sum(dropped)::int
           FROM bot_activity JOIN partition_state USING (log_id) GROUP BY 1, 2, 3"""
    )
    assert {(partition, user, second): count for partition, user, second, count in rows} == dict(bots)


def check_ledger(pipeline: Pipeline, topic: Topic, expected: dict[Place, Outcome]) -> None:
    columns = ", ".join(f"sum({event_class.label})::int" for event_class in EventClass)
    rows = pipeline.query(
        f"SELECT partition, sum(received)::int, {columns} FROM ledger JOIN partition_state USING (log_id) GROUP BY 1"
    )
    counted = Counter((place[0], outcome.event_class) for place, outcome in expected.items())
    for partition, received, *counts in rows:
        assert counts == [counted[partition, event_class.label] for event_class in EventClass]
        assert received == sum(counts)
    assert {row[0] for row in rows} == set(range(PARTITIONS))
    assert pipeline.positions() == topic.ends()


@pytest.mark.parametrize(
    "settings",
    [
        {"bot_page_views_max": 10},
        # Every message alone, in a chunk and a transaction of its own; and no row a bot because of the others.
        {"bot_page_views_max": 1_000, "chunk_rows_max": 1, "block_rows_max": 1},
    ],
    ids=["together", "one by one"],
)
def test_every_bad_input_ends_as_the_reference_says(topic: Topic, database: str, redis_url: str, settings):
    sent = read(topic)
    expected = outcomes(sent, settings["bot_page_views_max"])
    found = Counter(outcome.event_class for outcome in expected.values())
    assert found.keys() | {"bot"} == {event_class.label for event_class in EventClass}, (
        "every class is reached"
    )
    with Pipeline(topic, database, redis_url, **settings) as pipeline:
        pipeline.wait_until_applied(120)
        check_tables(pipeline, sent, expected)
        check_ledger(pipeline, topic, expected)
        neighbours = {
            place
            for place, (_, texts) in events_in(pipeline, "events").items()
            if texts[0].startswith(b"neighbour_")
        }
        assert neighbours == {(AMONG_GOOD, 2 * number) for number in range(len(BAD_INPUTS) + 1)}
        assert pipeline.stop() == 0
