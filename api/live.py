"""One refresher of the live numbers: however many clients ask, Redis is asked at most every `api_refresh_ms`.

Each number has its own `Shared`: the first request after it has aged starts one read, all others wait for that
same read. A failure is shared like a number, so that a Redis that hangs costs one time-out, not one per client.
Under steady demand nobody waits: a read starts while the number before it may still be served.

The overview of all views is what most requests are served from. This is also the one place where numbers that are
older than they should be are served, marked stale: the last good ones, whole, until `api_stale_max_s`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from api.rates import ActiveUsersLine, Rate
from api.settings import ApiSettings
from hotpath.views.read import Counts, Overview, Reading, ViewReader, ViewsUnavailable

Value = TypeVar("Value")

OVERVIEW_LIMIT = 10
"""Pages and users of the overview; who asks for more gets a read of LIMIT_MAX, shared by all who do."""
LIMIT_MAX = 100
SLOW_S, SLOW_FACTOR = 0.25, 4
"""A read that took longer is repeated after several times as long: so it is where topics are not keyed by user, and
every active user's sessions are read."""
KEEP_INTERVAL_S = 10.0
"""How often the overview is read when nobody asks: the line of the active users must not have holes."""


@dataclass(frozen=True)
class Served(Generic[Value]):
    """A reading, and whether it is older than it should be: then `error` says why, and `age_s` for how long.

    `bodies` keeps replies made from it, so that each is made once; parts of one reading share them.
    """

    reading: Reading[Value]
    read_at_us: int
    age_s: float = 0.0
    error: ViewsUnavailable | None = None
    bodies: dict[Hashable, bytes] = field(default_factory=dict)

    @property
    def stale(self) -> bool:
        return self.error is not None

    def body(self, name: Hashable, make: Callable[[], bytes]) -> bytes:
        """The reply of that name, made by the first who asks."""
        if name not in self.bodies:
            self.bodies[name] = make()
        return self.bodies[name]


class Shared(Generic[Value]):
    """One number, read by one task at a time and kept for `max_age_s`; from half that age on it is read anew.

    One that takes long to read is kept longer, so that reading it again and again never fills the whole time.
    """

    def __init__(self, read: Callable[[], Awaitable[Value]], max_age_s: float) -> None:
        self._read = read
        self._max_age_s = max_age_s
        self._kept: asyncio.Task[Value] | None = None
        self._running: asyncio.Task[Value] | None = None
        self._done_at = 0.0
        self._slow_s = 0.0  # what the last read took, if that was long

    async def get(self) -> Value:
        """The number, or the error that reading it ended in."""
        if self._running is not None and self._running.done():
            self._kept, self._running = self._running, None
        age_s = time.monotonic() - self._done_at
        max_age_s = max(self._max_age_s, SLOW_FACTOR * self._slow_s)
        if self._running is None and (self._kept is None or age_s > max_age_s / 2):
            self._running = asyncio.create_task(self._refresh())
            # Its error is for those who ask: if nobody does any more, it is nothing to be logged.
            self._running.add_done_callback(lambda task: task.cancelled() or task.exception())
        if self._kept is not None and age_s <= max_age_s:
            return self._kept.result()
        # A client that goes away must not take the read from the others.
        return await asyncio.shield(self._running)

    async def _refresh(self) -> Value:
        began, slow_s = time.monotonic(), 0.0
        try:
            value = await self._read()
            took_s = time.monotonic() - began
            slow_s = took_s if took_s > SLOW_S else 0.0
            return value
        finally:
            # A failure is always tried again soon.
            self._done_at, self._slow_s = time.monotonic(), slow_s

    async def close(self) -> None:
        """End a read that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)


class LastGood(Generic[Value]):
    """Reads, and when that fails gives the last good reading, marked stale, until it is `stale_max_s` old."""

    def __init__(self, read: Callable[[], Awaitable[Reading[Value]]], stale_max_s: float) -> None:
        self._read = read
        self._stale_max_s = stale_max_s
        self._good: Served[Value] | None = None
        self._good_at = 0.0

    async def read(self) -> Served[Value]:
        """Raises ViewsUnavailable when there is no reading that may be served."""
        try:
            reading = await self._read()
        except ViewsUnavailable as error:
            age_s = time.monotonic() - self._good_at
            if self._good is None or age_s > self._stale_max_s:
                raise
            return Served(self._good.reading, self._good.read_at_us, round(age_s, 3), error)
        self._good_at = time.monotonic()
        self._good = Served(reading, time.time_ns() // 1_000)
        return self._good


class LiveNumbers:
    """The numbers that endpoints serve. Raises ViewsUnavailable."""

    def __init__(self, reader: ViewReader, settings: ApiSettings) -> None:
        self._reader = reader
        self._settings = settings
        self._head = Shared(reader.head, settings.api_refresh_ms / 1_000)
        self._overview = self._shared(self._read_overview)
        self._pages = self._shared(lambda: reader.top_pages(LIMIT_MAX))
        self._users = self._shared(lambda: reader.top_users(LIMIT_MAX))
        self._keeping: asyncio.Task[None] | None = None
        self._first_as_of_us: asyncio.Future[int] | None = None
        self.line = ActiveUsersLine()
        self.applied = Rate()
        """Messages that came into the views."""

    def _shared(self, read: Callable[[], Awaitable[Reading[Value]]]) -> Shared[Served[Value]]:
        settings = self._settings
        return Shared(LastGood(read, settings.api_stale_max_s).read, settings.api_refresh_ms / 1_000)

    def start(self) -> None:
        """Read the overview now and then from here on, even when nobody asks."""
        self._keeping = asyncio.create_task(self._keep())

    async def first_as_of_us(self) -> int:
        """as_of of the first overview that is read from now on; waits for it."""
        if self._first_as_of_us is None:
            self._first_as_of_us = asyncio.get_running_loop().create_future()
        return await self._first_as_of_us

    async def ready(self) -> None:
        """Nothing, if Redis answers and the views are complete."""
        await self._head.get()

    async def overview(self) -> Served[Overview]:
        """All views, under one head."""
        return await self._overview.get()

    async def top_pages(self, limit: int) -> Served[Counts]:
        """At least `limit` pages where there are so many; 1 to LIMIT_MAX."""
        if limit > OVERVIEW_LIMIT:
            return await self._pages.get()
        served = await self.overview()
        return replace(served, reading=Reading(served.reading.head, served.reading.value.top_pages))

    async def top_users(self, limit: int) -> Served[Counts]:
        """At least `limit` users where there are so many; 1 to LIMIT_MAX."""
        if limit > OVERVIEW_LIMIT:
            return await self._users.get()
        served = await self.overview()
        return replace(served, reading=Reading(served.reading.head, served.reading.value.top_users))

    async def user_sessions(self, user_id: str) -> Served[Counts]:
        """Read for each request: there are as many of these numbers as users."""
        reading = await self._reader.user_sessions(user_id, await self._head.get())
        return Served(reading, time.time_ns() // 1_000)

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        for shared in (self._head, self._overview, self._pages, self._users):
            await shared.close()

    async def _read_overview(self) -> Reading[Overview]:
        reading = await self._reader.overview(OVERVIEW_LIMIT)
        self.line.add(reading.head.as_of_us, reading.value.active_users)
        if self._first_as_of_us is not None and not self._first_as_of_us.done():
            self._first_as_of_us.set_result(reading.head.as_of_us)
        self.applied.add({log_id: state.applied for log_id, state in reading.head.states.items()})
        return reading

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_INTERVAL_S)
            with suppress(ViewsUnavailable):
                await self.overview()
