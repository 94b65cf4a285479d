"""The stream over real connections: fan-out, ids, outages, slow clients, and how it ends."""

import asyncio
import contextlib
import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import orjson
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from api.contract import Error, Summary
from api.errors import HANDLERS, NotAvailable
from api.server import Server
from api.settings import ApiSettings
from api.stream import Broadcast, EventStream
from tests.support.api import Api, Listener
from tests.support.blocks import NOON_US, Event
from tests.support.live_views import World
from tests.support.pipeline import free_port, wait_until


@pytest.fixture
def new_api() -> Iterator[Callable[..., Api]]:
    started: list[Api] = []

    def start(redis_url: str, **settings: object) -> Api:
        started.append(Api(redis_url, **settings))
        wait_until(started[-1].alive, "the API serves")
        return started[-1]

    yield start
    for api in started:
        api.kill()


@pytest.fixture
def world(database: str, redis_url: str) -> Iterator[World]:
    world = World(database, redis_url)
    world.run([Event(0), Event(1, session_id="two"), Event(0, 1, user_id="u-2")], NOON_US)
    yield world
    world.close()


def test_every_listener_gets_the_same_snapshot_which_is_the_summary(new_api, world, redis_url):
    api = new_api(redis_url)
    listeners = [api.listen() for _ in range(20)]
    assert listeners[0].reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert listeners[0].reply.headers["cache-control"] == "no-store"
    first = [listener.until("summary") for listener in listeners]
    second = [listener.until("summary") for listener in listeners]
    assert len({event.id for event in first[1:] + second[1:]}) <= 3, "snapshots are shared"
    assert second[0].id > first[0].id > (time.time() - 60) * 1_000
    Summary.model_validate(second[0].data)
    assert second[0].data["active_users"]["value"] == 2
    assert second[0].data["top_users"]["users"][0] == {"user_id": "u-1", "active_sessions": 2}
    status, summary = api.get("/api/v1/summary")
    assert status == 200
    moving = ("read_at", "events_per_s")
    assert {k: v for k, v in summary.items() if k not in moving} == {
        k: v for k, v in second[0].data.items() if k not in moving
    }
    # Who comes back gets what is later than the last they saw; who sends nonsense gets what there is.
    last = listeners[0].until("summary").id
    assert api.listen(**{"Last-Event-ID": str(last)}).until("summary").id > last
    for odd in ("x", "-1", str(10**18), "9" * 40):
        assert api.listen(**{"Last-Event-ID": odd}).until("summary").id >= last


def test_a_stream_that_is_left_makes_room_for_another(new_api, world, redis_url):
    api = new_api(redis_url, api_streams_max=2)
    first, second = api.listen(), api.listen()
    first.until("summary")
    refused = api.listen()
    assert refused.reply.status == 503
    body = orjson.loads(refused.reply.read())
    Error.model_validate(body)
    assert body["error"]["code"] == "too_many_streams"
    first.close()

    def opens() -> bool:
        third = api.listen()
        return third.reply.status == 200 and third.until("summary") is not None

    wait_until(opens, "a place is free again")
    assert second.until("summary")


def test_streams_end_cleanly_when_the_api_stops(new_api, world, redis_url):
    api = new_api(redis_url)
    listeners = [api.listen() for _ in range(5)]
    for listener in listeners:
        listener.until("summary")
    api.process.send_signal(signal.SIGTERM)
    for listener in listeners:
        while listener.next() is not None:  # raises unless the last chunk says that it is the last
            pass
    assert api.process.wait(timeout=10) in (0, -signal.SIGTERM)


def test_an_outage_is_told_with_the_last_good_numbers_until_new_ones_come(new_api, database, another_redis):
    server = another_redis(durable=True)
    world = World(database, server.url)
    api = new_api(server.url, api_redis_timeout_s=0.3, api_token="secret")
    assert api.listen().reply.status == 401
    authorised = {"Authorization": "Bearer secret"}
    early = api.listen(**authorised)
    assert early.next().data["error"]["code"] == "views_rebuilding"
    world.run([Event(0), Event(0, 1)], NOON_US)
    good = early.until("summary")
    assert good.data["stale"] is False
    server.kill()
    unavailable = early.until("unavailable")
    assert unavailable.data["error"]["code"] == "redis_unavailable"
    stale, again = early.until("summary"), early.until("unavailable")
    assert stale.id == again.id > unavailable.id
    assert stale.data["stale"] is True and stale.data["age_s"] > 0
    assert stale.data["as_of"] == good.data["as_of"]
    late = api.listen(**authorised)
    assert late.next().data["stale"] is True
    status, body = api.get("/api/v1/summary", **authorised)
    assert (status, body["stale"]) == (200, True)
    server.start()
    while (event := early.next()).name != "summary" or event.data["stale"]:
        pass
    assert early.next().name == "summary", "nothing is unavailable any more"
    world.close()


