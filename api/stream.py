"""The stream of snapshots: made and serialised once a second, however many clients listen.

`Broadcast` owns the loop, which only runs while somebody listens, and the latest frame. A client that is slower than
the frames come misses some: it always takes the latest. One that takes nothing for `api_stream_stall_s` is cut off.
Streams end when their client goes, and all of them on `close`.

A frame is one snapshot: the event `summary`, or `unavailable` with why there are no new numbers; where old ones may
still be served both, the stale summary first. Ids rise for ever, also over restarts: milliseconds since 1970.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import NotAvailable, places

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
HEARTBEAT_S = 5.0
"""A comment is sent when there was no frame for so long, so that both ends learn of a dead connection."""
HEARTBEAT = b": heartbeat\n\n"
OPENING = b"retry: 1000\n\n"
"""Tells browsers how soon to connect again."""
BUFFER_BYTES = 32 << 10
"""What may wait for a client in this process, and again in the kernel: some frames."""
TRANSPORT = "hotpath.transport"
"""Extension of the ASGI scope: the connection's transport (see server.py)."""

Event = tuple[bytes, bytes]
"""Name and data of one event; data is one line."""


@dataclass(frozen=True)
class Frame:
    """What is sent for one snapshot."""

    id: int
    data: bytes


class Broadcast:
    """Makes frames while there are listeners. `make` gives the events of a snapshot."""

    def __init__(
        self, make: Callable[[], Awaitable[list[Event]]], streams_max: int, interval_s: float = INTERVAL_S
    ) -> None:
        self._make = make
        self._streams_max = streams_max
        self._interval_s = interval_s
        self.listeners = 0
        self._frame: Frame | None = None
        self._last_id = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def idle(self) -> bool:
        """Whether no frames are made."""
        return self._task is None or self._task.done()

    @contextmanager
    def listener(self) -> Iterator[None]:
        """Counts a listener while its `with` block lasts. Raises NotAvailable: too many, or closed."""
        if self.closed:
            raise NotAvailable("stopping", "this server stops")
        if self.listeners >= self._streams_max:
            raise NotAvailable(
                "too_many_streams", f"no more than {self._streams_max} streams are served at once"
            )
        self.listeners += 1
        if self.idle:
            self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.listeners -= 1

    async def after(self, seen_id: int, timeout_s: float) -> Frame | None:
        """The latest frame if it is later than `seen_id`, else the next; None after `timeout_s`, or when closed."""
        if not self.closed and (self._frame is None or self._frame.id <= seen_id):
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return None
        return None if self.closed else self._frame

    async def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._news.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due_at = loop.time()
        try:
            while self.listeners:
                await self._tick()
                # After a pause (a slow answer, a stopped machine) go on from now: nobody wants what was missed.
                due_at = max(due_at + self._interval_s, loop.time())
                await asyncio.sleep(due_at - loop.time())
        finally:
            self._frame = None  # the next listener must not get one that is old

    async def _tick(self) -> None:
        try:
            events = await self._make()
        except Exception as error:
            log.error("a snapshot for the streams failed\n%s", places(error))
            return
        self._last_id = max(self._last_id + 1, time.time_ns() // 1_000_000)
        data = b"".join(b"id: %d\nevent: %s\ndata: %s\n\n" % (self._last_id, *event) for event in events)
        self._frame = Frame(self._last_id, data)
        news, self._news = self._news, asyncio.Event()
        news.set()


class EventStream(Response):
    """The reply to one listener; continues behind `last_event_id`."""

    media_type = "text/event-stream"

    def __init__(self, broadcast: Broadcast, last_event_id: str, stall_s: float) -> None:
        # A proxy must neither keep it nor collect it.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._broadcast = broadcast
        self._stall_s = stall_s
        plain = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 20
        seen_id = int(last_event_id) if plain else 0
        # One from the future comes of a clock that was put back: it must not keep every frame away.
        self._seen_id = seen_id if seen_id <= time.time_ns() // 1_000_000 else 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._broadcast.listener():
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            transport = scope.get("extensions", {}).get(TRANSPORT)
            _bound(transport)
            tasks = [asyncio.create_task(self._pump(send)), asyncio.create_task(_gone(receive))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                error = tasks[0].exception() if tasks[0].done() else None
                if isinstance(error, TimeoutError):
                    log.info("a stream whose client took nothing was closed")
                    if transport is not None:
                        transport.abort()
                        await tasks[1]
                elif error is not None:
                    raise error
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        """Frames until the end. Raises TimeoutError when the client takes nothing."""
        seen_id, data = self._seen_id, OPENING
        while True:
            async with asyncio.timeout(self._stall_s):
                await send({"type": "http.response.body", "body": data, "more_body": True})
            frame = await self._broadcast.after(seen_id, HEARTBEAT_S)
            if self._broadcast.closed:
                await send({"type": "http.response.body", "body": b""})
                return
            seen_id, data = (frame.id, frame.data) if frame else (seen_id, HEARTBEAT)


async def _gone(receive: Receive) -> None:
    """Returns when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _bound(transport: asyncio.Transport | None) -> None:
    """Keep little for a client that reads slowly, and notice soon one that is gone without a word."""
    if transport is None:
        return
    transport.set_write_buffer_limits(high=BUFFER_BYTES)
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
