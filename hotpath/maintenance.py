"""What the tables need beside being written to: days ahead, index summaries, retention.

`Maintenance.run_once` is meant to be called every few seconds from a thread. Its tasks are independent: one that
fails is logged and tried again at the next call, and none of them is ever fatal. One runner works at a time, by an
advisory lock. Locks that writers would have to wait for are asked for with a short time-out.

Retention never takes what is still needed: a day of `events` stays while any log has it near its watermark, and
until it was there for the time that events are kept, so that a replayed old log is not dropped while it is read.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import psycopg
from psycopg import sql as compose

from hotpath import sql
from hotpath.settings import PipelineSettings

log = logging.getLogger(__name__)

LOCK_KEY = 0x686F7470_0002
PARTITIONED = ("events", "late_events", "quarantine")
DAYS_AHEAD = 7
"""Days that exist ahead of now: a week of Postgres refusing to make partitions is noticed."""
DAYS_MAX = 3_000
"""Days of one table that are made at most; a log that runs through a century fills the default partition then."""
LOCK_TIMEOUT_MS = 1_000
"""Writers queue behind a waiting exclusive lock, so it may wait no longer than they can bear."""
STATEMENT_TIMEOUT_MS = 300_000
RETENTION_INTERVAL = timedelta(minutes=10)
"""Retention looks at whole tables; it counts in days and is in no hurry."""
MERGE_INTERVAL = timedelta(minutes=1)
HISTORY_QUIET = timedelta(minutes=1)
"""A minute's history is merged when nothing was added to it for so long."""
NEEDED_MARGIN_S = 86_400
"""Kept behind each watermark beside the widest window: how long Redis may be away and still fill its gap."""


@dataclass
class Report:
    """What a run did: partitions made and dropped, rows removed by table, page ranges summarised, rows of history
    saved by merging, tasks failed."""

    ran: bool = False
    made: int = 0
    dropped: list[str] = field(default_factory=list)
    removed: dict[str, int] = field(default_factory=dict)
    summarized: int = 0
    merged: int = 0
    failed: list[str] = field(default_factory=list)


