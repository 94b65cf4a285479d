"""What `psycopg.connect` gives in a simulated world: the part of psycopg's connection that the pipeline uses.

Each exchange with the server is two steps, before the server gets it and before the client has the reply, so that
anything may happen in between; at each of them the connection may be lost, and then it is for `faults` to say what
became of the statement.
"""

import random
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import psycopg
from psycopg import IsolationLevel

from tests.simulation import postgres_tables
from tests.simulation.faults import Faults, Lost
from tests.simulation.postgres import Server, Session
from tests.simulation.scheduler import Life, Scheduler

PASSING_ERRORS = (
    psycopg.errors.DiskFull,
    psycopg.errors.QueryCanceled,
    psycopg.errors.SerializationFailure,
    psycopg.errors.OutOfMemory,
    psycopg.errors.TooManyConnections,
)


class Postgres:
    """The way to a server; `connect` stands in for psycopg.connect."""

    def __init__(self, scheduler: Scheduler, server: Server, faults: Faults) -> None:
        self.scheduler = scheduler
        self.server = server
        self.faults = faults
        self.connections: list[Connection] = []

    def connect(self, dsn: str, autocommit: bool = False, **options: object) -> "Connection":
        assert autocommit, "the pipeline opens its transactions itself"
        self.scheduler.step("connect to Postgres")
        if not self.server.up or self.faults.postgres_lost():
            raise psycopg.OperationalError("connection refused")
        connection = Connection(self, self.server.connect(self.scheduler.current.life))
        self.connections.append(connection)
        return connection

    def abandon(self, life: Life) -> None:
        """A process was killed: its connections close, and the server may not notice at once."""
        for connection in self.connections:
            if connection.session.life is life:
                connection.die()
        self.connections = [c for c in self.connections if not c.closed]


class Connection:
    """psycopg.Connection in autocommit mode."""

    def __init__(self, postgres: Postgres, session: Session) -> None:
        self._postgres = postgres
        self.session = session
        self.closed = False
        self.broken = False
        self.isolation_level: IsolationLevel | None = None
        self.read_only: bool | None = None
        self._on_its_way: Callable[[], object] | None = None

    # Losing it

    def die(self) -> None:
        """The client's process is gone."""
        if not self.closed:
            self.closed = self.broken = True
            pending = self._on_its_way if self._postgres.scheduler.random.random() < 0.5 else None
            self.session.orphan(pending)

    def _lose(self, pending: Callable[[], object] | None = None) -> psycopg.OperationalError:
        self.closed = self.broken = True
        self.session.orphan(pending)
        return psycopg.OperationalError("server closed the connection unexpectedly")

    def _require_usable(self) -> None:
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")

    def exchange(self, what: str, work: Callable[[], Any], survives: bool = False) -> Any:
        """Have the server do `work`. `survives`: it is worth something even if the client is lost meanwhile."""
        scheduler, faults, session = self._postgres.scheduler, self._postgres.faults, self.session
        self._require_usable()
        pending = work if survives else None
        self._on_its_way = pending
        scheduler.step(f"{session.pid}: {what}")
        if session.ended:
            raise self._lose()
        session.active_us = scheduler.now_us
        lost = faults.postgres_lost()
        if lost in (Lost.BEFORE, Lost.LATER):
            scheduler.note(f"lost {lost.value}")
            raise self._lose(pending if lost is Lost.LATER else None)
        try:
            if faults.postgres_error():
                raise scheduler.random.choice(PASSING_ERRORS)("as the seed will have it")
            result = work()
            session.active_us = scheduler.now_us
        except psycopg.Error as error:
            scheduler.note(f"error {type(error).__name__}: {error}")
            if session.transaction is not None:
                session.transaction.failed = True
            scheduler.step()
            if session.ended:
                self.closed = self.broken = True
            raise
        finally:
            self._on_its_way = None
        scheduler.step()
        if lost is Lost.AFTER or session.ended:
            scheduler.note("reply lost")
            raise self._lose()
        return result

    # psycopg's

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            life = self.session.life
            if life is None or not life.dead:
                self.session.end()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, query: str, parameters: dict[str, Any] | None = None) -> "Cursor":
        return Cursor(self).execute(query, parameters)

    def cursor(self, name: str | None = None) -> "Cursor":
        return Cursor(self, name)

    def transaction(self) -> "TransactionBlock":
        return TransactionBlock(self)

    def run(self, query: str, parameters: Any, copied: bytes | None = None) -> postgres_tables.Result:
        """One statement, in the transaction that is open or in one of its own."""
        session = self.session
        name = postgres_tables.name_of(query)

        def work() -> postgres_tables.Result:
            inside = session.transaction is not None
            if inside and session.transaction.failed:
                raise psycopg.errors.InFailedSqlTransaction("current transaction is aborted")
            if not inside:
                session.begin(repeatable=False)
            try:
                result = postgres_tables.run(session, name, parameters, copied)
            except BaseException:
                if not inside and session.transaction is not None:
                    session.rollback()
                raise
            if not inside:
                session.commit()
            return result

        return self.exchange(name, work, survives=session.transaction is None)


