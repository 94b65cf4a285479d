"""The generator's service, against a real Kafka: what its buttons do, and what its viewers are sent."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.test_generator import read_topic
from tests.support.pipeline import ROOT, wait_until
from tests.support.services import GeneratorProcess


def events_of(app: GeneratorProcess) -> Iterator[tuple[str, dict]]:
    """Events of its stream, as (name, body), until it ends."""
    with urllib.request.urlopen(f"{app.url}/api/v1/stream", timeout=10) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in reply:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])


@pytest.fixture
def environment(kafka, new_topic) -> dict[str, str]:
    return {
        "HOTPATH_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HOTPATH_KAFKA_OPTIONS": json.dumps(kafka.client_options),
        "HOTPATH_TOPIC": new_topic(4),
        "HOTPATH_GENERATOR_RATE": "0",
        "HOTPATH_GENERATOR_USERS": "500",
    }


@pytest.fixture
def start(environment) -> Iterator[Callable[..., GeneratorProcess]]:
    apps: list[GeneratorProcess] = []

    def start(**more: str) -> GeneratorProcess:
        apps.append(GeneratorProcess(environment | more))
        apps[-1].start()
        return apps[-1]

    yield start
    for app in apps:
        app.kill()


def test_viewers_are_sent_every_event_that_kafka_has_with_its_place(start, environment):
    app = start()
    stream = events_of(app)
    assert next(stream)[0] == "state", "the state comes first"
    app.change(rate=1_000, bots=True, malformed=True)
    wait_until(lambda: app.state()["delivered"] > 500, "events arrive")
    final = app.settled()
    assert final["failed"] == 0 and final["sent"] == final["delivered"]
    seen: dict[tuple[int, int], str | None] = {}
    for name, body in stream:
        assert name != "missed"
        if name == "events":
            seen |= {(partition, offset): value for partition, offset, value in body["events"]}
        if len(seen) == final["delivered"]:
            break
    stored = {(m.partition(), m.offset()): m.value() for m in read_topic(environment)}
    assert seen.keys() == stored.keys()
    for place, value in stored.items():
        if value is None or seen[place] is None:
            assert value is None and seen[place] is None
        elif b"\\" not in value and value.isascii() and len(value) <= 1_024:
            assert seen[place] == value.decode()


def test_each_button_is_reached_and_stop_stops(start):
    app = start(HOTPATH_GENERATOR_RATE="100")
    for rate in (100, 1_000, 10_000):
        assert app.change(rate=rate)["target_per_s"] == rate
        # Two cores that do other things, too: what is held is that it sends, at about the rate and never much above.
        wait_until(lambda wanted=rate: 0.5 * wanted < app.state()["reached_per_s"] < 2 * wanted, f"{rate}/s")
    assert app.settled()["target_per_s"] == 0


def test_two_who_press_at_once_get_one_of_their_wishes_and_both_see_it(start):
    app = start()
    wishes = [
        {"rate": 100, "bots": True, "malformed": False},
        {"rate": 200, "bots": False, "malformed": True},
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: app.change(**wishes[number % 2]), range(40)))
    state = app.state()
    got = {"rate": state["target_per_s"], "bots": state["bots"], "malformed": state["malformed"]}
    assert got in wishes
    streams = [events_of(app), events_of(app)]
    states = [next(body for name, body in stream if name == "state") for stream in streams]
    assert [shown["target_per_s"] for shown in states] == [got["rate"]] * 2


@pytest.mark.parametrize(
    ("body", "media_type", "status", "parameter"),
    [
        (b'{"rate": 20001}', "application/json", 422, "rate"),
        (b'{"rate": -1}', "application/json", 422, "rate"),
        (b'{"rate": true}', "application/json", 422, "rate"),
        (b'{"rate": "100"}', "application/json", 422, "rate"),
        (b'{"rate": null}', "application/json", 422, "rate"),
        (b'{"bots": 1}', "application/json", 422, "bots"),
        (b'{"rate": 100, "speed": 1}', "application/json", 422, "speed"),
        (b"{}", "application/json", 422, None),
        (b"[]", "application/json", 422, None),
        (b"{", "application/json", 422, None),
        (b'{"rate": NaN}', "application/json", 422, None),
        (b'{"rate": 100}', "text/plain", 415, None),
        (b" " * 2_000, "application/json", 413, None),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(
    shared_app, body: bytes, media_type: str, status: int, parameter: str | None
):
    before = shared_app.state()
    got, reply = shared_app.ask("/api/v1/state", body, media_type)
    assert (got, reply["error"]["parameter"]) == (status, parameter)
    assert shared_app.state() == before


@pytest.fixture(scope="module")
def shared_app(kafka) -> Iterator[GeneratorProcess]:
    """One that sends nothing, its topic never made: for what is refused before."""
    app = GeneratorProcess(
        {
            "HOTPATH_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "HOTPATH_KAFKA_OPTIONS": json.dumps(kafka.client_options),
            "HOTPATH_TOPIC": "never-made",
            "HOTPATH_GENERATOR_RATE": "0",
        }
    )
    app.start()
    wait_until(lambda: "never-made" in app.state()["trouble"], "it says that the topic is not there")
    yield app
    app.kill()


def test_sigterm_ends_it_at_once_also_with_viewers(start):
    app = start(HOTPATH_GENERATOR_RATE="100")
    stream = events_of(app)
    next(stream)
    app.process.send_signal(signal.SIGTERM)
    for _ in stream:
        pass
    assert app.process.wait(10) in (0, -signal.SIGTERM)


def test_it_says_that_kafka_is_away_and_goes_on_when_it_is_back(another_kafka, start):
    server = another_kafka()
    server.create_topic("events", 4)
    client = {
        "HOTPATH_KAFKA_BOOTSTRAP": server.bootstrap,
        "HOTPATH_KAFKA_OPTIONS": json.dumps(server.client_options),
        "HOTPATH_TOPIC": "events",
    }
    app = start(**client, HOTPATH_GENERATOR_RATE="200")
    wait_until(lambda: app.state()["delivered"] > 50, "events arrive")
    server.kill()
    wait_until(lambda: app.state()["trouble"], "it says that Kafka is away")
    status, health = app.ask("/healthz")
    assert status == 200 and health["kafka"] == app.state()["trouble"]
    delivered = app.state()["delivered"]
    server.start()
    wait_until(
        lambda: app.state()["delivered"] > delivered and not app.state()["trouble"], "events arrive again"
    )


def test_replies_carry_a_content_policy_and_unknown_paths_an_error(shared_app):
    with urllib.request.urlopen(f"{shared_app.url}/", timeout=5) as reply:
        policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    status, body = shared_app.ask("/api/v1/nothing")
    assert (status, body["error"]["code"]) == (404, "not_found")
    status, body = shared_app.ask("/api/v1/stream", b"{}")
    assert (status, body["error"]["code"]) == (405, "method_not_allowed")


def test_a_rate_above_the_limit_is_refused_at_the_start(environment):
    settings = {**os.environ, **environment, "HOTPATH_GENERATOR_RATE": "30000"}
    done = subprocess.run(
        [sys.executable, "-m", "generator.app"],
        env=settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2 and "--rate must be at most --rate-max" in done.stderr
