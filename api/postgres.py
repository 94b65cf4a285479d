"""Questions to Postgres: few connections, read only, each question bounded in time.

A pool that connects when it is first asked; more questions than connections wait for one, and no longer than the whole
question may take. Postgres being away is a 503, and nothing else the API serves needs it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import psycopg_pool

from api.errors import NotAvailable
from api.settings import ApiSettings
from hotpath.sql import QUERIES

log = logging.getLogger(__name__)
# That Postgres is away is told below, once for each question, without the pool's lines for each try.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

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


class Postgres:
    """Owns the pool."""

    def __init__(self, settings: ApiSettings) -> None:
        self._timeout_s = settings.api_postgres_timeout_s
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
        await self._pool.close()

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """A connection for one question. Raises NotAvailable, also for what happens in its `with` block."""
        deadline = time.monotonic() + self._timeout_s
        try:
            # Statements have time-outs of their own, kept by Postgres; this one is for a Postgres that hangs.
            async with asyncio.timeout(self._timeout_s + GRACE_S), self._pool.connection() as connection:
                yield Reader(connection, deadline)
        except psycopg_pool.TooManyRequests:
            raise NotAvailable("busy", "too many questions to Postgres wait already") from None
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("Postgres did not answer: %s", type(error).__name__)
            raise NotAvailable(
                "postgres_unavailable", f"Postgres does not answer: {type(error).__name__}"
            ) from error


async def _configure(connection: psycopg.AsyncConnection) -> None:
    await connection.execute(QUERIES["configure_reader"])
