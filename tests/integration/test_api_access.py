"""Who may read the API, what its replies carry, what is refused, and the pages it serves."""

import csv
import io
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import orjson
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.contract import Pipeline, Summary, TopUsers
from api.replies import utc
from api.routes import ENDPOINTS, openapi_body
from api.settings import ApiSettings
from tests.support.api import HERE
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import World
from tests.support.pipeline import wait_until


@pytest.fixture
def world(database: str, redis_url: str) -> Iterator[World]:
    world = World(database, redis_url)
    yield world
    world.close()


def client_of(redis_url: str, tmp_path: Path, **settings: object) -> TestClient:
    given = {"api_refresh_ms": 1, "api_page_folder": str(tmp_path), **settings}
    app = create_app(ApiSettings(redis_url=redis_url, **given))
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


def test_the_token_guards_everything_but_health_and_the_pages(world, redis_url, tmp_path):
    world.run([Event(0), Event(0, 1)], NOON_US)
    (tmp_path / "index.html").write_text("the dashboard")
    with client_of(redis_url, tmp_path, api_token="s3crét") as client:
        guarded = [endpoint.path.format(user_id="u") for endpoint in ENDPOINTS if not endpoint.open]
        for path in [*guarded, "/openapi.json", "/docs"]:
            wrong = ("", "Bearer", "Bearer wrong", "Basic s3crét", "s3crét", "Bearer s3crét2", "Bearer ü")
            for header in wrong:
                reply = client.get(path, headers={"Authorization": header.encode()})
                assert (reply.status_code, reply.json()["error"]["code"]) == (401, "unauthorized"), path
                assert reply.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/"):
            assert client.get(path).status_code == 200
        for header in ("Bearer s3crét", "bearer  s3crét "):
            reply = client.get("/api/v1/summary", headers={"Authorization": header.encode()})
            assert reply.status_code == 200


def test_every_reply_carries_the_security_headers(redis_url, tmp_path):
    with client_of(redis_url, tmp_path) as client:
        paths = (
            "/healthz",
            "/api/v1/active-users",
            "/api/v1/top-pages?limit=x",
            "/nothing",
            "/docs",
            "/x" * 5_000,
        )
        for path in paths:
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "'unsafe-inline'" not in policy.replace("style-src-attr 'unsafe-inline'", "")
            assert "http" not in policy, "no other host"
            assert (headers["x-content-type-options"], headers["referrer-policy"]) == (
                "nosniff",
                "no-referrer",
            )


def test_on_loopback_without_a_token_only_loopbacks_names_are_answered(redis_url, tmp_path):
    """A page whose name was made to resolve to 127.0.0.1 (DNS rebinding) is of the same origin, and reads nothing."""

    def status(host: str, **settings: object) -> int:
        with client_of(redis_url, tmp_path, **settings) as client:
            return client.get("/healthz", headers={"Host": host}).status_code

    for own in ("127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"):
        assert status(own) == 200, own
    for other in ("evil.example.org", "evil.example.org:8000", "127.0.0.1.example.org", "", "10.0.0.1"):
        assert status(other) == 421, other
        assert status(other, api_token="t") == status(other, api_host="0.0.0.0") == 200, other
    assert status("[") == status("[", api_token="t") == 421, "no name at all"
    named = {"api_hosts": ["board.example.org"], "api_host": "0.0.0.0"}
    assert status("board.example.org:443", **named) == 200
    assert status("localhost", **named) == 421
    assert status("board.example.org", api_hosts=["Board.Example.org"]) == 200, "names have no case"


