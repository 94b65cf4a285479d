"""A session with Postgres that is made again when it is lost, and the patience for errors that pass.

State owned: one psycopg connection in autocommit mode (transactions are opened where they are wanted) and the
server process behind it. A session that was lost is known as `lost` until `connect` succeeds: what became of a
transaction that was open then is for the caller to find out.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import psycopg

from hotpath import sql
from hotpath.errors import Unavailable
from hotpath.settings import PipelineSettings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 5
"""Only DDL can make a flush wait for a lock. It is short, or it is a person's, and then retrying is no loss."""
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
"""A server that restarts is back within seconds, and looking for it costs it one refused connection."""
HEARTBEAT_S = 0.1
LOG_INTERVAL_S = 10.0

_KEEPALIVES = {
    # A peer that vanished is noticed after 10 + 3 * 3 s, before the supervisor takes the worker for hung.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_PASSING_CLASSES = {
    "08",  # connection
    "40",  # serialisation, deadlock
    "53",  # disk full, out of memory, too many connections
    "57",  # statement time-out, shutdown, starting up
    "58",  # input or output of the server's system
}
_PASSING_STATES = {
    "25006",  # read-only: a standby that is being promoted
    "25P03",  # idle in a transaction for too long: this process was stopped for a while
    "55006",  # object in use
    "55P03",  # lock time-out
}


def passes(error: psycopg.Error) -> bool:
    """Whether the same statement may well succeed later."""
    state = error.sqlstate
    return state is not None and (state[:2] in _PASSING_CLASSES or state in _PASSING_STATES)


@dataclass(frozen=True)
class Backend:
    """A server process: numbers are used again, its beginning tells which one it is."""

    pid: int
    backend_start: datetime


class PostgresSession:
    """One connection and its reconnection. Not for two threads at a time."""

    def __init__(
        self,
        settings: PipelineSettings,
        application_name: str,
        should_stop: Callable[[], bool],
        heartbeat: Callable[[], None],
    ) -> None:
        self._dsn = settings.postgres_dsn
        self._statement_timeout_s = settings.statement_timeout_s
        self._application_name = application_name
        self._should_stop = should_stop
        self._heartbeat = heartbeat
        self._connection: psycopg.Connection | None = None
        self._backend: Backend | None = None
        self._failures = 0
        self._logged_at = float("-inf")

    @property
    def lost(self) -> bool:
        return self._connection is None or self._connection.closed or self._connection.broken

    @property
    def connection(self) -> psycopg.Connection:
        """The connection, which must not be lost."""
        assert self._connection is not None
        return self._connection

    @property
    def backend(self) -> Backend:
        """The server process of the connection."""
        assert self._backend is not None
        return self._backend

    def connect(self) -> None:
        """Connect once and end the server process of the last connection, which may not know that it is over.

        Raises psycopg.Error.
        """
        self.close()
        connection = psycopg.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=self._application_name,
            client_encoding="utf8",
            **_KEEPALIVES,
        )
        statement_timeout_ms = int(self._statement_timeout_s * 1_000)
        try:
            connection.execute(
                sql.QUERIES["configure_session"],
                {
                    "lock_timeout_ms": min(int(LOCK_TIMEOUT_S * 1_000), statement_timeout_ms),
                    "statement_timeout_ms": statement_timeout_ms,
                    "idle_timeout_ms": statement_timeout_ms,
                },
            )
            if self._backend is not None:
                connection.execute(sql.QUERIES["end_backend"], vars(self._backend))
            self._backend = Backend(*connection.execute(sql.QUERIES["own_backend"]).fetchone())
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def succeeded(self) -> None:
        """The statement that `recover` was asked about has succeeded."""
        if self._failures:
            log.info("Postgres: going on after %d failed attempts", self._failures)
        self._failures = 0

    def recover(self, error: psycopg.Error) -> None:
        """Return after a pause when what failed by `error` is worth another try.

        Raises Unavailable when it is not, or when the worker is to stop, and `error` when it is no failure of Postgres.
        """
        if not self.lost and not passes(error):
            if error.sqlstate is not None:
                raise Unavailable(
                    f"Postgres refuses: {one_line(error)} (SQLSTATE {error.sqlstate}); "
                    "is the schema this program's? `python -m hotpath.migrate` brings it up to date"
                ) from error
            if not isinstance(error, psycopg.OperationalError):
                raise error  # psycopg refuses what it was given: a fault of this program
            # It failed on the way. Whatever state the connection seems to be in, it is not to be trusted.
            self.close()
        self._failures += 1
        self._report(error)
        self._pause(error)

    def _pause(self, error: psycopg.Error) -> None:
        longest = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self._failures - 1, 16))
        until = time.monotonic() + longest * random.uniform(
            0.5, 1
        )  # so that workers do not return all at once
        while True:
            if self._should_stop():
                raise Unavailable(f"stopped while Postgres was failing ({one_line(error)})")
            self._heartbeat()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, HEARTBEAT_S))

    def _report(self, error: psycopg.Error) -> None:
        now = time.monotonic()
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            log.warning("Postgres: attempt %d failed, trying again: %s", self._failures, one_line(error))


def one_line(error: psycopg.Error) -> str:
    """The message without its line breaks."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
