"""Messages go in at Kafka; what Postgres, the ledger and Redis then hold is compared with the plain reference."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import psutil
import psycopg
import pytest

from hotpath.events import CLASS_COUNT, EventClass
from tests.bad_inputs import BAD_INPUTS
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


def test_every_class_is_counted_and_kept_as_the_reference_says(topic: Topic, database: str, redis_url: str):
    rng = random.Random(5)
    now = int(time.time())
    messages = [(b"k", row.value) for row in BAD_INPUTS]
    messages += [(None, json.dumps(event(f"good-{i}", now)).encode()) for i in range(300)]
    rng.shuffle(messages)
    topic.produce(
        [(key, value) for key, value in messages if value is None or len(value) < 900_000], partition=0
    )
    with Pipeline(topic, database, redis_url) as pipeline:
        pipeline.wait_until_applied()
        columns = ", ".join(f"sum({c.label})::int" for c in EventClass)
        counts = pipeline.query(f"SELECT {columns} FROM ledger")[0]
        assert len(counts) == CLASS_COUNT
        assert sum(counts) == topic.ends()[0]
        pipeline.stop()


@pytest.mark.parametrize("procs", [1, 3])
def test_killed_workers_leave_each_accepted_offset_exactly_once(
    topic: Topic, database: str, redis_url: str, procs: int
):
    """Workers die by SIGKILL at random moments while events stream in."""
    rng = random.Random(procs)
    with Pipeline(
        topic, database, redis_url, procs=procs, block_rows_max=500, chunk_rows_max=200
    ) as pipeline:
        sent = 0
        until = time.monotonic() + 12
        next_kill = time.monotonic() + 1
        while time.monotonic() < until:
            now = time.time()
            topic.produce_events([event(f"u{rng.randrange(5_000)}", now) for _ in range(500)])
            sent += 500
            if time.monotonic() >= next_kill:
                next_kill += 1.5
                for pid in rng.sample(pipeline.worker_pids(), 1):
                    _kill(pid)
        pipeline.wait_until_applied()
        kept, distinct = pipeline.query(
            "SELECT count(*), count(DISTINCT (log_id, kafka_offset)) FROM events"
        )[0]
        received, accepted, bots = pipeline.query(
            "SELECT sum(received), sum(accepted), sum(bot) FROM ledger"
        )[0]
        assert kept == distinct == accepted
        assert received == sent == accepted + bots
        broken = pipeline.query(
            """SELECT log_id, first_offset, previous FROM (
                   SELECT log_id, first_offset,
                          lag(next_offset) OVER (PARTITION BY log_id ORDER BY first_offset) AS previous
                   FROM ledger) AS ranges
               WHERE previous IS NOT NULL AND previous <> first_offset"""
        )
        assert broken == [], "the ledger's ranges follow each other without a gap"
        assert sum(worker["restarts"] for worker in pipeline.status()["workers"]) >= 3
        assert pipeline.stop() == 0


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_supervisor_that_is_killed_leaves_no_worker(topic: Topic, database: str, redis_url: str):
    with Pipeline(topic, database, redis_url) as pipeline:
        pids = pipeline.worker_pids()
        pipeline.process.kill()
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the workers have ended")


def test_a_second_supervisor_fences_the_first(topic: Topic, database: str, redis_url: str):
    with Pipeline(topic, database, redis_url) as first, Pipeline(topic, database, redis_url) as second:
        topic.produce_events([event(f"u{i}", time.time()) for i in range(200)])
        second.wait_until_applied()
        assert first.process.wait(30) == 4
        assert second.query("SELECT count(*) FROM events")[0][0] == 200
        assert second.stop() == 0


def test_postgres_goes_on_while_redis_is_away_and_redis_catches_up(
    topic: Topic, database: str, another_redis
):
    server = another_redis()
    with Pipeline(topic, database, server.url) as pipeline:
        now = int(time.time())
        topic.produce_events([event(f"a{i}", now) for i in range(300)])
        pipeline.wait_until_applied()
        server.kill()
        topic.produce_events([event(f"b{i}", now) for i in range(300)])
        pipeline.wait_until_committed()
        assert pipeline.query("SELECT count(*) FROM events")[0][0] == 600
        server.start()
        pipeline.wait_until_applied()
        pipeline.stop()


def test_a_hung_worker_is_killed_and_replaced(topic: Topic, database: str, redis_url: str):
    with Pipeline(topic, database, redis_url, procs=1, hang_deadline_s=2, statement_timeout_s=1) as pipeline:
        (pid,) = pipeline.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: pipeline.healthy() and pid not in pipeline.worker_pids(), "another worker runs")
        topic.produce_events([event("u", time.time())])
        pipeline.wait_until_applied()
        pipeline.stop()


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
