"""The generator knows what a correct pipeline must find; here a real one is held against it."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import redis.asyncio

from hotpath.events import EventClass
from hotpath.settings import Settings
from hotpath.views import keys
from hotpath.views.read import ViewReader
from tests.support.pipeline import ROOT, Pipeline, Topic

SECONDS = int(os.environ.get("HOTPATH_TEST_TRUTH_SECONDS", "8"))
KILL_INTERVAL_S = 2
LOAD = ("--rate", "10000", "--seconds", str(SECONDS), "--users", "50000", "--pages", "1000")
FAULTS = ("--bots", "0.02", "--malformed", "0.01", "--late", "0.005")


@pytest.fixture
def topic(kafka, new_topic) -> Topic:
    return Topic(kafka.bootstrap, kafka.client_options, new_topic(16), 16)


def start_generator(pipeline: Pipeline, summary: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "generator", "--seed", "7", "--summary", str(summary), *arguments],
        env=pipeline.environment,
        cwd=ROOT,
    )


def check_ledger(pipeline: Pipeline, truth: dict) -> None:
    """The ledger counts, class by class, what the generator says it sent, and the tables hold it."""
    labels = [c.label for c in EventClass]
    counts = pipeline.query(f"SELECT {', '.join(f'sum({label})::int' for label in labels)} FROM ledger")[0]
    assert dict(zip(labels, counts, strict=True)) == truth["classes"]
    assert pipeline.query("SELECT count(*) FROM events")[0][0] == truth["classes"]["accepted"]
    assert pipeline.query("SELECT count(*) FROM late_events")[0][0] == truth["classes"]["late"]
    assert pipeline.query("SELECT sum(dropped)::int FROM bot_activity")[0][0] == truth["classes"]["bot"]


def test_ledger_and_views_hold_what_the_generator_sent(topic, database, redis_url, tmp_path):
    summary = tmp_path / "truth.json"
    with Pipeline(topic, database, redis_url) as pipeline:
        with start_generator(pipeline, summary, *LOAD, *FAULTS) as generator:
            assert generator.wait(SECONDS + 60) == 0
        truth = json.loads(summary.read_text())
        assert truth["failed"] == 0
        pipeline.wait_until_applied()
        check_ledger(pipeline, truth)
        asyncio.run(compare_views(pipeline, Settings(redis_url=redis_url)))
        assert pipeline.stop() == 0


def test_killed_workers_change_nothing_of_what_the_generator_sent(topic, database, redis_url, tmp_path):
    """A worker dies by SIGKILL every two seconds while 10,000 events a second stream in."""
    rng = random.Random(11)
    summary = tmp_path / "truth.json"
    with Pipeline(topic, database, redis_url) as pipeline:
        with start_generator(pipeline, summary, *LOAD, *FAULTS) as generator:
            kills = 0
            while generator.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    generator.wait(KILL_INTERVAL_S)
                for pid in rng.sample(pids := pipeline.worker_pids(), min(1, len(pids))):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
            assert generator.returncode == 0
        assert kills >= SECONDS // KILL_INTERVAL_S - 1
        pipeline.wait_until_applied()
        check_ledger(pipeline, json.loads(summary.read_text()))
        assert pipeline.query("SELECT count(DISTINCT (log_id, kafka_offset)) FROM events") == pipeline.query(
            "SELECT count(*) FROM events"
        )
        asyncio.run(compare_views(pipeline, Settings(redis_url=redis_url)))
        assert pipeline.stop() == 0


async def compare_views(pipeline: Pipeline, settings: Settings) -> None:
    """Every view against SQL over `events` at the as_of that the view was read at."""
    counted = "floor(extract(epoch from ts) / 10) > %s"
    async with redis.asyncio.Redis.from_url(settings.redis_url) as client:
        reader = ViewReader(client, settings)

        users = await reader.active_users()
        start = keys.window_start(users.head.as_of_us, settings.active_users_window_s)
        assert (
            users.value
            == pipeline.query(f"SELECT count(DISTINCT user_id) FROM events WHERE {counted}", start)[0][0]
        )
        assert users.value > 0

        pages = await reader.top_pages(20)
        start = keys.window_start(pages.head.as_of_us, settings.top_pages_window_s)
        expected = pipeline.query(
            f"""SELECT page_url, count(*) FROM events WHERE event_type = 'page_view' AND {counted}
                GROUP BY page_url ORDER BY count(*) DESC, page_url COLLATE "C" LIMIT 20""",
            start,
        )
        assert [(page.decode(), views) for page, views in pages.value] == expected

        sample = pipeline.query("SELECT DISTINCT user_id FROM events ORDER BY user_id LIMIT 40")
        for (user,) in sample:
            sessions = await reader.user_sessions(user)
            start = keys.window_start(sessions.head.as_of_us, settings.sessions_window_s)
            expected = pipeline.query(
                f"""SELECT session_id, max(floor(extract(epoch from ts) / 10))::bigint FROM events
                    WHERE user_id = %s AND {counted} GROUP BY session_id""",
                user,
                start,
            )
            assert {session.decode(): step for session, step in sessions.value} == dict(expected)