class Cursor:
    """psycopg.Cursor, and its ServerCursor where it has a name (which here reads all at once)."""

    itersize = 0

    def __init__(self, connection: Connection, name: str | None = None) -> None:
        self._connection = connection
        self._rows: Iterator[tuple] = iter(())
        self._name = name
        self.rowcount = -1

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, query: str, parameters: dict[str, Any] | None = None) -> "Cursor":
        result = self._connection.run(query, parameters)
        self._rows, self.rowcount = iter(result.rows), result.rowcount
        return self

    def fetchall(self) -> list[tuple]:
        return list(self._rows)

    def fetchone(self) -> tuple | None:
        return next(self._rows, None)

    def __iter__(self) -> Iterator[tuple]:
        if not self._name:
            yield from self._rows
            return
        for number, row in enumerate(self._rows):
            if number % self.itersize == 0:
                self._connection.exchange("fetch", lambda: None)
            yield row

    def copy(self, query: str) -> "Copy":
        return Copy(self._connection, query)


class Copy:
    """psycopg.Copy, from stdin."""

    def __init__(self, connection: Connection, query: str) -> None:
        self._connection = connection
        self._query = query
        self._parts: list[bytes] = []

    def __enter__(self) -> "Copy":
        return self

    def write(self, data: bytes | memoryview) -> None:
        self._parts.append(bytes(data))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._connection.run(self._query, None, b"".join(self._parts))


class TransactionBlock:
    """psycopg.Transaction: a transaction, or a savepoint within one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inner = False

    def __enter__(self) -> None:
        connection, session = self._connection, self._connection.session
        self._inner = session.transaction is not None
        if self._inner:
            transaction = session.transaction
            if transaction.failed:
                raise psycopg.errors.InFailedSqlTransaction("current transaction is aborted")
            transaction.savepoints.append((dict(transaction.logs), len(transaction.inserts)))
        else:
            repeatable = connection.isolation_level is IsolationLevel.REPEATABLE_READ
            connection.exchange("begin", lambda: session.begin(repeatable))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        connection, session = self._connection, self._connection.session
        if session.life is not None and session.life.dead:
            return False  # nobody is there to say anything
        if kind is None and not self._inner:
            try:
                connection.exchange("commit", self._commit, survives=True)
            except psycopg.Error:
                if session.transaction is not None and not connection.closed:
                    session.rollback()  # a COMMIT that fails ends the transaction, too
                raise
        elif session.transaction is None or connection.closed:
            return False  # lost: psycopg lets the first error through
        elif kind is None:
            session.transaction.savepoints.pop()
        elif self._inner:
            transaction = session.transaction
            transaction.logs, length = transaction.savepoints.pop()
            del transaction.inserts[length:]
            transaction.failed = False
        else:
            session.rollback()
        return False

    def _commit(self) -> None:
        session = self._connection.session
        session.require_alive()
        session.commit()


def jitter(chance: random.Random) -> Any:
    """Stands in for the module `random` where production code spreads its pauses."""
    return chance
