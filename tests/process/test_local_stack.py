"""What `make up` and `make down` promise, on homes of their own: dummy services stand for the real ones."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from deploy.local.errors import StackError
from deploy.local.home import LOOPBACK, Home, is_free
from deploy.local.processes import Identity, Process, tagged
from deploy.local.services import SERVICES, RunningService, Service
from deploy.local.stack import Stack, shell_lines
from tests.support.pipeline import wait_until
from tests.support.servers import REPOSITORY, make_home, remove_home

PAGES = Service(
    name="pages",
    module="http.server",
    what="any files",
    arguments=("--bind", LOOPBACK),
    listens_on="HOTPATH_PAGES",
    health="/",
)
CRASHING = Service(name="crashing", module="this", what="ends at once")


@contextlib.contextmanager
def step(_what: str) -> Iterator[None]:
    yield


@pytest.fixture
def home() -> Iterator[Home]:
    home = make_home()
    yield home
    remove_home(home)


@pytest.fixture
def sleeper(home: Home) -> Iterator[Process]:
    process = Process(home.path, "sleeper")
    process.start(["sleep", "600"])
    yield process
    process.stop(signal.SIGKILL)


def pages(home: Home) -> Service:
    """http.server takes its port as an argument, not from the environment as our services do."""
    port = home.port("pages")
    return replace(PAGES, arguments=(*PAGES.arguments, str(port)))


def test_a_process_is_known_by_its_start_and_not_by_its_pid_alone(home: Home, sleeper: Process):
    identity = sleeper.identity()
    assert identity is not None and identity.alive()
    stranger = json.loads(sleeper.record.read_text()) | {"started_ticks": identity.started_ticks - 1}
    sleeper.record.write_text(json.dumps(stranger))
    assert sleeper.identity() is None
    assert sleeper.stop() is False
    assert identity.alive()  # a pid that now is somebody else's was sent nothing
    assert identity in tagged(home.path)


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"pid": 1}'])
def test_a_torn_record_is_no_process(home: Home, torn: str):
    process = Process(home.path, "torn")
    process.record.parent.mkdir(parents=True)
    process.record.write_text(torn)
    assert process.identity() is None


def test_stop_kills_what_does_not_end_by_itself(home: Home):
    process = Process(home.path, "deaf")
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
    process.start([sys.executable, "-c", f"{deaf}; time.sleep(600)"])
    wait_until(lambda: "up" in process.log.read_text(), "the process ignores SIGTERM")
    identity = process.identity()
    process.stop(deadline_s=0.2)
    assert not identity.alive()


def test_a_leashed_process_dies_with_the_one_that_started_it_by_kill_9(home: Home):
    program = (
        "import pathlib, signal, time\n"
        "from deploy.local.processes import Process\n"
        f"Process(pathlib.Path({str(home.path)!r}), 'dog').start(['sleep', '600'], leash=signal.SIGKILL)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY)
    dog = Process(home.path, "dog")
    identity = wait_until(dog.identity, "the leashed process runs")
    owner.kill()
    owner.wait()
    wait_until(lambda: not identity.alive(), "it has died too")


def test_a_process_that_ends_while_it_is_waited_for_is_told_with_its_log(home: Home):
    process = Process(home.path, "failing")
    process.start([sys.executable, "-c", "import time; print('no such thing'); time.sleep(0.2)"])
    with pytest.raises(StackError, match=r"(?s)failing ended before ready.*no such thing"):
        process.wait_until(lambda: False, "ready", 20)


def test_a_port_is_kept_while_it_is_free_and_changed_when_a_stranger_has_it(home: Home):
    first = home.port("api")
    assert Home(home.path).port("api") == first
    assert home.port("other") != first
    stranger = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", LOOPBACK, str(first)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: not is_free(first), "a stranger listens")
        second = home.port("api")
        assert second != first and home.kept_port("api") == second
    finally:
        stranger.kill()
        stranger.wait()


def test_passwords_are_drawn_once_and_files_are_private(home: Home):
    password = home.password("postgres")
    assert Home(home.path).password("postgres") == password
    assert home.password("kafka") != password
    assert (home.path / "stack.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("shell", ["set -a; . {}", ". {}"])
def test_the_env_file_reaches_the_programs_of_a_shell_unharmed(tmp_path: Path, shell: str):
    settings = {"HOTPATH_KAFKA_OPTIONS": '{"a":"it\'s $HOME `x`"}', "HOTPATH_TOPIC": "events"}
    file = tmp_path / "env"
    file.write_text(shell_lines(settings))
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    told = subprocess.run(
        ["sh", "-c", f'{shell.format(file)}; exec "{sys.executable}" -c "$0"', program],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert json.loads(told.stdout).items() >= settings.items()


def test_every_service_has_a_name_and_a_port_of_its_own():
    assert len({service.name for service in SERVICES}) == len(SERVICES)
    ports = [service.preferred_port for service in SERVICES if service.preferred_port]
    assert len(set(ports)) == len(ports)


def test_a_service_with_other_settings_is_started_again_and_one_with_the_same_is_not(home: Home):
    running = RunningService(home, pages(home))
    assert running.choose_address() == {"HOTPATH_PAGES_URL": running.url}
    running.start({"HOTPATH_TOPIC": "events"})
    first = running.process.identity()
    running.start({"HOTPATH_TOPIC": "events"})
    assert running.process.identity() == first
    running.start({"HOTPATH_TOPIC": "others"})
    assert running.process.identity() != first
    assert not first.alive()
    assert running.healthy()


def test_a_service_that_cannot_start_is_told_with_its_log(home: Home):
    with pytest.raises(StackError, match=r"(?s)crashing ended before running.*Beautiful is better"):
        RunningService(home, CRASHING).start({})


class Robbed(RunningService):
    """A service whose port a stranger takes once, after it was chosen and before the service listens on it."""

    stranger: socket.socket | None = None

    def start(self, settings: dict[str, str]) -> None:
        if self.stranger is None:
            self.stranger = socket.create_server((LOOPBACK, self.home.kept_port(self.service.name)))
        super().start(settings)


def everything(home: Home) -> list[Identity]:
    return list(tagged(home.path))


def kill_all(home: Home) -> None:
    """kill -9 of every process, servers first, as a reboot without shutdown would."""
    killed = everything(home)
    for identity in killed:
        identity.send(signal.SIGKILL)
    # By themselves: a process that is being torn down has lost its environment before it is gone.
    wait_until(lambda: not any(identity.alive() for identity in killed), "all are dead")


def test_a_stack_goes_up_twice_survives_kill_9_and_leaves_no_process(home: Home):
    stack = Stack(home, [pages(home)])
    stack.up(step)
    first = {name: server.process.identity() for name, server in stack.servers.items()}
    assert all(first.values())
    env = home.path / "env"
    assert env.stat().st_mode & 0o777 == 0o600
    before = env.read_text()
    topic = stack.kafka.admin().list_topics("events", timeout=10).topics["events"]
    assert len(topic.partitions) == 16
    with psycopg.connect(stack.postgres.dsn()) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)

    stack.up(step)
    assert {name: server.process.identity() for name, server in stack.servers.items()} == first
    assert env.read_text() == before

    kill_all(home)
    stack.up(step)
    assert all(server.healthy() for server in stack.servers.values())
    assert all(running.healthy() for running in stack.services)
    assert env.read_text() == before

    # All are told the new address of a service whose port a stranger takes while it starts.
    generator = next(service for service in SERVICES if service.name == "generator")
    robbed = Robbed(home, replace(generator, preferred_port=None))
    stack.services.append(robbed)
    stack.up(step)
    with robbed.stranger:
        assert robbed.stranger.getsockname()[1] != home.kept_port("generator")
    assert robbed.healthy()
    assert f"HOTPATH_GENERATOR_URL={robbed.url}\n" in env.read_text()

    # A service that is killed with a child of its own left behind: down finds that, too.
    stray = Process(home.path, "child")
    stray.start(["sleep", "600"])
    stray.record.unlink()
    assert stack.down(step) == 6
    assert everything(home) == []
    assert stack.down(step) == 0

    stack.clean(step)
    assert not home.path.exists()
