"""One refresher of the live numbers: however many clients ask, Redis is asked at most every `api_refresh_ms`.

Each number has its own `Shared`: the first request after it has aged starts one read, all others wait for that
same read. A failure is shared like a number, so that a Redis that hangs costs one time-out, not one per client.
This is also the one place where a number that is older than it should be could be served, marked stale.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from api.settings import ApiSettings
from hotpath.views.read import Reading, ViewReader

Value = TypeVar("Value")

LIMIT_TIERS = (10, 100)
"""Top pages are read for the least of these that is enough, so that every limit shares two reads."""
LIMIT_MAX = LIMIT_TIERS[-1]


@dataclass(frozen=True)
class Served(Generic[Value]):
    """A reading, and whether it is older than it should be."""

    reading: Reading[Value]
    stale: bool = False


class Shared(Generic[Value]):
    """One number, read by one task at a time and kept for `max_age_s`."""

    def __init__(self, read: Callable[[], Awaitable[Value]], max_age_s: float) -> None:
        self._read = read
        self._max_age_s = max_age_s
        self._task: asyncio.Task[Value] | None = None
        self._done_at = 0.0

    async def get(self) -> Value:
        """The number, or the error that reading it ended in."""
        aged = self._task is None or (
            self._task.done() and time.monotonic() - self._done_at > self._max_age_s
        )
        if aged:
            self._task = asyncio.create_task(self._refresh())
        # A client that goes away must not take the read from the others.
        return await asyncio.shield(self._task)

    async def _refresh(self) -> Value:
        try:
            return await self._read()
        finally:
            self._done_at = time.monotonic()

    async def close(self) -> None:
        """End a read that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class LiveNumbers:
    """The numbers that endpoints serve. Raises ViewsUnavailable."""

    def __init__(self, reader: ViewReader, settings: ApiSettings) -> None:
        self._reader = reader
        max_age_s = settings.api_refresh_ms / 1_000
        self._head = Shared(reader.head, max_age_s)
        self._users = Shared(self._read_users, max_age_s)
        self._pages = {limit: Shared(self._pages_reader(limit), max_age_s) for limit in LIMIT_TIERS}

    async def ready(self) -> None:
        """Nothing, if Redis answers and the views are complete."""
        await self._head.get()

    async def active_users(self) -> Served[int]:
        return Served(await self._users.get())

    async def top_pages(self, limit: int) -> Served[list[tuple[bytes, int]]]:
        """At most `limit` pages, 1 to LIMIT_MAX."""
        tier = next(tier for tier in LIMIT_TIERS if tier >= limit)
        reading = await self._pages[tier].get()
        return Served(Reading(reading.head, reading.value[:limit]))

    async def user_sessions(self, user_id: str) -> Served[list[tuple[bytes, int]]]:
        """Read for each request: there are as many of these numbers as users."""
        return Served(await self._reader.user_sessions(user_id, await self._head.get()))

    async def close(self) -> None:
        for shared in (self._head, self._users, *self._pages.values()):
            await shared.close()

    async def _read_users(self) -> Reading[int]:
        return await self._reader.active_users(await self._head.get())

    def _pages_reader(self, limit: int) -> Callable[[], Awaitable[Reading[list[tuple[bytes, int]]]]]:
        async def read() -> Reading[list[tuple[bytes, int]]]:
            return await self._reader.top_pages(limit, await self._head.get())

        return read
