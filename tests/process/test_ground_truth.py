"""The generator knows what a correct pipeline must find; here a real one is held against it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis.asyncio

from hotpath.events import EventClass
from hotpath.settings import Settings
from hotpath.views import keys
from hotpath.views.read import ViewReader
from tests.support.pipeline import ROOT, Pipeline, Topic

SECONDS = int(os.environ.get("HOTPATH_TEST_TRUTH_SECONDS", "8"))


@pytest.fixture
def topic(kafka, new_topic) -> Topic:
    return Topic(kafka.bootstrap, kafka.client_options, new_topic(16), 16)


def generate(pipeline: Pipeline, summary: Path, *arguments: str) -> dict:
    subprocess.run(
        [sys.executable, "-m", "generator", "--seed", "7", "--summary", str(summary), *arguments],
        env=pipeline.environment,
        cwd=ROOT,
        check=True,
        timeout=SECONDS + 60,
    )
    return json.loads(summary.read_text())


def test_ledger_and_views_hold_what_the_generator_sent(topic, database, redis_url, tmp_path):
    with Pipeline(topic, database, redis_url) as pipeline:
        truth = generate(
            pipeline,
            tmp_path / "truth.json",
            *("--rate", "10000", "--seconds", str(SECONDS), "--users", "50000", "--pages", "1000"),
            *("--bots", "0.02", "--malformed", "0.01", "--late", "0.005"),
        )
        assert truth["failed"] == 0
        assert truth["reached_rate"] == pytest.approx(10_000, rel=0.02)
        pipeline.wait_until_applied()
        labels = [c.label for c in EventClass]
        counts = pipeline.query(f"SELECT {', '.join(f'sum({label})::int' for label in labels)} FROM ledger")[
            0
        ]
        assert dict(zip(labels, counts, strict=True)) == truth["classes"]
        assert pipeline.query("SELECT count(*) FROM events")[0][0] == truth["classes"]["accepted"]
        assert pipeline.query("SELECT count(*) FROM late_events")[0][0] == truth["classes"]["late"]
        assert pipeline.query("SELECT sum(dropped)::int FROM bot_activity")[0][0] == truth["classes"]["bot"]
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