class Maintenance:
    """Owns no connection between runs; remembers which tables grew and when retention was last looked at."""

    def __init__(self, dsn: str, settings: PipelineSettings) -> None:
        self._dsn = dsn
        self._settings = settings
        self._summarized_bytes: dict[str, int] = {}
        self._retention_at: datetime | None = None
        self._merged_at: datetime | None = None

    def run_once(self, now: datetime) -> Report:
        """Do what is due at `now` (aware). Never raises on Postgres's account: the report names what failed."""
        report = Report()
        try:
            with psycopg.connect(
                self._dsn, autocommit=True, connect_timeout=5, application_name="hotpath maintenance"
            ) as connection:
                connection.execute(
                    sql.QUERIES["configure_session"],
                    {
                        "lock_timeout_ms": LOCK_TIMEOUT_MS,
                        "statement_timeout_ms": STATEMENT_TIMEOUT_MS,
                        "idle_timeout_ms": STATEMENT_TIMEOUT_MS,
                    },
                )
                lock = connection.execute(sql.QUERIES["try_maintenance_lock"], {"key": LOCK_KEY})
                if lock.fetchone()[0]:
                    report.ran = True
                    self._run(connection, now, report)
                    # The session's end would release it, but some time after the connection is closed here.
                    connection.execute(sql.QUERIES["release_maintenance_lock"], {"key": LOCK_KEY})
        except psycopg.Error as error:
            _failed(report, "connection", error)
        return report

    def _run(self, connection: psycopg.Connection, now: datetime, report: Report) -> None:
        tasks: list[Callable[[psycopg.Connection, datetime, Report], None]] = [
            self._make_days,
            self._summarize,
        ]
        if self._merged_at is None or now - self._merged_at >= MERGE_INTERVAL:
            tasks.append(self._merge_history)
        retention_due = self._retention_at is None or now - self._retention_at >= RETENTION_INTERVAL
        if retention_due:
            tasks += [self._drop_days, self._remove_rows, self._merge_ledger]
        for task in tasks:
            try:
                task(connection, now, report)
            except psycopg.Error as error:
                _failed(report, task.__name__.strip("_"), error)
                if connection.broken:
                    return
        if retention_due and not report.failed:
            self._retention_at = now

    def _make_days(self, connection: psycopg.Connection, now: datetime, report: Report) -> None:
        report.made += make_time_partitions(connection, now)
        rows = connection.execute(sql.QUERIES["watermark_days"]).fetchall()
        present = connection.execute(sql.QUERIES["time_partition_count"], {"parent": "events"}).fetchone()[0]
        for (day,) in rows[: max(0, DAYS_MAX - present)]:
            report.made += _make_day(connection, "events", day)

    def _summarize(self, connection: psycopg.Connection, now: datetime, report: Report) -> None:
        for name, table_bytes in connection.execute(sql.QUERIES["summarizable_indexes"]).fetchall():
            if self._summarized_bytes.get(name) == table_bytes:
                continue
            try:
                ranges = connection.execute(sql.QUERIES["summarize_index"], {"name": name}).fetchone()[0]
            except psycopg.errors.LockNotAvailable:
                # Autovacuum, most likely, which summarises as well; the next run looks again.
                log.debug("maintenance: %s is locked, and is summarised later", name)
                continue
            report.summarized += ranges
            self._summarized_bytes[name] = table_bytes

    def _drop_days(self, connection: psycopg.Connection, now: datetime, report: Report) -> None:
        for parent, days in zip(PARTITIONED, self._kept_days(), strict=True):
            expired = connection.execute(
                sql.QUERIES["expired_time_partitions"],
                {
                    "parent": parent,
                    "before": now - timedelta(days=days),
                    "by_event_time": parent == "events",
                    "needed_s": self._needed_s(),
                },
            ).fetchall()
            for (name,) in expired:
                with connection.transaction():
                    drop = compose.SQL("drop table if exists {}").format(compose.Identifier(name))
                    connection.execute(drop)
                    connection.execute(sql.QUERIES["forget_time_partition"], {"name": name})
                report.dropped.append(name)
                log.info("dropped %s, which was past its retention of %d days", name, days)

    def _remove_rows(self, connection: psycopg.Connection, now: datetime, report: Report) -> None:
        """Rows of the tables, and of the default partitions, that no dropped day takes along."""
        events_days, late_days, quarantine_days = self._kept_days()
        kept = {
            "default_events": events_days,
            "default_late_events": late_days,
            "default_quarantine": quarantine_days,
            "bot_activity": self._settings.retention_bot_activity_days,
            "history_minutes": self._settings.retention_history_days,
            "history_pages": self._settings.retention_history_days,
        }
        for name, days in kept.items():
            before = now - timedelta(days=days)
            done = connection.execute(
                sql.QUERIES[f"trim_{name}"], {"before": before, "needed_s": self._needed_s()}
            )
            report.removed[name] = done.rowcount

    def _merge_history(self, connection: psycopg.Connection, now: datetime, report: Report) -> None:
        merged = connection.execute(sql.QUERIES["merge_history"], {"before": now - HISTORY_QUIET})
        report.merged = merged.fetchone()[0]
        self._merged_at = now

    def _merge_ledger(self, connection: psycopg.Connection, now: datetime, report: Report) -> None:
        before = now - timedelta(days=self._settings.retention_ledger_days)
        whole_hour = before.replace(minute=0, second=0, microsecond=0)
        merged = connection.execute(sql.QUERIES["merge_ledger"], {"before": whole_hour})
        report.removed["ledger"] = merged.fetchone()[0]

    def _kept_days(self) -> tuple[int, int, int]:
        """Days of retention, in the order of PARTITIONED."""
        s = self._settings
        return s.retention_events_days, s.retention_late_days, s.retention_quarantine_days

    def _needed_s(self) -> int:
        """How far behind a log's watermark its events may still be asked for: by gap fill or for bot counts."""
        s = self._settings
        windows = (s.active_users_window_s, s.top_pages_window_s, s.sessions_window_s)
        return max(*windows, s.late_max_s) + NEEDED_MARGIN_S


def make_time_partitions(connection: psycopg.Connection, now: datetime) -> int:
    """Make the days from yesterday to a week ahead, each in its own transaction; returns how many were missing."""
    today = now.astimezone(UTC).date()
    made = 0
    for parent in PARTITIONED:
        for days in range(-1, DAYS_AHEAD + 1):
            made += _make_day(connection, parent, today + timedelta(days=days))
    return made


def _make_day(connection: psycopg.Connection, parent: str, day: date) -> bool:
    made = connection.execute(sql.QUERIES["make_time_partition"], {"parent": parent, "day": day})
    return made.fetchone()[0]


def _failed(report: Report, task: str, error: psycopg.Error) -> None:
    report.failed.append(task)
    log.warning("maintenance: %s failed and will be tried again: %s", task, str(error).strip())
