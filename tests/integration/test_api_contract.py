"""The read API over real views: its replies, its refusals, and what it says when Redis is slow or gone."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.live import Shared
from api.settings import ApiSettings
from hotpath.views import keys
from tests.support.api import HERE
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import World


@pytest.fixture
def world(database: str, redis_url: str) -> Iterator[World]:
    world = World(database, redis_url)
    yield world
    world.close()


@pytest.fixture
def client(redis_url: str, tmp_path: Path) -> Iterator[TestClient]:
    # Without pages, whether they are built here or not.
    settings = ApiSettings(redis_url=redis_url, api_refresh_ms=1, api_page_folder=str(tmp_path / "none"))
    with TestClient(create_app(settings), base_url=HERE, raise_server_exceptions=False) as client:
        yield client


def test_active_users_come_with_window_as_of_and_lag(world, client):
    world.run([Event(i, i % 2, user_id=f"u-{i}") for i in range(9)], NOON_US + 1_250_000)
    assert client.get("/api/v1/active-users").json() == {
        "active_users": 9,
        "window_s": 300,
        "as_of": "2024-03-15T12:00:01.25Z",
        "lag_events": 0,
        "stale": False,
    }
    world.status["log_end"] += 7
    world.sink.tick(NOON_US)
    time.sleep(0.002)  # longer than numbers are shared here
    assert client.get("/api/v1/active-users").json()["lag_events"] == 14


def test_top_pages_are_ordered_by_views_and_then_by_bytes(world, client):
    views = {"/é": 3, "/z": 3, "/a": 3, "/most": 5, "/few": 1, "/fewer": 1, "/b": 2}
    pages = [page for page, count in views.items() for _ in range(count)]
    world.run([Event(i, i % 2, page_url=page, user_id=f"u-{i % 2}") for i, page in enumerate(pages)], NOON_US)
    reply = client.get("/api/v1/top-pages").json()
    assert [(page["page_url"], page["views"]) for page in reply["pages"]] == [
        ("/most", 5),
        ("/a", 3),
        ("/z", 3),
        ("/é", 3),
        ("/b", 2),
    ]
    assert (reply["window_s"], reply["as_of"], reply["stale"]) == (900, "2024-03-15T12:00:00Z", False)
    assert len(client.get("/api/v1/top-pages?limit=2").json()["pages"]) == 2
    assert len(client.get("/api/v1/top-pages?limit=100").json()["pages"]) == 7


def test_top_pages_are_exact_when_no_log_shows_the_winner_at_its_top(world, client):
    """Page /both is 201st in each log, yet the first in all: the first rounds cannot prove any answer."""
    events = []
    for log_index in range(2):
        pages = [f"/only-{log_index}-{n}" for n in range(200) for _ in range(3)] + ["/both"] * 2
        events += [Event(i, log_index, page_url=page, user_id=str(log_index)) for i, page in enumerate(pages)]
    world.run(events, NOON_US)
    pages = client.get("/api/v1/top-pages?limit=1").json()["pages"]
    assert pages == [{"page_url": "/both", "views": 4}]


def test_sessions_say_when_they_were_last_seen(world, client):
    second_us = 1_000_000
    world.run(
        [
            Event(0, session_id="older", time_us=NOON_US - 35 * second_us),
            Event(1, session_id="b", time_us=NOON_US + 3 * second_us),
            Event(2, session_id="a", time_us=NOON_US + 9 * second_us),
            Event(3, session_id="gone", time_us=NOON_US - 300 * second_us),
            Event(0, 1, user_id="other"),
        ],
        NOON_US + 9 * second_us,
    )
    assert client.get("/api/v1/users/u-1/sessions").json() == {
        "user_id": "u-1",
        "active_sessions": 3,
        "sessions": [
            {"session_id": "a", "last_seen": "2024-03-15T12:00:00Z"},
            {"session_id": "b", "last_seen": "2024-03-15T12:00:00Z"},
            {"session_id": "older", "last_seen": "2024-03-15T11:59:20Z"},
        ],
        "window_s": 300,
        "as_of": "2024-03-15T12:00:09Z",
        "lag_events": 0,
        "stale": False,
    }


def test_sessions_are_a_table_too(world, client):
    world.run([Event(0, user_id="=u", session_id="@s"), Event(0, 1)], NOON_US)
    reply = client.get("/api/v1/users/%3Du/sessions?format=csv")
    assert reply.text.split("\r\n") == [
        "user_id,session_id,last_seen,as_of,window_s,stale,lag_events",
        "'=u,'@s,2024-03-15T12:00:00Z,2024-03-15T12:00:00Z,300,False,0",
        "",
    ]


def test_a_user_never_seen_has_no_sessions(world, client):
    world.run([Event(0), Event(0, 1)], NOON_US)
    reply = client.get("/api/v1/users/nobody/sessions")
    assert reply.status_code == 200
    assert (reply.json()["active_sessions"], reply.json()["sessions"]) == (0, [])
    table = client.get("/api/v1/users/nobody/sessions?format=csv")
    assert (len(table.text.splitlines()), table.headers["x-lag-events"]) == (1, "0")
    assert table.headers["x-as-of"] == reply.json()["as_of"], "said without rows, too"


def test_a_user_id_may_hold_any_character(world, client):
    world.run([Event(0), Event(0, 1)], NOON_US)
    for user in ("a/b", "a\nb", "\u2028", "a?b#c", "sessions"):
        reply = client.get(f"/api/v1/users/{quote(user, safe='')}/sessions")
        assert (reply.status_code, reply.json()["user_id"]) == (200, user)


@pytest.mark.parametrize(
    "limit", ["0", "101", "-1", "+5", "1e1", "5.0", "five", "", " 5", "1_0", "٣", "9" * 5_000]
)
def test_a_limit_that_is_no_number_in_range_is_refused(client, limit):
    reply = client.get("/api/v1/top-pages", params={"limit": limit})
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert (error["code"], error["parameter"]) == ("invalid_parameter", "limit")
    assert "1 to 100" in error["message"]


@pytest.mark.parametrize("user", ["", "a" * 129, quote("名" * 43), "%ff", "a%c3"])
def test_a_user_id_that_cannot_be_one_is_refused(client, user):
    reply = client.get(f"/api/v1/users/{user}/sessions")
    assert reply.status_code == 422
    assert reply.json()["error"]["parameter"] == "user_id"


def test_unknown_paths_and_methods_are_refused_in_json(client):
    for path in ("/", "/api/v1", "/api/v1/active-users/", "/api/v2/active-users", "/api/v1/users/a"):
        reply = client.get(path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    reply = client.post("/api/v1/active-users")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "GET" in reply.headers["allow"]


def test_a_listed_log_without_views_makes_all_numbers_unavailable(world, client):
    world.run([Event(0), Event(0, 1)], NOON_US)
    assert client.get("/readyz").status_code == 200
    world.redis.delete(keys.current("hotpath", world.log_ids[1]))
    time.sleep(0.002)
    for path in ("/api/v1/active-users", "/api/v1/top-pages", "/api/v1/users/u-1/sessions", "/readyz"):
        reply = client.get(path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "views_rebuilding"), path
        assert reply.headers["retry-after"]
    assert client.get("/healthz").status_code == 200


def test_a_log_that_was_never_at_its_end_leaves_the_views_incomplete(world, client):
    block = world.commit([Event(0)])
    world.sink.tick(NOON_US)
    assert world.sink.apply([block])
    world.sink.tick(NOON_US)
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "views_incomplete")


def test_a_log_too_far_behind_the_others_leaves_the_views_incomplete(world, client):
    """Log 0 trims by its own watermark so as not to grow for ever; the window of as_of is then no longer whole."""
    later_us = NOON_US + 2 * 3_600 * 1_000_000
    world.run([Event(0), Event(0, 1)], NOON_US)
    assert world.sink.apply([world.commit([Event(1, time_us=later_us)])])
    world.tick(NOON_US + 1)
    reply = client.get("/api/v1/top-pages")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "views_incomplete")
    assert "behind" in reply.json()["error"]["message"]


def test_users_of_several_logs_count_once_where_topics_are_not_keyed(world, redis_url):
    world.run([Event(0, user_id="both"), Event(0, 1, user_id="both"), Event(1, 1, user_id="one")], NOON_US)
    settings = ApiSettings(redis_url=redis_url, bot_counters="redis")
    with TestClient(create_app(settings), base_url=HERE) as client:
        assert client.get("/api/v1/active-users").json()["active_users"] == 2


def test_as_of_never_moves_back(world, client):
    world.run([Event(0), Event(0, 1)], NOON_US)
    assert client.get("/readyz").status_code == 200
    state = world.redis.hgetall(f"hotpath:{{{world.log_ids[0]}}}:{current(world)}:state")
    assert int(state[b"complete_until_us"]) == NOON_US
    world.redis.hset(
        f"hotpath:{{{world.log_ids[0]}}}:{current(world)}:state", "complete_until_us", NOON_US - 1
    )
    time.sleep(0.002)
    assert client.get("/api/v1/active-users").json()["error"]["code"] == "views_incomplete"


def current(world: World) -> str:
    return world.redis.get(keys.current("hotpath", world.log_ids[0])).decode()


def test_redis_gone_or_hanging_means_503_and_soon(another_redis, database):
    server = another_redis()
    world = World(database, server.url)
    settings = ApiSettings(redis_url=server.url, api_refresh_ms=1, api_redis_timeout_s=0.2)
    world.run([Event(0), Event(0, 1)], NOON_US)
    with TestClient(create_app(settings), base_url=HERE, raise_server_exceptions=False) as client:
        assert client.get("/readyz").status_code == 200
        world.redis.execute_command("CLIENT", "PAUSE", 1_500)
        paused_at = time.monotonic()
        check_unavailable(client, within_s=1.0)
        world.close()
        server.kill()
        assert time.monotonic() - paused_at < 30
        check_unavailable(client, within_s=1.0)
        server.start()
        reply = client.get("/api/v1/active-users")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "views_rebuilding")


def check_unavailable(client: TestClient, within_s: float) -> None:
    for path in ("/api/v1/active-users", "/api/v1/top-pages", "/api/v1/users/u-1/sessions", "/readyz"):
        started = time.monotonic()
        reply = client.get(path)
        assert time.monotonic() - started < within_s
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "redis_unavailable")
    assert client.get("/healthz").status_code == 200


def test_replies_are_compact_json_that_nobody_caches(world, client):
    world.run([Event(0, user_id="ü"), Event(0, 1)], NOON_US)
    reply = client.get("/api/v1/users/%C3%BC/sessions")
    assert reply.content == orjson.dumps(reply.json())
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"


def test_many_clients_share_one_read():
    reads = 0

    async def scenario() -> None:
        release = asyncio.Event()

        async def read() -> int:
            nonlocal reads
            reads += 1
            await release.wait()
            return reads

        shared = Shared(read, max_age_s=60)
        waiting = [asyncio.create_task(shared.get()) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # a client that goes away takes the read from nobody
        await asyncio.sleep(0)
        release.set()
        assert await asyncio.gather(*waiting[1:]) == [1] * 49
        assert await shared.get() == 1

    asyncio.run(scenario())
    assert reads == 1


def test_a_slow_read_is_not_repeated_at_once_and_nobody_waits_for_the_next(monkeypatch):
    monkeypatch.setattr("api.live.SLOW_S", 0.0)
    monkeypatch.setattr("api.live.SLOW_FACTOR", 1e9)
    reads = 0

    async def scenario() -> None:
        async def read() -> int:
            nonlocal reads
            reads += 1
            return reads

        shared = Shared(read, max_age_s=0)
        assert [await shared.get() for _ in range(100)] == [1] * 100
        monkeypatch.setattr("api.live.SLOW_FACTOR", 0)
        shared._max_age_s = 1e9
        shared._done_at -= 6e8  # past half its age: read anew, but not waited for
        assert await shared.get() == 1
        await asyncio.sleep(0)
        assert [await shared.get() for _ in range(3)] == [2, 2, 2]

    asyncio.run(scenario())
    assert reads == 2


def test_a_failed_read_is_shared_and_then_tried_again():
    async def scenario() -> None:
        failures = iter([ValueError("first"), ValueError("second")])

        async def read() -> int:
            raise next(failures)

        shared = Shared(read, max_age_s=0)
        for text in ("first", "second"):
            results = await asyncio.gather(*(shared.get() for _ in range(5)), return_exceptions=True)
            assert [str(error) for error in results] == [text] * 5

    asyncio.run(scenario())
