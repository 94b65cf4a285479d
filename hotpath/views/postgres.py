"""Where Postgres has the logs, asked for the views' sake."""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg import IsolationLevel

from hotpath.errors import Fenced
from hotpath.sql import QUERIES

IDLE_MAX_MS = 60_000
"""A process that is stopped in the middle of a rebuild holds its log's lock no longer than that."""


@dataclass(frozen=True)
class Request:
    """A log to bring back: fenced by `epoch` (None: whoever owns it), complete until at least that moment."""

    log_id: int
    epoch: int | None
    complete_until_us: int = 0


@dataclass(frozen=True)
class Position:
    """Where Postgres has a log."""

    log_id: int
    next_offset: int
    epoch: int
    watermark_s: int


def connect(dsn: str, name: str) -> psycopg.Connection:
    """A connection for reading snapshots. Raises psycopg.OperationalError."""
    connection = psycopg.connect(dsn, autocommit=True, application_name=name, connect_timeout=5)
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    # A rebuild reads whole windows: longer than any statement of a flush, but not for ever.
    timeouts = {
        "lock_timeout_ms": "5000",
        "statement_timeout_ms": "600000",
        "idle_timeout_ms": str(IDLE_MAX_MS),
    }
    connection.execute(QUERIES["configure_session"], timeouts)
    return connection


def limit_idle(connection: psycopg.Connection) -> None:
    """Have Postgres end the session when nothing is asked for so long: for clients that ask once a second."""
    connection.execute(QUERIES["limit_idle_session"], {"idle_timeout_ms": str(IDLE_MAX_MS)})


def open_logs(connection: psycopg.Connection) -> dict[int, str]:
    """Every log that counts in the views: log_id -> topic/partition."""
    return {row[0]: f"{row[1]}/{row[2]}" for row in connection.execute(QUERIES["open_logs"])}


def retired_logs(connection: psycopg.Connection) -> list[int]:
    """Every log that was given up."""
    return [log_id for (log_id,) in connection.execute(QUERIES["retired_logs"])]


def positions(connection: psycopg.Connection, requests: Iterable[Request]) -> dict[int, Position]:
    """Where Postgres has the logs. Raises Fenced when one has another epoch than expected, or no longer counts."""
    expected = {request.log_id: request.epoch for request in requests}
    rows = connection.execute(QUERIES["log_positions"], {"log_ids": list(expected)})
    found = {row[0]: Position(*row) for row in rows}
    for log_id, epoch in expected.items():
        if log_id not in found:
            raise Fenced(f"log {log_id} no longer counts: it was given up, or is gone from partition_state")
        if epoch is not None and found[log_id].epoch != epoch:
            raise Fenced(
                f"log {log_id} has epoch {found[log_id].epoch} in Postgres, not {epoch}: another worker took it over"
            )
    return found
