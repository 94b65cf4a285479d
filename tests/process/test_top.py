"""`hotpath top` shows what a real supervisor tells, and says when there is none."""

import http.server
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from hotpath.shm.control import STAGES
from tests.process.test_end_to_end import event
from tests.support.pipeline import ROOT, Pipeline, Topic, free_port

TOP = [sys.executable, "-m", "hotpath", "top"]
LEAVES_ITS_SCREEN = "\x1b[?1049l"


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTPATH_")}
    return kept | settings | {"COLUMNS": "80", "LINES": "40", "TERM": "xterm"}


def once(*arguments: str, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*TOP, "--once", *arguments],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _obey_ctrl_c() -> None:
    """As in a terminal: tests that a shell runs in the background, and all that they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*TOP, *arguments],
            env=environment(),
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            start_new_session=True,
            preexec_fn=_obey_ctrl_c,
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, timeout_s: float = 30) -> None:
        """Until `text` is shown, from here on."""
        self.seen = ""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} was not shown, but {self.seen!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                self.seen += os.read(self._master, 65_536).decode(errors="replace")

    def leave(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        self.wait_for(LEAVES_ITS_SCREEN)
        return self.process.wait(10)


@pytest.fixture
def terminal():
    started: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        started.append(Terminal(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def rows(table: str, first: str) -> list[list[str]]:
    """The cells of the lines that begin with `first`."""
    return [line.split() for line in table.splitlines() if line.startswith(first)]


def test_one_table_says_what_the_workers_did(topic: Topic, database: str, redis_url: str):
    now = time.time()
    topic.produce_events([event(f"u{i}", now) for i in range(2_000)])
    topic.produce([(b"k", b"{")] * 7)
    with Pipeline(topic, database, redis_url) as pipeline:
        pipeline.wait_until_applied()
        done = once(HOTPATH_STATUS_URL=pipeline.status_url)
        assert done.returncode == 0, done.stderr
        assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
        assert rows(done.stdout, "accepted")[0][1] == "2,000"
        assert rows(done.stdout, "not_json")[0][1] == "7"
        states, costs, classes = rows(done.stdout, "all")
        assert states[-3:] == ["0", "0", "0"], "no lag, no restarts"
        stages = len(STAGES) + 1  # and their sum
        assert len(costs) == 1 + stages + 3 and all(float(cost) > 0 for cost in costs[1 : 1 + stages])
        assert classes[1] == "2,007"
        for worker in pipeline.status()["workers"]:
            state, cost = rows(done.stdout, f"{worker['worker']} ")
            assert state[1] == "running"
            assert re.fullmatch(r"\d/6", next(cell for cell in state if "/" in cell))
            assert int(cost[-2]) > 10, "MiB"
        assert once("--url", pipeline.status_url + "/status").returncode == 0
        host, _, port = pipeline.status_url.removeprefix("http://").rpartition(":")
        assert once(HOTPATH_STATUS_HOST=host, HOTPATH_STATUS_PORT=port).returncode == 0
        pipeline.stop()


def test_a_supervisor_that_is_away_is_waited_for(topic: Topic, database: str, redis_url: str, terminal):
    pipeline = Pipeline(topic, database, redis_url)
    shown = terminal("--url", pipeline.status_url, "--interval", "0.1")
    shown.wait_for("no supervisor answers")
    with pipeline:
        shown.wait_for(f"supervisor {pipeline.process.pid} at")
        pipeline.stop()
    shown.wait_for("showing what was")
    with pipeline:
        shown.wait_for(f"supervisor {pipeline.process.pid} at")
        assert shown.leave(15) == 0
        pipeline.stop()


def test_ctrl_c_gives_the_terminal_back(terminal):
    shown = terminal("--url", f"http://127.0.0.1:{free_port()}")
    shown.wait_for("trying again")
    assert shown.leave(2) == 0


@pytest.mark.parametrize(
    ("url", "exit_code", "says"),
    [
        ("http://127.0.0.1:1", 3, "HOTPATH_STATUS_URL"),  # nothing listens there
        ("status", 2, "--url"),
        ("http://127.0.0.1:port", 2, "--url"),
        ("http://[::1", 2, "--url"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(url: str, exit_code: int, says: str):
    done = once("--url", url)
    assert done.returncode == exit_code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_a_supervisor_of_another_version_is_told_in_one_line():
    status = b'{"pid": 1, "workers": [{"worker": 0, "received": 5, "restarts": 0}]}'
    with OldSupervisor(status) as url:
        done = once("--url", url)
    assert done.returncode == 3
    assert "another version" in done.stderr and done.stderr.count("\n") == 1


class OldSupervisor:
    """Answers every request with the same status."""

    def __init__(self, status: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(status)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_another_service_is_not_taken_for_a_supervisor(redis_server):
    done = once("--url", f"http://127.0.0.1:{redis_server.url.rpartition(':')[2].partition('/')[0]}")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
