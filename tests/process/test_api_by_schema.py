"""The API does what its OpenAPI document says: schemathesis asks it whatever the document allows, and what it does not.

It asks a live stack: supervisor, Kafka, Postgres, Redis and the API as a process, with data of every kind in it.
"""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.config import SchemathesisConfig

from api.routes import openapi_body
from tests.support.api import Api
from tests.support.pipeline import Pipeline, Topic, wait_until

EXAMPLES = 12
"""Of each endpoint; with what schemathesis adds by itself some hundred requests."""
STREAM = "/api/v1/stream"  # never ends: has tests of its own
# A document cannot say that one time must be before another, that a cursor was given out, or count bytes.
STRICTER = ("/api/v1/history", "/api/v1/ledger", "/api/v1/quarantine", "/api/v1/users/{user_id}/sessions")
CONFIG = SchemathesisConfig.from_dict({"generation": {"mode": "all", "allow-x00": True}})
SCHEMA = schemathesis.openapi.from_dict(orjson.loads(openapi_body()), config=CONFIG).exclude(path=STREAM)


@pytest.fixture(scope="module")
def api(kafka, databases, redis_server) -> Iterator[Api]:
    """The API over a pipeline that has read some events."""
    kafka.create_topic("by-schema", 2)
    topic = Topic(kafka.bootstrap, kafka.client_options, "by-schema", 2)
    database = databases.create()
    prefix = f"schema{time.time_ns()}"
    with Pipeline(topic, database, redis_server.url, redis_prefix=prefix, procs=1) as pipeline:
        api = Api(
            redis_server.url, postgres_dsn=database, redis_prefix=prefix, status_url=pipeline.status_url
        )
        try:
            topic.produce([(b"u", b"{"), (b"u", None), *messages("=user"), *messages("0")])
            pipeline.wait_until_applied()
            wait_until(api.alive, "the API serves")
            wait_until(lambda: api.get("/readyz")[0] == 200, "the views are complete")
            yield api
        finally:
            api.kill()
    databases.drop(database)


def messages(user: str) -> list[tuple[bytes, bytes]]:
    event = {
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "user_id": user,
        "event_type": "page_view",
        "page_url": "/é",
        "session_id": "s",
    }
    return [(user.encode(), json.dumps(event).encode())] * 15  # five of them are a bot's


@SCHEMA.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_the_api_does_what_its_document_says(case, api):
    excluded = [checks.positive_data_acceptance] if case.path in STRICTER else []
    case.call_and_validate(base_url=api.url, excluded_checks=excluded, timeout=10)


def test_all_that_was_sent_is_told_everywhere(api):
    """32 messages: two that are no events, two users with ten views and five more that are a bot's."""
    wait_until(lambda: api.get("/api/v1/summary")[1]["events_per_s"] is not None, "two looks at the workers")
    summary = api.get("/api/v1/summary")[1]
    assert summary["workers"] == {"up": 1, "total": 1}
    assert (summary["active_users"]["value"], summary["lag_events"]) == (2, 0)
    assert summary["top_pages"]["pages"] == [{"page_url": "/é", "views": 20}]
    pipeline = api.get("/api/v1/pipeline")[1]
    (worker,) = pipeline["workers"]
    assert (pipeline["state"], worker["received"], worker["classes"]["bot"]) == ("up", 32, 10)
    assert worker["ring_slots"] > 0 and worker["pid"] > 0
    minutes = api.get("/api/v1/ledger")[1]["minutes"]
    counted = {
        name: sum(minute[name] for minute in minutes) for name in ("received", "accepted", "bot", "empty")
    }
    assert counted == {"received": 32, "accepted": 20, "bot": 10, "empty": 1}
    classes = [row["class"] for row in api.get("/api/v1/quarantine")[1]["rows"]]
    assert sorted(classes) == sorted(["bot"] * 10 + ["empty", "not_json"])
    history = api.get("/api/v1/history?step=3600")[1]
    sums = {
        name: sum(step[name] for step in history["steps"]) for name in ("events", "accepted", "page_views")
    }
    assert sums == {"events": 32, "accepted": 20, "page_views": 20}
    assert max(step["users"] for step in history["steps"]) == 2
    assert history["top_pages"] == [{"page_url": "/é", "views": 20}]