@pytest.fixture
def fast_stream() -> Iterator[tuple[Broadcast, int]]:
    """A server whose stream makes a big frame every hundredth of a second."""
    made = 0

    async def make() -> list[tuple[bytes, bytes]]:
        nonlocal made
        made += 1
        return [(b"summary", orjson.dumps({"made": made, "ballast": "x" * 20_000}))]

    broadcast = Broadcast(make, streams_max=10, interval_s=0.01)
    app = Starlette(
        routes=[Route("/api/v1/stream", lambda request: EventStream(broadcast, "", stall_s=0.5))],
        exception_handlers=HANDLERS,
    )
    app.state.broadcast = broadcast
    port = free_port()
    server = Server(app, ApiSettings(api_port=port))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    yield broadcast, port
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def test_a_client_that_does_not_end_its_head_is_closed_and_one_that_waits_for_events_is_not(
    monkeypatch, fast_stream
):
    monkeypatch.setattr("api.server.HEAD_S", 0.2)
    broadcast, port = fast_stream
    listener = Listener(port)
    first = listener.next().data["made"]
    again = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n"
    for begin in (b"", b"GET /nothing HTTP/1.1\r\nX: ", again + b"\r\n" + again):
        with socket.create_connection(("127.0.0.1", port), timeout=4) as client:  # idle ones are left for 5 s
            client.sendall(begin)
            while client.recv(65_536):
                pass
    assert listener.next().data["made"] > first
    assert broadcast.listeners == 1


def test_a_slow_listener_misses_snapshots_and_one_that_takes_nothing_is_cut_off(fast_stream):
    broadcast, port = fast_stream
    stuck = Listener(port, receive_bytes=4_096)
    slow = Listener(port, receive_bytes=4_096)
    quick = Listener(port)
    numbers = {"slow": [], "quick": []}
    with contextlib.suppress(TimeoutError):
        for turn in range(200):
            numbers["quick"].append(quick.next().data["made"])
            if turn % 10 == 0:
                numbers["slow"].append(slow.next().data["made"])
    for made in numbers.values():
        assert made == sorted(set(made)), "in order, none twice"
    assert numbers["slow"][-1] - numbers["slow"][0] > 2 * len(numbers["slow"]), "it missed some"
    wait_until(lambda: broadcast.listeners == 2, "the one that is stuck is gone")
    received = 0
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        while True:
            received += len(stuck.reply.read1(65_536) or _cut_off())
    assert received < 1_000_000, "little was kept for it"
    assert quick.next().data["made"] > numbers["quick"][-1]


def _cut_off() -> bytes:
    raise ConnectionError("closed")


def test_nothing_is_made_while_nobody_listens(fast_stream):
    broadcast, port = fast_stream
    listener = Listener(port)
    last = listener.next().data["made"]
    listener.close()
    wait_until(lambda: broadcast.listeners == 0 and broadcast.idle, "the loop rests")
    another = Listener(port)
    assert another.next().data["made"] < last + 200


def test_a_snapshot_that_fails_unexpectedly_does_not_end_the_streams():
    async def scenario() -> None:
        answers = iter([ValueError("once"), [(b"summary", b"1")]])

        async def make() -> list[tuple[bytes, bytes]]:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        broadcast = Broadcast(make, streams_max=1, interval_s=0.01)
        with broadcast.listener():
            frame = await broadcast.after(0, timeout_s=5)
            assert b"event: summary\ndata: 1\n\n" in frame.data
        await broadcast.close()
        assert await broadcast.after(0, timeout_s=5) is None
        with pytest.raises(NotAvailable, match="stops"), broadcast.listener():
            pass

    asyncio.run(scenario())


def test_a_stream_without_snapshots_is_kept_open_by_heartbeats_and_still_ends_cleanly(monkeypatch):
    monkeypatch.setattr("api.stream.HEARTBEAT_S", 0.01)
    sent: list[dict] = []

    async def scenario() -> None:
        three = asyncio.Event()

        async def never() -> list[tuple[bytes, bytes]]:
            await asyncio.Event().wait()

        async def receive() -> dict:
            await asyncio.Event().wait()

        async def send(message: dict) -> None:
            sent.append(message)
            if sum(message.get("body") == b": heartbeat\n\n" for message in sent) == 3:
                three.set()

        broadcast = Broadcast(never, streams_max=1)
        stream = EventStream(broadcast, "", stall_s=5)
        served = asyncio.create_task(stream({"type": "http", "method": "GET"}, receive, send))
        await asyncio.wait_for(three.wait(), 5)
        await broadcast.close()
        await asyncio.wait_for(served, 5)
        assert broadcast.listeners == 0

    asyncio.run(scenario())
    assert sent[0]["status"] == 200
    assert sent[1]["body"] == b"retry: 1000\n\n"
    assert sent[-1] == {"type": "http.response.body", "body": b""}


def test_a_head_request_gets_the_headers_of_a_stream_and_ends(new_api, redis_url):
    api = new_api(redis_url)
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=5)
    connection.request("HEAD", "/api/v1/stream")
    reply = connection.getresponse()
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert reply.read() == b""
    connection.close()
