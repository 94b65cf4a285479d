"""Load on an HTTP server from a process of its own: `python -m bench.http_load --port 8000 --rate 500 /a /b`.

Requests go out at a steady rate, or, without one, as fast as replies come back; or streams are held open. Latency
counts from when a request was due, so that a server that stalls is not flattered by requests that were never sent. It
prints one JSON object, with the CPU it took itself: near a whole core, it was the load generator that was measured.
"""

import argparse
import asyncio
import collections
import json
import sys
import time

import numpy as np
import uvloop

_END = b"\r\n\r\n"
FIRST_SNAPSHOT_S = 30
"""How long is waited for the first snapshot of every stream; those without one are told by `served`."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at a time."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._received = b""
        self._due_at = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._load.idle.append(self)

    def ask(self, request: bytes, due_at: float) -> None:
        self._due_at = due_at
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(_END)
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._received = rest[length:]
        self._load.answered(self, head[9:12] == b"200", self._due_at)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost += 1


class Load:
    """Requests over some connections."""

    def __init__(self, port: int, paths: list[str], rate: float) -> None:
        self._port = port
        self._requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
        self._rate = rate
        self._sent = 0
        self._waiting: collections.deque[float] = collections.deque()
        self.idle: collections.deque[Connection] = collections.deque()
        self.latencies: list[float] = []
        self.failed = self.lost = 0
        self._until = 0.0

    async def run(self, connections: int, seconds: float) -> float:
        """Ask for so long; the seconds that took."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        began = time.perf_counter()
        self._until = began + seconds
        if not self._rate:
            while self.idle:
                self._ask(began)
            await asyncio.sleep(seconds)
        else:
            for number in range(round(self._rate * seconds)):
                due_at = began + number / self._rate
                # Several that are due go out together; sleeping for each would cost more than sending it.
                if due_at > time.perf_counter():
                    await asyncio.sleep(due_at - time.perf_counter())
                self._waiting.append(due_at)
                self._send_waiting()
            while len(self.latencies) + self.failed < self._sent and not self.lost:
                await asyncio.sleep(0.01)
        return time.perf_counter() - began

    def answered(self, connection: Connection, good: bool, due_at: float) -> None:
        now = time.perf_counter()
        self.failed += not good
        if good:
            self.latencies.append(now - due_at)
        self.idle.append(connection)
        if self._rate:
            self._send_waiting()
        elif now < self._until:
            self._ask(now)

    def _send_waiting(self) -> None:
        while self._waiting and self.idle:
            self._ask(self._waiting.popleft())

    def _ask(self, due_at: float) -> None:
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        self.idle.popleft().ask(request, due_at)


class Listener(asyncio.Protocol):
    """One open stream; notes the age of each snapshot, by the milliseconds in its id."""

    def __init__(self, ages_ms: list[float], path: str) -> None:
        self._ages_ms = ages_ms
        self._path = path
        self.events = 0
        self.open = True

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        # A frame begins with its id, and comes in one piece but for rare cases, which are not counted.
        at = data.find(b"id: ")
        if at >= 0:
            self.events += 1
            self._ages_ms.append(time.time() * 1_000 - int(data[at + 4 : data.index(b"\n", at)]))

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False


async def _stream(port: int, path: str, streams: int, seconds: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    ages_ms: list[float] = []
    listeners = []
    for _ in range(streams):
        _, listener = await loop.create_connection(lambda: Listener(ages_ms, path), "127.0.0.1", port)
        listeners.append(listener)
    deadline = time.perf_counter() + FIRST_SNAPSHOT_S
    while not all(listener.events for listener in listeners) and time.perf_counter() < deadline:
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    ages_ms.clear()
    before = [listener.events for listener in listeners]
    await asyncio.sleep(seconds)
    got = [listener.events - count for listener, count in zip(listeners, before, strict=True)]
    return {
        "streams": streams,
        "still_open": sum(listener.open for listener in listeners),
        "served": sum(listener.events > 0 for listener in listeners),
        "events_per_stream_and_s_least": round(min(got) / seconds, 2),
        "events_per_stream_and_s_mean": round(sum(got) / len(got) / seconds, 2),
        **_percentiles(np.array(ages_ms)),
    }


async def _ask(
    port: int, paths: list[str], rate: float, connections: int, seconds: float
) -> dict[str, object]:
    load = Load(port, paths, rate)
    took_s = await load.run(connections, seconds)
    return {
        "requests": len(load.latencies),
        "failed": load.failed + load.lost,
        "requests_per_s": round(len(load.latencies) / took_s, 1),
        **_percentiles(np.array(load.latencies) * 1_000),
    }


def _percentiles(milliseconds: np.ndarray) -> dict[str, float]:
    if not milliseconds.size:
        return {}
    p50, p99, most = np.percentile(milliseconds, [50, 99, 100])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2), "max_ms": round(float(most), 2)}


def main(arguments: list[str]) -> int:
    """Put the load on, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.http_load")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0, help="requests/s; 0 is as many as come back")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--streams", type=int, default=0, help="hold so many streams open instead of asking")
    given = parser.parse_args(arguments)
    began, cpu_began = time.perf_counter(), time.process_time()
    if given.streams:
        work = _stream(given.port, given.paths[0], given.streams, given.seconds)
    else:
        work = _ask(given.port, given.paths, given.rate, given.connections, given.seconds)
    result = uvloop.run(work)
    cores = (time.process_time() - cpu_began) / (time.perf_counter() - began)
    print(json.dumps(result | {"own_cores": round(cores, 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