def test_other_origins_read_only_when_they_are_listed(redis_url, tmp_path):
    allowed, other = "https://board.example.org", "https://evil.example.org"
    with client_of(redis_url, tmp_path) as client:
        reply = client.get("/healthz", headers={"Origin": allowed})
        assert "access-control-allow-origin" not in reply.headers
    with client_of(redis_url, tmp_path, api_cors_origins=[allowed], api_token="t") as client:
        reply = client.get("/healthz", headers={"Origin": allowed})
        assert reply.headers["access-control-allow-origin"] == allowed
        assert "access-control-allow-origin" not in client.get("/healthz", headers={"Origin": other}).headers
        asked = {
            "Origin": allowed,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        preflight = client.options("/api/v1/summary", headers=asked)
        assert preflight.status_code == 200, "asked without the token, as browsers do"
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        assert client.options("/api/v1/summary", headers=asked | {"Origin": other}).status_code == 400
        refused = client.get("/api/v1/summary", headers={"Origin": allowed})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == allowed, "pages can read why"


@pytest.mark.parametrize("path", [endpoint.path for endpoint in ENDPOINTS])
def test_parameters_that_an_endpoint_does_not_know_are_refused(redis_url, tmp_path, path):
    with client_of(redis_url, tmp_path) as client:
        reply = client.get(path.format(user_id="u"), params={"limt": "5"})
        assert (reply.status_code, reply.json()["error"]["parameter"]) == (422, "limt")
        long = client.get(path.format(user_id="u"), params={"x": "y" * 9_000})
        assert (long.status_code, long.json()["error"]["code"]) == (414, "too_long")
        twice = client.get(path.format(user_id="u"), params=[("x" * 3_000, "1")] * 2)
        assert (twice.status_code, len(twice.json()["error"]["parameter"])) == (422, 128)


def test_what_goes_wrong_is_logged_without_users_and_answered_like_the_rest(
    redis_url, tmp_path, monkeypatch, caplog
):
    def fail(numbers: object, user: str) -> None:
        raise KeyError(user)

    monkeypatch.setattr("api.live.LiveNumbers.user_sessions", fail)
    origin = "https://board.example.org"
    with (
        client_of(redis_url, tmp_path, api_cors_origins=[origin]) as client,
        caplog.at_level(logging.DEBUG, "api"),
    ):
        reply = client.get("/api/v1/users/secret-person/sessions", headers={"Origin": origin})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
    assert reply.headers["access-control-allow-origin"] == origin, "pages can read why"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    ours = [logging.Formatter().format(record) for record in caplog.records if record.name.startswith("api")]
    (line,) = ours
    assert "user_sessions failed" in line and "in fail" in line and "KeyError" in line
    assert "secret-person" not in line


def test_the_summary_has_all_numbers_of_one_moment(world, redis_url, tmp_path):
    events = [Event(i, user_id=f"u-{i % 12}", session_id=f"s-{i}", page_url=f"/{i % 11}") for i in range(30)]
    world.run([*events, Event(0, 1, user_id="other")], NOON_US)
    with client_of(redis_url, tmp_path, status_url="http://127.0.0.1:9") as client:
        body = client.get("/api/v1/summary").json()
    Summary.model_validate(body)
    assert (body["as_of"], body["stale"], body["age_s"]) == ("2024-03-15T12:00:00Z", False, 0)
    assert body["active_users"]["value"] == 13
    assert body["active_users"]["line"] == [{"at": "2024-03-15T12:00:00Z", "value": 13}]
    assert [tuple(row.values()) for row in body["top_users"]["users"][:3]] == [
        ("u-0", 3),
        ("u-1", 3),
        ("u-2", 3),
    ]
    assert len(body["top_users"]["users"]) == len(body["top_pages"]["pages"]) == 10
    assert body["workers"] is None and body["accepted_per_s"] is None, "the supervisor is away"


def test_the_line_begins_with_what_postgres_holds(world, database, redis_url, tmp_path):
    """Users leave and come, and the as_of lies within a minute."""
    events = [
        Event(
            minute * 20 + n,
            0,
            time_us=NOON_US + (minute * 60 + n) * 1_000_000,
            user_id=f"u-{minute // 3 * n}",
        )
        for minute in range(18)
        for n in range(20)
    ]
    now_us = NOON_US + (17 * 60 + 25) * 1_000_000
    world.run([*events, Event(0, 1, time_us=now_us)], now_us)
    with client_of(redis_url, tmp_path, postgres_dsn=database) as client:

        def line() -> list[dict]:
            points = client.get("/api/v1/summary").json()["active_users"]["line"]
            return points if len(points) > 1 else []

        points = wait_until(line, "the line is filled")
    assert len(points) == 16 and points[-1]["at"] == utc(now_us)
    for point in points:
        as_of_us = round(datetime.fromisoformat(point["at"]).timestamp() * 1_000_000)
        # Events newer than as_of's step came later: the line says what was known then.
        known = {
            event.user_id
            for event in world.events
            if as_of_us // 10_000_000 - 30 < event.time_us // 10_000_000 <= as_of_us // 10_000_000
        }
        assert point["value"] == len(known), point
    assert len({point["value"] for point in points}) > 2


def test_users_are_ranked_and_limited_as_pages_are(world, redis_url, tmp_path):
    users = [f"={n:02}" for n in range(12)]
    world.run([Event(i, user_id=user) for i, user in enumerate(users)] + [Event(0, 1, user_id="z")], NOON_US)
    with client_of(redis_url, tmp_path) as client:
        body = client.get("/api/v1/users?limit=12").json()
        TopUsers.model_validate(body)
        assert [row["user_id"] for row in body["users"]] == users
        assert len(client.get("/api/v1/users").json()["users"]) == 10
        assert client.get("/api/v1/users?limit=3").json()["users"] == body["users"][:3]
        assert client.get("/api/v1/users?limit=101").json()["error"]["parameter"] == "limit"
        rows = list(csv.reader(io.StringIO(client.get("/api/v1/users?limit=2&format=csv").text)))
        assert rows == [
            ["user_id", "active_sessions", "as_of", "window_s", "stale", "lag_events"],
            ["'=00", "1", "2024-03-15T12:00:00Z", "300", "False", "0"],
            ["'=01", "1", "2024-03-15T12:00:00Z", "300", "False", "0"],
        ]
        pages = list(csv.reader(io.StringIO(client.get("/api/v1/top-pages?format=csv").text)))
        assert pages[1][:2] == ["/", "13"]


def test_the_last_good_numbers_are_served_stale_and_not_for_ever(database, another_redis, tmp_path):
    server = another_redis()
    world = World(database, server.url)
    world.run([Event(0), Event(0, 1)], NOON_US)
    world.close()
    settings = {"api_redis_timeout_s": 0.2, "api_stale_max_s": 60}
    with client_of(server.url, tmp_path, **settings) as client:
        assert client.get("/api/v1/summary").json()["stale"] is False
        assert client.get("/api/v1/users?limit=50").status_code == 200
        server.kill()
        for path in ("summary", "active-users", "top-pages", "users?limit=50"):
            body = client.get(f"/api/v1/{path}").json()
            assert body["stale"] is True and body["age_s"] > 0
            assert body["as_of"] == "2024-03-15T12:00:00Z"
        for path in ("/readyz", "/api/v1/top-pages?limit=50", "/api/v1/users/u-1/sessions"):
            reply = client.get(path)  # never read while Redis was there
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "redis_unavailable"), path
        client.app.state.live._overview._read.__self__._stale_max_s = 0.0
        assert client.get("/api/v1/summary").status_code == 503


