"""`python -m api` as a process: what only a real server does to a request, and how it starts and stops."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote

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
