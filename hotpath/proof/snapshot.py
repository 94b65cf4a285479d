"""One moment of Postgres, seen by several connections: what a proof compares the log with.

State owned: a transaction (repeatable read, read only) that stays open as long as the proof runs, and connections
that joined its snapshot. Workers and maintenance go on meanwhile; only partitions cannot be dropped before it ends.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import IsolationLevel

from hotpath import sql
from hotpath.workers.copy_format import HEADER, TRAILER

CONNECT_TIMEOUT_S = 5
AHEAD_BYTES = 16 << 20
"""How far Postgres may be ahead of the comparison: it sorts the next section meanwhile."""
SECTION_OFFSETS = 500_000
"""Offsets that are sorted at once, a few tens of MiB: in Postgres's memory, or nearly."""
CURSOR_ROWS = 1_000
_CELL_HEAD = 2 + 4
"""Bytes before the one value of a COPY row: the number of columns and its length."""


@dataclass(frozen=True)
class Span:
    """Offsets [first_offset, next_offset) of a log."""

    log_id: int
    first_offset: int
    next_offset: int


def sections(spans: Iterable[Span], size: int = SECTION_OFFSETS) -> Iterator[list[Span]]:
    """The spans, in their order, cut and put together to pieces of about `size` offsets."""
    section: list[Span] = []
    left = size
    for span in spans:
        first = span.first_offset
        while span.next_offset - first > left:
            section.append(Span(span.log_id, first, first + left))
            yield section
            first, section, left = first + left, [], size
        section.append(Span(span.log_id, first, span.next_offset))
        left -= span.next_offset - first
    if section:
        yield section


class Snapshot:
    """Open from its making until `close`. Raises psycopg.Error."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connections: list[psycopg.Connection] = []
        self.connection = self._open()
        """For queries and cursors of one thread."""
        self._configure(self.connection)
        self._name = self.connection.execute(sql.QUERIES["export_snapshot"]).fetchone()[0]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _open(self) -> psycopg.Connection:
        connection = psycopg.connect(
            self._dsn,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="hotpath verify",
            client_encoding="utf8",
        )
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        self._connections.append(connection)
        return connection

    def _configure(self, connection: psycopg.Connection) -> None:
        # It waits for a lock like any reader, and then for nobody: its statements run as long as they need to.
        timeouts = {"lock_timeout_ms": "30000", "statement_timeout_ms": "0", "idle_timeout_ms": "0"}
        connection.execute(sql.QUERIES["configure_session"], timeouts)

    def join(self) -> psycopg.Connection:
        """Another connection that sees the same moment."""
        connection = self._open()
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(sql.QUERIES["join_snapshot"], {"snapshot": self._name})
        self._configure(connection)
        return connection

    def query(self, name: str, **parameters: object) -> list[tuple]:
        return self.connection.execute(sql.QUERIES[name], parameters).fetchall()

    def rows(self, name: str, **parameters: object) -> Iterator[tuple]:
        """The rows of a query by a cursor of the server, so that they need not fit into memory."""
        with self.connection.cursor(name=f"verify_{name}") as cursor:
            cursor.itersize = CURSOR_ROWS
            cursor.execute(sql.QUERIES[name], parameters)
            yield from cursor


class RowStream:
    """The rows of a table by log and offset, as COPY would send them, one after the other without a frame.

    A thread reads them ahead. Postgres joins the rows of about a thousand offsets to one value: taking each as a
    message of its own would cost more than comparing it (1.6 against 0.1 µs).
    """

    def __init__(self, snapshot: Snapshot, query: str, spans: list[Span]) -> None:
        self._connection = snapshot.join()
        self._query = sql.QUERIES[query]
        self._sections = list(sections(spans))
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: psycopg.Error | None = None
        self._data = b""
        self._at = 0
        self._thread = threading.Thread(target=self._fetch, name=f"verify-{query}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading ahead, and end the query."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive() and not self._connection.closed:
            self._connection.cancel_safe(timeout=2)
        self._thread.join(5)

    def ahead(self, nbytes: int) -> memoryview:
        """The next `nbytes` bytes, fewer at the end. Raises psycopg.Error."""
        if len(self._data) - self._at < nbytes:
            self._refill(nbytes)
        return memoryview(self._data)[self._at : self._at + nbytes]

    def skip(self, nbytes: int) -> None:
        """Go on behind bytes that `ahead` has shown."""
        self._at += nbytes

    def _refill(self, nbytes: int) -> None:
        parts = [self._data[self._at :]]
        have = len(parts[0])
        with self._changed:
            while have < nbytes:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                parts.append(self._waiting.popleft())
                have += len(parts[-1])
                self._waiting_bytes -= len(parts[-1])
                self._changed.notify_all()
        if self._error is not None:
            raise self._error
        self._data, self._at = b"".join(parts), 0

    def _fetch(self) -> None:
        try:
            for section in self._sections:
                self._fetch_section(section)
        except psycopg.Error as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _fetch_section(self, section: list[Span]) -> None:
        parameters: dict[str, Any] = {
            "log_ids": [span.log_id for span in section],
            "firsts": [span.first_offset for span in section],
            "nexts": [span.next_offset for span in section],
            "least": min(span.first_offset for span in section),
            "beyond": max(span.next_offset for span in section),
        }
        with self._connection.cursor().copy(self._query, parameters) as copy:
            head = len(HEADER)
            for message in copy:
                cell = bytes(message[head:])
                head = 0
                if cell != TRAILER:
                    self._put(cell[_CELL_HEAD:])

    def _put(self, data: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes < AHEAD_BYTES or self._closed)
            if self._closed:
                raise psycopg.OperationalError("the reader has gone")
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()
