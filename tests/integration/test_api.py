"""The read API as its callers see it, over real Redis: contract, refusals, and what it says when Redis is away."""

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import ApiSettings

PAGES = ("/api/v1/active-users", "/api/v1/top-pages", "/api/v1/users/u-1/sessions")


@pytest.fixture
def client(redis_url: str):
    with TestClient(create_app(ApiSettings(redis_url=redis_url)), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("page", PAGES)
def test_views_that_are_not_there_are_no_zeros(client, page):
    reply = client.get(page)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"]
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("limit", ["0", "101", "-1", "abc", "", "5.0", "٣"])
def test_a_bad_limit_is_named(client, limit):
    reply = client.get("/api/v1/top-pages", params={"limit": limit})
    assert reply.status_code == 422
    assert reply.json()["error"]["parameter"] == "limit"


def test_an_oversized_user_is_refused(client):
    reply = client.get(f"/api/v1/users/{'u' * 129}/sessions")
    assert reply.status_code == 422
    assert reply.json()["error"]["parameter"] == "user_id"


def test_what_is_not_there_and_what_is_not_done_are_json(client):
    missing = client.get("/api/v1/nothing")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    posted = client.post("/api/v1/active-users")
    assert posted.status_code == 405 and posted.json()["error"]["code"]


def test_a_redis_that_is_away_is_told_at_once(another_redis):
    server = another_redis()
    with TestClient(create_app(ApiSettings(redis_url=server.url)), raise_server_exceptions=False) as client:
        server.kill()
        for page in PAGES:
            reply = client.get(page)
            assert reply.status_code == 503
            assert reply.json()["error"]["code"]
        assert client.get("/healthz").status_code == 200