def test_the_pipeline_says_when_the_supervisor_is_away(redis_url, tmp_path):
    with client_of(redis_url, tmp_path, status_url="http://127.0.0.1:9") as client:
        reply = client.get("/api/v1/pipeline")
        body = reply.json()
        Pipeline.model_validate(body)
        assert (reply.status_code, body["state"], body["workers"]) == (200, "away", [])
        assert "does not answer" in body["message"]


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example.org ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\n\r\n{"workers": 5}',
        b'HTTP/1.1 200 OK\r\n\r\n{"workers": [{"worker": 0, "pid": 1}]}',
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_something_else_in_the_supervisors_place_takes_no_number_away(world, redis_url, tmp_path, answer):
    world.run([Event(0), Event(0, 1)], NOON_US)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(65_536)
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with client_of(redis_url, tmp_path, status_url=url) as client:
            assert client.get("/api/v1/pipeline").json()["state"] == "away"
            reply = client.get("/api/v1/summary")
            assert (reply.status_code, reply.json()["workers"]) == (200, None)
        server.shutdown(socket.SHUT_RDWR)


def test_the_dashboard_is_served_with_its_views_and_caching(redis_url, tmp_path):
    page = {"Accept": "text/html,*/*"}
    with client_of(redis_url, tmp_path) as client:
        reply = client.get("/", headers=page)
        assert reply.status_code == 404 and "not built" in reply.text
        assert client.get("/").json()["error"]["code"] == "not_found"
        # Built while the API runs.
        (tmp_path / "assets").mkdir()
        (tmp_path / "assets" / "main-1a2b.js").write_text("1")
        (tmp_path / "index.html").write_text("<p>board</p>")
        for path in ("/", "/history", "/users/some.one", "/index.html"):
            reply = client.get(path, headers=page)
            if path == "/users/some.one":  # looks like a file that is not there
                assert reply.status_code == 404
                continue
            assert (reply.status_code, reply.text) == (200, "<p>board</p>"), path
            assert reply.headers["cache-control"] == "no-cache"
        script = client.get("/assets/main-1a2b.js")
        assert "immutable" in script.headers["cache-control"]
        again = client.get("/", headers={**page, "If-None-Match": client.get("/").headers["etag"]})
        assert again.status_code == 304
        for path in ("/assets/gone.js", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/history", "/a%00b"):
            assert client.get(path).status_code == 404, path
        for path in ("/api/v1/nothing", "/api", "/docs/x", "/healthz/x", "/nothing", "/history/x"):
            reply = client.get(path, headers=page)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found"), path


def test_the_documentation_shows_every_endpoint_and_asks_no_other_host(redis_url, tmp_path):
    with client_of(redis_url, tmp_path) as client:
        document = client.get("/openapi.json").json()
        page = client.get("/docs").text
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {endpoint.path for endpoint in ENDPOINTS}
    for path, item in document["paths"].items():
        assert f"GET {path}" in page
        assert item["get"]["summary"] in page.replace("&#x27;", "'")
    assert "<script" not in page and "src=" not in page and "//" not in page.replace("://", "")
    assert orjson.dumps(document)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_the_documentation_names_every_status_that_is_met(redis_url, tmp_path, endpoint):
    """Redis holds no views here, and Postgres is away."""
    documented = orjson.loads(openapi_body())["paths"][endpoint.path]["get"]["responses"]
    path, authorised = endpoint.path.format(user_id="u"), {"Authorization": "Bearer t"}
    settings = {"api_token": "t", "api_hosts": ["127.0.0.1"], "api_postgres_timeout_s": 0.1}
    with client_of(redis_url, tmp_path, **settings) as client:
        met = {
            client.get(path).status_code if not endpoint.streams else 401,
            client.head(path, headers=authorised).status_code,
            client.get(path, params={"x": "y" * 9_000}, headers=authorised).status_code,
            client.get(path, headers={**authorised, "Host": "evil.example.org"}).status_code,
            client.get(path, params={"limt": "5"}, headers=authorised).status_code,
        }
    assert {str(status) for status in met} <= set(documented)
    assert met >= {414, 421, 422}
    assert "500" in documented, "nobody can promise that it never comes"
