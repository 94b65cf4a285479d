"""Messages go in at Kafka; what Postgres, the ledger and Redis then hold is compared with the plain reference."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime

import psycopg
import pytest

from tests.support.pipeline import Pipeline, Topic, wait_until

SAMPLE = {
    "timestamp": "2024-03-15T14:30:00Z",
    "user_id": "usr_789",
    "event_type": "page_view",
    "page_url": "/products/electronics",
    "session_id": "sess_456",
}


@pytest.fixture
def topic(kafka, new_topic) -> Topic:
    return Topic(kafka.bootstrap, kafka.client_options, new_topic(), 4)


def event(user: str, second: float, **changes: str) -> dict:
    moment = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return SAMPLE | {"timestamp": moment, "user_id": user, "session_id": f"s-{user}"} | changes


def test_an_event_comes_through_once(topic: Topic, database: str, redis_url: str):
    topic.produce([(b"usr_789", json.dumps(SAMPLE).encode())])
    with Pipeline(topic, database, redis_url) as pipeline:
        pipeline.wait_until_applied()
        rows = pipeline.query(
            "SELECT ts, user_id, event_type, page_url, session_id, kafka_offset FROM events"
        )
        moment = datetime(2024, 3, 15, 14, 30, tzinfo=UTC)
        assert rows == [(moment, "usr_789", "page_view", "/products/electronics", "sess_456", 0)]
        assert pipeline.stop() == 0


def test_stopping_and_starting_again_repeats_and_loses_nothing(topic: Topic, database: str, redis_url: str):
    now = int(time.time())
    sent = 0
    for _ in range(3):
        with Pipeline(topic, database, redis_url) as pipeline:
            topic.produce_events(
                [event(f"u{i % 97}", now + i % 3, page_url=f"/{i % 11}") for i in range(500)]
            )
            sent += 500
            assert pipeline.stop() == 0
    with Pipeline(topic, database, redis_url) as pipeline:
        pipeline.wait_until_applied()
        kept, distinct = pipeline.query(
            "SELECT count(*), count(DISTINCT (log_id, kafka_offset)) FROM events"
        )[0]
        received, accepted, bots = pipeline.query(
            "SELECT sum(received), sum(accepted), sum(bot) FROM ledger"
        )[0]
        assert kept == distinct == accepted
        assert received == sent == accepted + bots
        pipeline.stop()


def test_a_second_supervisor_fences_the_first(topic: Topic, database: str, redis_url: str):
    with Pipeline(topic, database, redis_url) as first, Pipeline(topic, database, redis_url) as second:
        topic.produce_events([event(f"u{i}", time.time()) for i in range(200)])
        second.wait_until_applied()
        assert first.process.wait(30) == 4
        assert second.query("SELECT count(*) FROM events")[0][0] == 200
        assert second.stop() == 0


def test_a_supervisor_that_would_only_be_started_again_stays(topic: Topic, database: str, redis_url: str):
    with (
        Pipeline(topic, database, redis_url, stay_when_given_up="true") as first,
        Pipeline(topic, database, redis_url) as second,
    ):
        topic.produce_events([event(f"u{i}", time.time()) for i in range(200)])
        second.wait_until_applied()
        wait_until(lambda: given_up(first), "no worker of the first is left")
        assert not first.healthy() and second.healthy()
        assert first.stop() == 4, "what it had to say is not lost"
        assert second.stop() == 0


def given_up(pipeline: Pipeline) -> bool:
    return {worker["state"] for worker in pipeline.status()["workers"]} == {"given up"}


@pytest.mark.parametrize(
    ("setting", "value", "exit_code", "says"),
    [
        ("kafka_bootstrap", "127.0.0.1:1", 3, "HOTPATH_KAFKA_BOOTSTRAP"),
        ("topic", "no-such-topic", 3, "no-such-topic"),
        ("postgres_dsn", "postgresql://127.0.0.1:1/x", 3, "HOTPATH_POSTGRES_DSN"),
        ("postgres_dsn", "post gres:/", 2, "HOTPATH_POSTGRES_DSN"),
        ("redis_url", "redis://127.0.0.1:1/0", 3, "HOTPATH_REDIS_URL"),
        ("redis_url", "http://127.0.0.1", 2, "HOTPATH_REDIS_URL"),
        ("procs", "0", 2, "--procs"),
        ("status_port", "-1", 2, "--status-port"),
    ],
)
def test_what_is_missing_is_said_in_one_line(topic, database, redis_url, setting, value, exit_code, says):
    pipeline = Pipeline(topic, database, redis_url, **{setting: value})
    done = subprocess.run(
        [sys.executable, "-m", "hotpath.supervisor"],
        env=pipeline.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == exit_code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_missing_schema_is_said_in_one_line(topic, databases, redis_url):
    pipeline = Pipeline(topic, databases.create(schema=False), redis_url)
    done = subprocess.run(
        [sys.executable, "-m", "hotpath.supervisor"], env=pipeline.environment, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "python -m hotpath.migrate" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with psycopg.connect(pipeline.database) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
