"""A real and a simulated Postgres side by side: two sessions each, and what they hold, in one form."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import IsolationLevel

from hotpath.sql import QUERIES
from hotpath.workers.postgres_session import Backend
from tests.simulation.postgres_tables import LABELS
from tests.simulation.psycopg_client import Postgres
from tests.support.pipeline import wait_until

TIMEOUTS = {"lock_timeout_ms": 5_000, "statement_timeout_ms": 30_000, "idle_timeout_ms": 30_000}
RESET = """
    delete from ledger; delete from partition_state; delete from rules; delete from events; delete from late_events;
    delete from quarantine; delete from bot_activity;
    alter sequence partition_state_log_id_seq restart; alter sequence rules_rules_id_seq restart;
    alter sequence view_generation restart
"""


class Side:
    """One of the servers. Sessions are numbered 0 and 1; each server process has a name in the order of connecting."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self.connections: list[Any] = [None, None]
        self.backends: list[Any] = [None, None]
        self.blocks: list[Any] = [None, None]
        self.names: dict[int | None, str] = {None: "-"}
        for index in (0, 1):
            self.reconnect(index)

    def reconnect(self, index: int) -> None:
        connection = self.connections[index] = self._connect()
        self.blocks[index] = None
        self.run(index, "configure_session", TIMEOUTS)
        self.backends[index] = Backend(*self.run(index, "own_backend")[0])
        self.names[self.backends[index].pid] = f"process {len(self.names)}"
        connection.isolation_level = None

    # What is done in a session

    def run(self, index: int, name: str, parameters: dict[str, Any] | None = None) -> list[tuple]:
        """Rows of a query. Raises psycopg.Error."""
        return self.connections[index].execute(QUERIES[name], parameters).fetchall()

    def tell(self, index: int, name: str, parameters: dict[str, Any]) -> None:
        """A query without rows. Raises psycopg.Error."""
        self.connections[index].execute(QUERIES[name], parameters)

    def copy(self, index: int, name: str, rows: bytes | memoryview) -> None:
        with self.connections[index].cursor().copy(QUERIES[name]) as copy:
            copy.write(rows)

    def begin(self, index: int, repeatable: bool) -> None:
        connection = self.connections[index]
        connection.isolation_level = IsolationLevel.REPEATABLE_READ if repeatable else None
        block = connection.transaction()
        block.__enter__()
        self.blocks[index] = block

    def end(self, index: int, commits: bool) -> None:
        block, self.blocks[index] = self.blocks[index], None
        error = None if commits else psycopg.Rollback()
        block.__exit__(type(error) if error else None, error, None)

    def owner(self, index: int) -> dict[str, Any]:
        """Parameters that say which server process a session has."""
        return vars(self.backends[index])

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


class Simulated(Side):
    """See `Side`."""

    def __init__(self, postgres: Postgres) -> None:
        self.server = postgres.server
        super().__init__(lambda: postgres.connect("", autocommit=True))

    def free(self, index: int) -> bool:
        """Whether no other session has written in a transaction that is open."""
        other = self.connections[1 - index].session
        return not other.locks and not (other.transaction and other.transaction.inserts)

    def transaction(self, index: int) -> Any:
        return self.connections[index].session.transaction

    def contents(self) -> dict[str, Any]:
        tables = self.server.tables
        return {
            "partition_state": [
                (*list(vars(r).values())[:9], self.names[r.backend_pid])
                for _, r in sorted(tables.logs.items())
            ],
            "rules": sorted((number, rules) for rules, number in tables.rules.items()),
            "events": _rows(tables.events),
            "late_events": _rows(tables.late_events),
            "quarantine": sorted(row for rows in tables.quarantine.values() for row in rows),
            "bot_activity": tables.bot_activity,
            "ledger": sorted(
                tuple(row[name] for name in ("log_id", "first_offset", "next_offset", "received", *LABELS))
                for rows in tables.ledger.values()
                for row in rows
            ),
        }


def _rows(events: dict[int, list]) -> list[tuple]:
    return sorted(tuple(vars(row).values()) for rows in events.values() for row in rows)


class Real(Side):
    """See `Side`. Its sessions are used again by the next one."""

    def __init__(self, watch: psycopg.Connection, kept: list[psycopg.Connection], dsn: str) -> None:
        """watch: a connection of the test's own; kept: connections to go on with."""
        self._watch = watch
        self._kept = kept
        self._dsn = dsn
        watch.execute(RESET)
        super().__init__(self._next)

    def _next(self) -> psycopg.Connection:
        while self._kept:
            connection = self._kept.pop(0)
            with suppress(psycopg.OperationalError):  # one that has come apart from the simulated one's
                connection.execute("select pg_advisory_unlock_all()")
                return connection
        return psycopg.connect(self._dsn, autocommit=True)

    def reconnect(self, index: int) -> None:
        """After its server process was told to end: once that is through with it."""
        if self.connections[index] is not None:
            self.connections[index].close()
            gone = "select not exists (select from pg_stat_activity where pid = %s)"
            pid = self.backends[index].pid
            wait_until(lambda: self._watch.execute(gone, [pid]).fetchone()[0], "the server process has ended")
        super().reconnect(index)

    def leave(self) -> list[psycopg.Connection]:
        """Connections that others may go on with."""
        for index, block in enumerate(self.blocks):
            if block is not None:
                self.end(index, commits=False)
        return self.connections

    def contents(self) -> dict[str, Any]:
        def rows(statement: str) -> list[tuple]:
            return self._watch.execute(statement).fetchall()

        epoch_us = "(extract(epoch from ts) * 1000000)::bigint"
        texts = "user_id, event_type, page_url, session_id"
        states = rows(
            "select log_id, topic, topic_id, partition, next_offset, epoch, watermark_s, owner, rules_id, backend_pid"
            " from partition_state order by log_id"
        )
        return {
            "partition_state": [(*row[:-1], self.names[row[-1]]) for row in states],
            "rules": rows("select rules_id, rules::text from rules order by 1"),
            "events": sorted(rows(f"select log_id, kafka_offset, {epoch_us}, {texts} from events")),
            "late_events": sorted(rows(f"select log_id, kafka_offset, {epoch_us}, {texts} from late_events")),
            "quarantine": sorted(rows("select log_id, kafka_offset, class, detail, payload from quarantine")),
            "bot_activity": {
                row[:3]: row[3]
                for row in rows(
                    "select log_id, user_id, extract(epoch from second)::bigint, dropped from bot_activity"
                )
            },
            "ledger": sorted(
                rows(f"select log_id, first_offset, next_offset, received, {', '.join(LABELS)} from ledger")
            ),
        }
