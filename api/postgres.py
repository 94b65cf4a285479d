"""Questions to Postgres: few connections, read only, each question bounded in time.

However many clients ask the same, it is asked once: answers are shared as live numbers are (see live.py). A pool that
connects when it is first asked; more questions than connections wait for one, and no longer than the whole question
may take. Postgres being away is a 503, and nothing else the API serves needs it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
import psycopg_pool

from api.errors import NotAvailable
from api.live import Shared
from api.settings import ApiSettings
from hotpath.sql import QUERIES

log = logging.getLogger(__name__)
# That Postgres is away is told below, once for each question, without the pool's lines for each try.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

Value = TypeVar("Value")

ANSWERS_MAX = 32
"""Answers to different questions that are kept at once."""
WAITING_MAX = 32
"""Questions that may wait for a connection; more are refused at once."""
LEAST_S = 0.05
GRACE_S = 1.0


class TooCostly(NotAvailable):
    """The answer would take longer than a question may."""

    def __init__(self) -> None:
        super().__init__("too_costly", "this takes longer than a question may: ask for a shorter range")


class Reader:
    """One connection for the length of a question, until `deadline` (time.monotonic())."""

    def __init__(self, connection: psycopg.AsyncConnection, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    async def rows(self, name: str, given: dict[str, Any], share: float = 1.0) -> list[tuple]:
        """The rows of a named query, which may take `share` of the time that is left. Raises TooCostly."""
        left_s = max(LEAST_S, (self._deadline - time.monotonic()) * share)
        try:
            await self._connection.execute(
                QUERIES["limit_statement"], {"timeout_ms": max(1, round(left_s * 1_000))}
            )
            cursor = await self._connection.execute(QUERIES[name], given)
            return await cursor.fetchall()
        except psycopg.errors.QueryCanceled:
            raise TooCostly from None


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What Postgres answered; all that was committed before `as_of_us` (microseconds since 1970) is in it."""

    as_of_us: int
    value: Value


class Postgres:
    """Owns the pool, and the answers of the last moments."""

    def __init__(self, settings: ApiSettings) -> None:
        self._timeout_s = settings.api_postgres_timeout_s
        self._refresh_s = settings.api_refresh_ms / 1_000
        self._answers: dict[Hashable, Shared[Answer[Any]]] = {}
        self._connections_used = 0
        self._pool = psycopg_pool.AsyncConnectionPool(
            settings.postgres_dsn,
            min_size=0,
            max_size=settings.api_postgres_connections_max,
            max_waiting=WAITING_MAX,
            timeout=self._timeout_s / 2,
            reconnect_timeout=self._timeout_s,
            kwargs={"autocommit": True, "application_name": "hotpath api", "connect_timeout": 2},
            configure=_configure,
            open=False,
        )

    async def open(self) -> None:
        """Begin; connects only when asked."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        for answer in self._answers.values():
            await answer.close()
        await self._pool.close()

    async def answer(self, question: Hashable, ask: Callable[[Reader], Awaitable[Value]]) -> Answer[Value]:
        """What `ask` finds, the same for all who put an equal `question` meanwhile. Raises NotAvailable."""
        shared = self._answers.pop(question, None)
        if shared is None:

            async def read() -> Answer[Value]:
                async with self.reader() as reader:
                    ((as_of_us,),) = await reader.rows("now_us", {})
                    return Answer(as_of_us, await ask(reader))

            shared = Shared(read, self._refresh_s)
        # The last in order is the one used last.
        self._answers[question] = shared
        if len(self._answers) > ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]
        return await shared.get()

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """A connection for one question. Raises NotAvailable, also for what happens in its `with` block."""
        deadline = time.monotonic() + self._timeout_s
        try:
            # Statements have time-outs of their own, kept by Postgres; this one is for a Postgres that hangs.
            async with asyncio.timeout(self._timeout_s + GRACE_S), self._pool.connection() as connection:
                self._connections_used += 1
                try:
                    yield Reader(connection, deadline)
                finally:
                    self._connections_used -= 1
        except psycopg_pool.TooManyRequests:
            raise NotAvailable("busy", "too many questions to Postgres wait already") from None
        except psycopg_pool.PoolTimeout as error:
            if self._connections_used:
                raise NotAvailable("busy", "other questions to Postgres took too long") from None
            log.warning("Postgres did not answer: %s", type(error).__name__)
            raise NotAvailable("postgres_unavailable", "Postgres does not answer") from error
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("Postgres did not answer: %s", type(error).__name__)
            raise NotAvailable(
                "postgres_unavailable", f"Postgres does not answer: {type(error).__name__}"
            ) from error


async def _configure(connection: psycopg.AsyncConnection) -> None:
    await connection.execute(QUERIES["configure_reader"])
