"""The generator as a process, against a real Kafka."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from hotpath.partitioner import LIBRDKAFKA_NAMES, partition_for
from hotpath.reference import Reference
from tests.support.pipeline import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(kafka, new_topic) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTPATH_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "HOTPATH_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HOTPATH_KAFKA_OPTIONS": json.dumps(kafka.client_options),
        "HOTPATH_TOPIC": new_topic(4),
    }


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "generator", "--summary", "-", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[dict, str]:
    """The summary of a generator that ended well, and what it said beside."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out), err


def read_topic(environment: dict[str, str]) -> list[Message]:
    """The messages of the topic up to each log's end, those of a log in the order of their offsets."""
    consumer = Consumer(
        {
            "bootstrap.servers": environment["HOTPATH_KAFKA_BOOTSTRAP"],
            **json.loads(environment["HOTPATH_KAFKA_OPTIONS"]),
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    topic = environment["HOTPATH_TOPIC"]
    partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found, ended, deadline = [], set(), time.monotonic() + 60
    while len(ended) < len(partitions) and time.monotonic() < deadline:
        for message in consumer.consume(5_000, 0.2):
            if message.error() is None:
                found.append(message)
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
                ended.add(message.partition())
    consumer.close()
    assert len(ended) == len(partitions)
    return found


def judge(messages: list[Message]) -> dict[str, int]:
    reference, found = Reference(), Counter()
    for message in messages:
        outcome = reference.classify(message.partition(), message.value(), message.timestamp()[1] * 1_000)
        found[outcome.event_class] += 1
    return dict(found)


def nonzero(classes: dict[str, int]) -> dict[str, int]:
    return {label: count for label, count in classes.items() if count}


def test_the_summary_is_what_the_rules_make_of_the_topic_also_after_a_second_run(environment):
    options = ("--users", "300", "--events", "8000", "--malformed", "0.05")
    first, _ = finished(start(environment, *options))
    messages = read_topic(environment)
    assert first["delivered"] == first["sent"] == len(messages) == 8_000
    assert first["exact"]
    assert judge(messages) == nonzero(first["classes"])

    second, _ = finished(start(environment, *options))
    both = Counter(first["classes"]) + Counter(second["classes"])
    assert judge(read_topic(environment)) == dict(both)


def test_a_start_time_gives_the_same_bytes_every_time(environment, new_topic):
    options = (
        "--start-time",
        "2026-01-31T12:00:00Z",
        "--events",
        "3000",
        "--users",
        "100",
        "--rate",
        "20000",
    )
    contents = []
    for topic in (new_topic(4), new_topic(4)):
        finished(start(environment | {"HOTPATH_TOPIC": topic}, *options))
        messages = read_topic(environment | {"HOTPATH_TOPIC": topic})
        contents.append(sorted((m.partition(), m.offset(), m.key(), m.value()) for m in messages if m.key()))
    assert contents[0] == contents[1]


def test_no_more_is_sent_than_falls_due_and_all_of_it_is_delivered(environment):
    """That the rate is held on a machine with time for it follows from its schedule: see test_generator_pace."""
    summary, _ = finished(start(environment, "--rate", "5000", "--seconds", "1"))
    assert 0 < summary["sent"] <= 5_000 * summary["seconds"]
    assert summary["delivered"] == summary["sent"] and summary["asked_rate"] == 5_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_endless_run_in_order(environment, number):
    process = start(environment, "--rate", "2000")
    wait_until(lambda: read_topic(environment), "a first message in the topic")
    process.send_signal(number)
    summary, _ = finished(process)
    assert summary["exact"]
    assert len(read_topic(environment)) == summary["sent"] > 0


def test_without_kafka_one_line_says_so(environment):
    process = start(environment | {"HOTPATH_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "--events", "10")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert len(err.splitlines()) == 1
    assert "127.0.0.1:1" in err and "HOTPATH_KAFKA_BOOTSTRAP" in err


def test_without_the_topic_one_line_says_so_and_none_is_made(environment, kafka):
    process = start(environment | {"HOTPATH_TOPIC": "nowhere"}, "--events", "10")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "'nowhere'" in err
    assert "nowhere" not in kafka.admin().list_topics(timeout=10).topics


def test_events_that_kafka_does_not_take_are_counted_as_failed(environment, another_kafka):
    server = another_kafka()
    server.create_topic("events", 4)
    own = environment | {
        "HOTPATH_KAFKA_BOOTSTRAP": server.bootstrap,
        "HOTPATH_KAFKA_OPTIONS": json.dumps(server.client_options),
        "HOTPATH_TOPIC": "events",
    }
    process = start(own, "--rate", "2000", "--seconds", "10", "--delivery-timeout-s", "2")
    wait_until(lambda: read_topic(own), "a first message in the topic")
    server.kill()
    out, err = process.communicate(timeout=60)
    summary = json.loads(out)
    assert process.returncode == 3
    assert summary["failed"] > 0 and not summary["exact"]
    assert summary["delivered"] + summary["failed"] == summary["sent"]
    assert "did not take" in err.splitlines()[-1]


@pytest.mark.parametrize("partitioner", LIBRDKAFKA_NAMES)
def test_our_partitions_are_those_of_librdkafka(environment, kafka, partitioner):
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            **kafka.client_options,
            "partitioner": LIBRDKAFKA_NAMES[partitioner],
            "sticky.partitioning.linger.ms": 0,  # else "any" is the same one for a while
        }
    )
    keys = [b"user-%d" % number for number in range(500)] + [b"\xff\x80" * length for length in range(20)]
    keys.remove(b"")
    for key in keys:
        producer.produce(environment["HOTPATH_TOPIC"], b"", key)
    empty = 300
    for number in range(empty):
        producer.produce(environment["HOTPATH_TOPIC"], str(number), b"")
    assert producer.flush(30) == 0
    messages = read_topic(environment)
    assert len(messages) == len(keys) + empty
    for message in messages:
        if message.value() == b"":
            assert message.partition() == partition_for(message.key(), 4, partitioner)
    homes = {message.partition() for message in messages if message.value()}
    home = partition_for(b"", 4, partitioner)
    assert homes == {home} if home is not None else len(homes) > 1
