"""The Postgres sink: a block in, one transaction out, exactly once.

The commit order of a flush; the numbers stand again in the body:

1. COPY the accepted events, sorted by log.
2. COPY the late events.
3. COPY the quarantined messages.
4. Add the dropped page views to `bot_activity`.
5. COPY what the block adds to the history by minute.
6. advance_logs: per log, compare and set next_offset under the epoch, and enter the ledger row. It is the last
   statement: when it fails, a COMMIT that is already on its way stores nothing.
7. COMMIT. Only then is the block done, and may Redis have it.

State owned: the session that writes, the logs held, and the flag that the outcome of the last flush is not known.
It is unknown when the connection was lost at any moment of a flush, the wait for COMMIT's reply included. Then a new
session ends the old server process, locks the rows of the logs (which waits until that process is through), and looks
where they stand: all at their targets, the block is done; all where they were, it is flushed again. A transaction that
lives on unseen cannot do harm: its own step 6 fails as soon as the second flush is through.

Postgres being away never loses a block: it is tried again for as long as the worker does not have to stop.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import psycopg

from hotpath import sql
from hotpath.errors import Fenced, Unavailable
from hotpath.events import PAYLOAD_KEPT_BYTES, Detail, EventClass
from hotpath.settings import PipelineSettings
from hotpath.shm.block import Block
from hotpath.workers import copy_format, history, logs
from hotpath.workers.logs import Claim, LogHandle
from hotpath.workers.postgres_session import PostgresSession

log = logging.getLogger(__name__)

FENCED_STATE = "HP001"
EVENT_TABLES = ((EventClass.ACCEPTED, "copy_events"), (EventClass.LATE, "copy_late_events"))
BROKEN_ROWS_MAX = 100
"""More than that in one block is no matter of rows but of the schema, and finding each takes 30 statements."""

Result = TypeVar("Result")

_RowError = (psycopg.DataError, psycopg.IntegrityError)


class _RowsRefused(Exception):
    """A COPY of events failed by what a row holds."""


class PostgresSink:
    """Writes the blocks of one worker. `load_bot_counts` has a session of its own, for another thread."""

    def __init__(
        self,
        settings: PipelineSettings,
        worker: int,
        should_stop: Callable[[], bool] = lambda: False,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """`heartbeat` is called, and `should_stop` asked, at least every 0.1 s while waiting to try again."""
        name = f"hotpath worker {worker}"
        self._session = PostgresSession(settings, name, should_stop, heartbeat)
        self._reader = PostgresSession(settings, f"{name} reads", should_stop, heartbeat)
        self._buffer = copy_format.CopyBuffer()
        self._epochs: dict[int, int] = {}
        self._rules_id: int | None = None
        self._unsettled = False
        self._record_losses = settings.on_loss == "record"

    def close(self) -> None:
        self._session.close()
        self._reader.close()

    # Logs

    def take_over(
        self,
        topic: str,
        topic_id: str,
        partitions: Sequence[int],
        low_watermarks: Sequence[int],
        high_watermarks: Sequence[int],
        owner: str,
        rules: dict[str, int | str],
        only_after: str = "",
    ) -> list[LogHandle]:
        """Become the owner of these partitions; see workers/logs.py. Handles in ascending order of log_id.

        only_after: how the names of owners begin that these logs may be taken from; anybody's when it is empty.
        Raises LogLost, Fenced, and Unavailable when the worker is to stop while Postgres is away.
        """
        claim = Claim(
            topic,
            topic_id,
            partitions,
            low_watermarks,
            high_watermarks,
            owner,
            rules,
            self._record_losses,
            only_after,
        )

        def claimed() -> list[LogHandle]:
            self._rules_id = logs.rules_id(self._session.connection, rules)
            return logs.take_over(self._session.connection, self._session.backend, claim, self._rules_id)

        handles = self._patiently(self._session, claimed)
        self._epochs |= {handle.log_id: handle.epoch for handle in handles}
        return handles

    def let_go(self, log_ids: Sequence[int]) -> None:
        """These logs are held no more: a new session need not be recorded for them."""
        for log_id in log_ids:
            self._epochs.pop(log_id, None)

    def load_bot_counts(
        self, pairs: Sequence[tuple[int, int]], below_offsets: Mapping[int, int]
    ) -> list[tuple[int, int, str, int]]:
        """Accepted page views by user: (log_id, second, user_id, count) for these (log_id, second) pairs.

        Only events below `below_offsets[log_id]` count. One query for all pairs; it reads every event from the
        least to the greatest second, so ask for neighbours. Safe beside a `flush` in another thread.
        """
        if not pairs:
            return []
        log_ids, seconds = zip(*pairs, strict=True)
        parameters = {
            "log_ids": list(log_ids),
            "seconds": list(seconds),
            "below": [below_offsets[log_id] for log_id in log_ids],
            "first_s": min(seconds),
            "last_s": max(seconds),
        }
        return self._patiently(
            self._reader,
            lambda: self._reader.connection.execute(sql.QUERIES["bot_counts"], parameters).fetchall(),
        )

    @staticmethod
    def _patiently(session: PostgresSession, action: Callable[[], Result]) -> Result:
        while True:
            try:
                if session.lost:
                    session.connect()
                result = action()
            except psycopg.Error as error:
                session.recover(error)
            else:
                session.succeeded()
                return result

    # Flush

    def flush(self, block: Block) -> None:
        """Store a block; returns when it is committed. Rows that Postgres refuses become `bad_value` in the block.

        Raises Fenced when another worker holds one of its logs, and Unavailable when the worker is to stop before
        the block is stored or when Postgres refuses for good.
        """
        if not _entries(block):
            return
        while True:
            try:
                if self._session.lost:
                    self._unsettled = True
                    self._session.connect()
                if not (self._unsettled and self._settle(block)):
                    self._write(block)
            except psycopg.Error as error:
                if error.sqlstate == FENCED_STATE:
                    raise Fenced(f"{error.diag.message_primary}: another worker has taken it over") from None
                self._session.recover(error)
            else:
                self._session.succeeded()
                return

    def _write(self, block: Block) -> None:
        try:
            self._transaction(block, self._copy_events)
        except _RowsRefused as refused:
            log.warning("Postgres refuses a row, looking for it: %s", refused)
            self._transaction(block, self._copy_events_apart)

    def _transaction(self, block: Block, copy_events: Callable[[Block], None]) -> None:
        connection = self._session.connection
        with connection.transaction():
            copy_events(block)  # 1, 2
            if (quarantine := copy_format.quarantine_rows(block)) is not None:  # 3
                self._copy("copy_quarantine", quarantine)
            if (activity := copy_format.bot_activity_rows(block)) is not None:  # 4
                connection.execute(sql.QUERIES["add_bot_activity"], vars(activity))
            for query, rows in (  # 5
                ("copy_history_minutes", history.minute_rows(block)),
                ("copy_history_pages", history.page_rows(block)),
            ):
                if rows is not None:
                    self._copy(query, rows)
            connection.execute(  # 6
                sql.QUERIES["advance_logs"],
                {"entries": json.dumps(_entries(block)), "rules_id": self._rules_id},
            )
            # 7: leaving the block sends COMMIT.

    def _copy_events(self, block: Block) -> None:
        for event_class, query in EVENT_TABLES:
            rows = copy_format.event_rows(block, event_class, self._buffer)
            if rows is not None:
                try:
                    self._copy(query, rows)
                except _RowError as error:
                    raise _RowsRefused(str(error).strip()) from error

    def _copy(self, query: str, rows: bytes | memoryview) -> None:
        with self._session.connection.cursor().copy(sql.QUERIES[query]) as copy:
            copy.write(rows)

    def _copy_events_apart(self, block: Block) -> None:
        """Steps 1 and 2 row by row where need be: by halves, each in a savepoint, until the broken ones stand alone."""
        broken: list[int] = []
        for event_class, query in EVENT_TABLES:
            pending = [copy_format.rows_of(block, event_class)]
            while pending:
                rows = pending.pop()
                if not rows.size:
                    continue
                try:
                    with self._session.connection.transaction():
                        self._copy(query, copy_format.stream(block, rows, self._buffer))
                except _RowError as error:
                    if rows.size == 1:
                        broken.append(int(rows[0]))
                        log.warning(
                            "Postgres refuses offset %d: %s", block.offsets[rows[0]], str(error).strip()
                        )
                        if len(broken) > BROKEN_ROWS_MAX:
                            raise Unavailable(
                                f"Postgres refuses over {BROKEN_ROWS_MAX} rows of a block ({str(error).strip()}); is "
                                "the schema this program's? `python -m hotpath.migrate` brings it up to date"
                            ) from error
                    else:
                        pending += [rows[rows.size // 2 :], rows[: rows.size // 2]]
        refuse_rows(block, broken)

    def _settle(self, block: Block) -> bool:
        """Find out what became of the flush whose connection was lost: whether it was committed. Raises Fenced."""
        connection = self._session.connection
        entries = _entries(block)
        log_ids = sorted({*self._epochs, *(entry["log_id"] for entry in entries)})
        held = {
            "log_ids": list(self._epochs),
            "epochs": list(self._epochs.values()),
            **vars(self._session.backend),
        }
        with connection.transaction():
            locked = connection.execute(sql.QUERIES["lock_logs"], {"log_ids": log_ids}).fetchall()
            connection.execute(sql.QUERIES["record_backend"], held)
        self._unsettled = False
        stands = {log_id: (epoch, next_offset) for log_id, epoch, next_offset in locked}
        if all(stands.get(e["log_id"]) == (e["epoch"], e["next_offset"]) for e in entries):
            log.info("the flush whose connection was lost had been committed")
            return True
        for e in entries:
            if stands.get(e["log_id"]) != (e["epoch"], e["first_offset"]):
                raise Fenced(
                    f"log {e['log_id']} is not at offset {e['first_offset']} under epoch {e['epoch']}: another "
                    "worker has taken it over"
                )
        return False


def refuse_rows(block: Block, rows: Sequence[int]) -> None:
    """Count events that Postgres refuses as `bad_value`; what quarantine keeps of them is their COPY row."""
    for row in rows:
        counts = block.logs["counts"][block.log_indexes[row]]
        counts[block.classes[row]] -= 1
        counts[EventClass.BAD_VALUE] += 1
        block.classes[row] = EventClass.BAD_VALUE
        block.details[row] = Detail.ROW_REFUSED
        block.payload_starts[row] = block.row_starts[row]
        block.payload_lengths[row] = min(int(block.row_lengths[row]), PAYLOAD_KEPT_BYTES)
        block.payload_sizes[row] = block.row_lengths[row]


def _entries(block: Block) -> list[dict[str, int]]:
    """What step 6 takes: per log that moves, the fields of `advance_logs`."""
    moved = block.logs[: block.log_count]
    moved = moved[moved["next_offset"] > moved["first_offset"]]
    numbers = ("log_id", "epoch", "first_offset", "next_offset", "watermark_s", "received")
    return [
        {name: int(entry[name]) for name in numbers}
        | {c.label: count for c, count in zip(EventClass, entry["counts"].tolist(), strict=True)}
        for entry in np.sort(moved, order="log_id")
    ]
