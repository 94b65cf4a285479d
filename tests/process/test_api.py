"""`python -m api` as a process: what only a real server does to a request, and how it starts and stops."""

import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote

import psutil
import pytest

from tests.support.api import Api
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import World
from tests.support.pipeline import wait_until

# No client or server on the way may decode twice, fold case or dots, or take a part for something else.
STRANGE_USERS = [
    "a/b",
    "/",
    "a/sessions",
    "ü 名 😀",
    "50%25",
    "%",
    "a?b#c",
    "..",
    "A",
    "\ufffd",
    "\\N;'\"",
    "a" * 128,
]


@pytest.fixture
def api(redis_url: str) -> Iterator[Api]:
    api = Api(redis_url)
    yield api
    api.kill()


def test_a_user_id_may_hold_any_character(api, database, redis_url):
    world = World(database, redis_url)
    world.run([Event(i, user_id=user) for i, user in enumerate(STRANGE_USERS)] + [Event(0, 1)], NOON_US)
    world.close()
    wait_until(api.alive, "the API serves")
    for user in STRANGE_USERS:
        status, body = api.get(f"/api/v1/users/{quote(user, safe='')}/sessions")
        assert status == 200, user
        assert (body["user_id"], body["active_sessions"]) == (user, 1)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 1_000_000),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n" * 200_000),
        (b"GET /healthz?", b"x" * 1_000_000),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b"x" * 1_000_000),
        (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000),
    ],
    ids=["header", "headers", "target", "body", "pipelined"],
)
def test_a_client_that_sends_without_end_is_cut_off_and_nothing_is_kept_for_it(api, capfd, begin, more):
    wait_until(api.alive, "the API serves")
    before = psutil.Process(api.process.pid).memory_info().rss
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(begin)
        with pytest.raises(ConnectionError):
            for _ in range(50):
                client.sendall(more)
    assert psutil.Process(api.process.pid).memory_info().rss - before < 20_000_000
    assert api.alive()
    assert "Traceback" not in capfd.readouterr().err


def test_a_request_that_is_too_long_is_told_so_and_some_may_wait_for_their_turn(api):
    wait_until(api.alive, "the API serves")

    def told(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
            client.sendall(request)
            return b"".join(iter(lambda: client.recv(65_536), b""))

    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(head + b"X: ")
        while not select.select([client], [], [], 0.001)[0]:
            client.sendall(b"x" * 1_000)
        assert b" 400 " in client.recv(65_536)
    last = head + b"Connection: close\r\n\r\n"
    assert told((head + b"\r\n") * 9 + last).count(b"200 OK") == 10
    assert told(head + b"X: " + b"x" * 30_000 + b"\r\nConnection: close\r\n\r\n").count(b"200 OK") == 1


def test_it_stops_when_told(api):
    wait_until(api.alive, "the API serves")
    api.process.send_signal(signal.SIGTERM)
    assert api.process.wait(timeout=10) in (0, -signal.SIGTERM)


def test_a_setting_that_cannot_be_used_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "api", "--api-port", "x"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "--api-port" in done.stderr


def test_it_may_open_as_many_connections_as_it_has_streams():
    code = (
        "import resource; from api.__main__ import _allow_connections\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))\n"
        "_allow_connections(400)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert int(done.stdout) == 912, done.stderr
