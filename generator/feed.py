"""What viewers of the generator's page are sent: every settled message, and the state, as server-sent events.

State: the messages settled since the last frame, and one queue of frames for each viewer. A frame is made once and
given to all. A viewer that is too slow misses frames, and is told how many events were in them.

    event: events    {"events": [[partition, offset, value], [partition, null, value, error], ...]}
    event: missed    {"events": 1234}
    event: state     see app.py

Invariant: `note` is called in the sender's thread, all else in the event loop's; only the deque is shared.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import orjson
from confluent_kafka import KafkaError, Message

FRAME_S = 0.1
FRAMES_MAX = 50
"""Frames that wait for a viewer: five seconds."""
VIEWERS_MAX = 64
PENDING_MAX = 50_000
"""Settled messages that wait for their frame: more than can be sent while the event loop is held up for a second."""
VALUE_BYTES_MAX = 1_024
"""Of a longer value the beginning is shown."""


class Viewer:
    """One open page."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue(FRAMES_MAX)
        self.missed = 0

    def give(self, frame: bytes, events: int) -> None:
        """Queue a frame; one that holds `events` and finds no room is missed."""
        if self.frames.full():
            self.missed += events
            return
        if self.missed:
            frame = _frame("missed", {"events": self.missed}) + frame
            self.missed = 0
        self.frames.put_nowait(frame)

    def end(self) -> None:
        """Let it read what waits, then end its stream."""
        if self.frames.full():
            self.frames.get_nowait()
        self.frames.put_nowait(None)


class Feed:
    """The viewers and what is made for them."""

    def __init__(self, state: Callable[[], dict[str, object]]) -> None:
        self._state = state
        self._settled: deque[tuple[KafkaError | None, Message]] = deque()
        self._viewers: set[Viewer] = set()
        self._unseen = 0
        self._closed = False

    @property
    def full(self) -> bool:
        return len(self._viewers) >= VIEWERS_MAX

    def note(self, error: KafkaError | None, message: Message) -> None:
        """A message was acknowledged or has failed. Costs nothing while nobody looks."""
        if not self._viewers:
            return
        if len(self._settled) < PENDING_MAX:
            self._settled.append((error, message))
        else:
            self._unseen += 1

    async def run(self) -> None:
        """Make a frame every FRAME_S, for as long as it is not cancelled."""
        while True:
            await asyncio.sleep(FRAME_S)
            if self._viewers:
                self._make_frame()
            else:
                self._settled.clear()

    def _make_frame(self) -> None:
        rows = [_row(*self._settled.popleft()) for _ in range(len(self._settled))]
        frame = _frame("state", self._state())
        if rows:
            frame += _frame("events", {"events": rows})
        unseen, self._unseen = self._unseen, 0
        for viewer in self._viewers:
            viewer.missed += unseen
            viewer.give(frame, len(rows))

    async def watch(self) -> AsyncIterator[bytes]:
        """Frames for one viewer until it goes or the feed closes."""
        if self._closed:
            return
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            yield b"retry: 1000\n\n" + _frame("state", self._state())
            while (frame := await viewer.frames.get()) is not None:
                yield frame
        finally:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        self._closed = True
        for viewer in self._viewers:
            viewer.end()


def _row(error: KafkaError | None, message: Message) -> list[object]:
    if error is not None:
        return [message.partition(), None, _text(message.value()), error.str()]
    return [message.partition(), message.offset(), _text(message.value())]


def _text(value: bytes | None) -> str | None:
    """The value as it is, if it is UTF-8; other bytes are written as \\xNN."""
    if value is None:
        return None
    text = value[:VALUE_BYTES_MAX].decode("utf-8", "backslashreplace")
    return text if len(value) <= VALUE_BYTES_MAX else f"{text} … ({len(value):,} bytes)"


def _frame(event: str, body: object) -> bytes:
    return b"event: " + event.encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"
