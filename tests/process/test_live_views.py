"""The live views from the producer's end to the API's, and how they come back after Redis lost them."""

import json
import time
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
import redis
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import ApiSettings
from hotpath import consolidate
from tests.support.api import HERE
from tests.support.pipeline import Pipeline, Topic, wait_until


@pytest.fixture
def topic(kafka, new_topic) -> Topic:
    return Topic(kafka.bootstrap, kafka.client_options, new_topic(), 4)


def view(user: str, page: str, session: str, second: float) -> dict:
    moment = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "timestamp": moment,
        "user_id": user,
        "event_type": "page_view",
        "page_url": page,
        "session_id": session,
    }


def views_agree(database: str, redis_url: str) -> bool:
    """Whether Redis holds what Postgres says; the API may still answer by its last good reading."""
    try:
        consolidate.run(["--check", "--postgres-dsn", database, "--redis-url", redis_url])
    except consolidate.Drift:
        return False
    return True


def test_the_api_serves_what_was_sent_and_redis_heals_after_a_flush(topic, database, redis_url):
    now = time.time()
    strange = "ü/ser 7?"
    events = [view(f"u{i}", f"/p{i % 3}", f"s{i}", now) for i in range(30)]
    events += [view("u1", "/p0", "second session", now), view(strange, "/p0", "s", now)]
    events += [view("old", "/old", "s", now - 290), view("gone", "/gone", "s", now - 2_000)]
    expected_pages = [{"page_url": "/p0", "views": 12}, {"page_url": "/p1", "views": 10}]
    with (
        Pipeline(topic, database, redis_url) as pipeline,
        TestClient(create_app(ApiSettings(redis_url=redis_url)), base_url=HERE) as client,
    ):
        topic.produce_events(events)
        pipeline.wait_until_applied()

        def top() -> list[dict]:
            reply = client.get("/api/v1/top-pages", params={"limit": 2})
            return reply.json()["pages"] if reply.status_code == 200 else []

        wait_until(lambda: top() == expected_pages, "the API shows the pages")
        users = client.get("/api/v1/active-users").json()
        assert users["active_users"] in (31, 32), "`old` is at the window's edge, `gone` is outside"
        assert users["window_s"] == 300 and users["lag_events"] == 0 and users["as_of"].endswith("Z")
        sessions = client.get("/api/v1/users/u1/sessions").json()
        assert {row["session_id"] for row in sessions["sessions"]} == {"s1", "second session"}
        assert sessions["active_sessions"] == 2
        assert client.get(f"/api/v1/users/{quote(strange, safe='')}/sessions").json()["active_sessions"] == 1
        never = client.get("/api/v1/users/nobody/sessions").json()
        assert never["active_sessions"] == 0 and never["sessions"] == []

        redis.Redis.from_url(redis_url).flushall()
        wait_until(lambda: top() == expected_pages, "the views are back", 30)
        assert client.get("/api/v1/active-users").json()["active_users"] in (31, 32)
        wait_until(lambda: views_agree(database, redis_url), "the workers brought the views back", 60)
        assert pipeline.stop() == 0


def test_shared_counters_tell_a_bot_whose_views_are_spread_over_logs(topic, database, redis_url):
    """A topic that is not keyed by user: 40 views of one user in one second, ten in each of four logs."""
    now = int(time.time())
    value = json.dumps(view("bot", "/p", "s", now)).encode()
    person = json.dumps(view("person", "/p", "s", now)).encode()
    with Pipeline(topic, database, redis_url, procs=1, bot_counters="redis") as pipeline:
        for partition in range(4):
            topic.produce([(None, value)] * 10 + [(None, person)], partition=partition)
        pipeline.wait_until_applied()
        kept = dict(pipeline.query("SELECT user_id, count(*) FROM events GROUP BY user_id"))
        assert kept == {"bot": 10, "person": 4}
        assert pipeline.query("SELECT sum(bot)::int FROM ledger") == [(30,)]
        assert pipeline.stop() == 0
