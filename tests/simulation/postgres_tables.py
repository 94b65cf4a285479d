"""What the named queries of sql/queries.sql do, over the tables of `postgres`.

A query is known by its text. Where a clause carries the protocol (a comparison, a lock, a raised epoch), it is looked
for in the text, so that a text without it behaves as if it were not there: that is how mutants change a query.
tests/integration/test_simulated_stores.py holds all of this against the real server.
"""

import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg

from hotpath import sql
from hotpath.events import CLASS_COUNT, EPOCH_2000_US, PAGE_VIEW, EventClass
from hotpath.workers.copy_format import HEADER, TRAILER
from tests.simulation.postgres import EventRow, LogRow, Session

FUNCTIONS = next(m.text for m in sql.migrations() if m.name == "functions")
LABELS = [event_class.label for event_class in EventClass]
assert len(LABELS) == CLASS_COUNT


@dataclass
class Result:
    """Rows, and how many were touched."""

    rows: list[tuple] = field(default_factory=list)
    rowcount: int = -1


class Fenced(psycopg.errors.RaiseException):
    """RAISE ... USING ERRCODE = 'HP001' of advance_logs."""

    sqlstate = "HP001"

    @property
    def diag(self) -> Any:
        return self

    @property
    def message_primary(self) -> str:
        return str(self)


Query = Callable[[Session, str, Any], list[tuple]]
_QUERIES: dict[str, Query] = {}
_NAMES: dict[str, str] = {}


def query(function: Query) -> Query:
    _QUERIES[function.__name__] = function
    return function


def name_of(text: str) -> str:
    """The name of a query by its text, as sql.QUERIES has it now."""
    name = _NAMES.get(text)
    if name is None or sql.QUERIES[name] != text:
        _NAMES.update({known: key for key, known in sql.QUERIES.items()})
        name = _NAMES[text]
    return name


def run(session: Session, name: str, parameters: Any, copied: bytes | None) -> Result:
    """One statement in the session's transaction. Raises psycopg.Error."""
    text = sql.QUERIES[name]
    if session.transaction.repeatable:
        session.visible()  # the first statement takes the snapshot, whatever it reads
    if copied is not None:
        return Result([], _copy(session, name, copied))
    rows = _QUERIES[name](session, text, parameters)
    return Result(rows, len(rows))


# Sessions


@query
def configure_session(session: Session, text: str, p: dict) -> list[tuple]:
    session.lock_timeout_s = int(p["lock_timeout_ms"]) / 1_000
    return [("", "", "", "on", "UTC")]


@query
def limit_idle_session(session: Session, text: str, p: dict) -> list[tuple]:
    if "idle_session_timeout" in text:
        session.idle_limit_s = int(p["idle_timeout_ms"]) / 1_000
    return [("",)]


@query
def own_backend(session: Session, text: str, p: None) -> list[tuple]:
    return [(session.pid, session.backend_start)]


@query
def end_backend(session: Session, text: str, p: dict) -> list[tuple]:
    other = session.server.sessions.get(p["pid"]) if "where pid = %(pid)s" in text else None
    if other is None or other is session or other.backend_start != p["backend_start"]:
        return []
    other.terminate()
    return [(True,)]


@query
def try_view_lock(session: Session, text: str, p: dict) -> list[tuple]:
    holders = session.server.advisory.setdefault((p["class"], p["log_id"]), [])
    if holders and holders[0] is not session:
        holders[0].end_if_idle()
    if holders and holders[0] is not session:
        return [(False,)]
    holders.append(session)
    return [(True,)]


@query
def view_unlock(session: Session, text: str, p: dict) -> list[tuple]:
    holders = session.server.advisory.get((p["class"], p["log_id"]), [])
    if session not in holders:
        return [(False,)]
    holders.pop()
    return [(True,)]


# Taking over


def _of_topic(session: Session, p: dict) -> list[LogRow]:
    found = [
        row
        for row in session.logs().values()
        if row.topic == p["topic"] and row.topic_id == p["topic_id"] and row.partition in p["partitions"]
    ]
    return sorted(found, key=lambda row: row.log_id)


@query
def rules_id(session: Session, text: str, p: dict) -> list[tuple]:
    rules = session.server.tables.rules
    if p["rules"] not in rules:
        session.lock(("rules", p["rules"]))
        if p["rules"] not in rules:
            session.transaction.inserts.append(("rules", (p["rules"], len(rules) + 1)))
            return [(len(rules) + 1,)]
    return [(rules[p["rules"]],)]


@query
def other_incarnations(session: Session, text: str, p: dict) -> list[tuple]:
    ids = {row.topic_id for row in session.logs().values() if row.topic == p["topic"]}
    return [(topic_id, datetime.now(UTC)) for topic_id in sorted(ids)]


@query
def end_old_owners(session: Session, text: str, p: dict) -> list[tuple]:
    session.ended_owners_us = session.server.scheduler.now_us
    found = [(row, session.server.sessions.get(row.backend_pid)) for row in _of_topic(session, p)]
    held = [(r, s) for r, s in found if s not in (None, session) and s.backend_start == r.backend_start]
    if "pg_terminate_backend" in text:
        for other in dict.fromkeys(other for _, other in held):
            other.terminate()
    return [(row.partition, row.owner, other.pid, True) for row, other in held]


@query
def add_logs(session: Session, text: str, p: dict) -> list[tuple]:
    for partition, low in sorted(zip(p["partitions"], p["lows"], strict=True)):
        key = ("new log", p["topic_id"], partition)
        if any(row.partition == partition for row in _of_topic(session, p)):
            continue
        session.lock(key)
        if (p["topic"], p["topic_id"], partition) in _names_of_logs(session):
            continue  # on conflict do nothing
        session.server.log_ids += 1
        log_id = session.server.log_ids
        session.transaction.logs[log_id] = LogRow(
            log_id, p["topic"], p["topic_id"], partition, low, 1, 0, p["owner"], p["rules_id"]
        )
    return []


def _names_of_logs(session: Session) -> set[tuple[str, str, int]]:
    """What is unique among all logs that are committed, whatever this transaction sees."""
    return {(row.topic, row.topic_id, row.partition) for row in session.server.tables.logs.values()}


@query
def lock_taken_logs(session: Session, text: str, p: dict) -> list[tuple]:
    if "for update" in text:
        for row in _of_topic(session, p):
            session.lock(("log", row.log_id))
    return [(row.partition, row.owner) for row in _of_topic(session, p)]


@query
def taken_log_owners(session: Session, text: str, p: dict) -> list[tuple]:
    return [(row.partition, row.owner) for row in _of_topic(session, p)]


@query
def raise_epochs(session: Session, text: str, p: dict) -> list[tuple]:
    raised = []
    for row in _of_topic(session, p):
        session.lock(("log", row.log_id))
    for row in _of_topic(session, p):  # an UPDATE goes on from the newest version of a row it had to wait for
        epoch = row.epoch + 1 if "epoch = epoch + 1" in text else row.epoch
        session.transaction.logs[row.log_id] = replace(
            row,
            epoch=epoch,
            owner=p["owner"],
            rules_id=p["rules_id"],
            backend_pid=p["pid"],
            backend_start=p["backend_start"],
        )
        raised.append((row.log_id, epoch))
    return raised


@query
def read_logs(session: Session, text: str, p: dict) -> list[tuple]:
    return [
        (row.log_id, row.partition, row.epoch, row.next_offset, row.watermark_s)
        for row in _of_topic(session, p)
    ]


# Flushing


def _copy(session: Session, name: str, data: bytes) -> int:
    table = name.removeprefix("copy_")
    rows = _binary_rows(data)
    if table == "history_minutes":
        for _, log_id, accepted, _, bot, late in rows:
            counts = (_integer(log_id), _integer(accepted), _integer(bot), _integer(late))
            session.transaction.inserts.append((table, counts))
        return len(rows)
    if table == "history_pages":
        return len(rows)
    for row in rows:
        if table == "quarantine":
            log_id, offset, label, detail, payload, size = row
            session.transaction.inserts.append(
                (table, (_integer(log_id), _integer(offset), label.decode(), detail.decode(), payload))
            )
            assert _integer(size) >= len(payload)
            continue
        log_id, offset, moment, *texts = row
        event = EventRow(
            _integer(log_id),
            _integer(offset),
            _integer(moment) + EPOCH_2000_US,
            *(text.decode() for text in texts),
        )
        if session.server.refuses_row(event):
            raise psycopg.errors.UntranslatableCharacter("a row that Postgres refuses")
        session.transaction.inserts.append((table, event))
    return len(rows)


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _binary_rows(data: bytes) -> list[list[bytes]]:
    if not data.startswith(HEADER) or not data.endswith(TRAILER):
        raise psycopg.errors.BadCopyFileFormat("COPY file signature not recognized")
    at, end = len(HEADER), len(data) - len(TRAILER)
    rows = []
    while at < end:
        (columns,) = struct.unpack_from(">h", data, at)
        at += 2
        row = []
        for _ in range(columns):
            (length,) = struct.unpack_from(">i", data, at)
            row.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        rows.append(row)
    return rows


@query
def add_bot_activity(session: Session, text: str, p: dict) -> list[tuple]:
    rows = sorted(zip(p["log_ids"], p["user_ids"], p["seconds"], p["dropped"], strict=True))
    for log_id, user_id, second, dropped in rows:
        key = (log_id, user_id, second)
        session.lock(("bot", key))
        session.transaction.inserts.append(("bot_activity", (key, dropped)))
    return []


@query
def advance_logs(session: Session, text: str, p: dict) -> list[tuple]:
    compares_epoch = "and epoch = entry.epoch" in FUNCTIONS
    compares_offset = "and next_offset = entry.first_offset" in FUNCTIONS
    for entry in sorted(json.loads(p["entries"]), key=lambda entry: entry["log_id"]):
        log_id = entry["log_id"]
        session.lock(("log", log_id))
        row = session.logs().get(log_id)
        if (
            row is None
            or (compares_epoch and row.epoch != entry["epoch"])
            or (compares_offset and row.next_offset != entry["first_offset"])
        ):
            raise Fenced(
                f"log {log_id} is not at offset {entry['first_offset']} under epoch {entry['epoch']}"
            )
        session.transaction.logs[log_id] = replace(
            row, next_offset=entry["next_offset"], watermark_s=entry["watermark_s"]
        )
        if "insert into ledger" in FUNCTIONS:
            _enter(session, entry)
    return [("",)]


def _enter(session: Session, entry: dict) -> None:
    if entry["received"] != sum(entry[label] for label in LABELS):
        raise psycopg.errors.CheckViolation("ledger_received_is_the_sum")
    if not 0 < entry["next_offset"] - entry["first_offset"] >= entry["received"]:
        raise psycopg.errors.CheckViolation("ledger_offsets_hold_received")
    known = session.server.tables.ledger[entry["log_id"]]
    if any(row["first_offset"] == entry["first_offset"] for row in known):
        raise psycopg.errors.UniqueViolation("ledger_pkey")
    session.transaction.inserts.append(("ledger", entry))


@query
def lock_logs(session: Session, text: str, p: dict) -> list[tuple]:
    wanted = sorted(p["log_ids"])
    if "for update" in text:
        for log_id in wanted:
            if log_id in session.logs():
                session.lock(("log", log_id))
    rows = session.logs()
    return [(i, rows[i].epoch, rows[i].next_offset) for i in wanted if i in rows]


@query
def record_backend(session: Session, text: str, p: dict) -> list[tuple]:
    for log_id, epoch in zip(p["log_ids"], p["epochs"], strict=True):
        session.lock(("log", log_id))
        row = session.logs().get(log_id)
        if row is not None and row.epoch == epoch:
            session.transaction.logs[log_id] = replace(
                row, backend_pid=p["pid"], backend_start=p["backend_start"]
            )
    return []


@query
def bot_counts(session: Session, text: str, p: dict) -> list[tuple]:
    counts: Counter[tuple[int, int, str]] = Counter()
    bounded = "e.kafka_offset < w.below" in text
    for log_id, second, below in zip(p["log_ids"], p["seconds"], p["below"], strict=True):
        for row in session.events(log_id):
            if (
                row.time_us // 1_000_000 == second
                and row.event_type == PAGE_VIEW
                and (not bounded or row.kafka_offset < below)
            ):
                counts[(log_id, second, row.user_id)] += 1
    return [(*key, count) for key, count in counts.items()]


# Views


@query
def open_logs(session: Session, text: str, p: None) -> list[tuple]:
    return [(row.log_id, row.topic, row.partition) for _, row in sorted(session.logs().items())]


@query
def retired_logs(session: Session, text: str, p: None) -> list[tuple]:
    return []  # no topic is made anew here


@query
def log_positions(session: Session, text: str, p: dict) -> list[tuple]:
    rows = session.logs()
    found = [rows[log_id] for log_id in sorted(p["log_ids"]) if log_id in rows]
    return [(row.log_id, row.next_offset, row.epoch, row.watermark_s) for row in found]


@query
def least_watermark(session: Session, text: str, p: None) -> list[tuple]:
    return [(min((row.watermark_s for row in session.logs().values() if row.watermark_s), default=0),)]


@query
def next_view_generation(session: Session, text: str, p: None) -> list[tuple]:
    session.server.generation += 1
    return [(session.server.generation,)]


@query
def summarizable_indexes(session: Session, text: str, p: None) -> list[tuple]:
    return []


def _in_offsets(session: Session, p: dict) -> list[EventRow]:
    return [
        row
        for row in session.events(p["log_id"])
        if p["first_offset"] <= row.kafka_offset < p["next_offset"] and row.time_us >= p["from_s"] * 1_000_000
    ]


def _last_seen(rows: list[EventRow], step_s: int) -> dict[tuple[str, str], int]:
    newest: dict[tuple[str, str], int] = {}
    for row in rows:
        pair = (row.user_id, row.session_id)
        newest[pair] = max(newest.get(pair, 0), row.time_us // 1_000_000 // step_s)
    return newest


@query
def seen_in_offsets(session: Session, text: str, p: dict) -> list[tuple]:
    return [(*pair, step) for pair, step in _last_seen(_in_offsets(session, p), p["step_s"]).items()]


@query
def page_views_in_offsets(session: Session, text: str, p: dict) -> list[tuple]:
    counts: Counter[tuple[int, int, str]] = Counter()
    for row in _in_offsets(session, p):
        if row.event_type == PAGE_VIEW:
            bucket = (row.kafka_offset - p["first_offset"]) // p["bucket"]
            counts[(bucket, row.time_us // 1_000_000 // p["step_s"], row.page_url)] += 1
    return sorted((*key, count) for key, count in counts.items())


def _in_windows(session: Session, p: dict) -> dict[int, list[EventRow]]:
    return {
        log_id: [row for row in session.events(log_id) if row.time_us >= p["from_s"] * 1_000_000]
        for log_id in p["log_ids"]
    }


def _seen_by_log(logs: dict[int, list[EventRow]], step_s: int) -> list[tuple]:
    return [
        (log_id, *pair, step)
        for log_id, rows in logs.items()
        for pair, step in _last_seen(rows, step_s).items()
    ]


def _page_views_by_log(logs: dict[int, list[EventRow]], step_s: int) -> list[tuple]:
    counts: Counter[tuple[int, int, str]] = Counter()
    for log_id, rows in logs.items():
        for row in rows:
            if row.event_type == PAGE_VIEW:
                counts[(log_id, row.time_us // 1_000_000 // step_s, row.page_url)] += 1
    return [(*key, views) for key, views in counts.items()]


@query
def seen_in_windows(session: Session, text: str, p: dict) -> list[tuple]:
    return _seen_by_log(_in_windows(session, p), p["step_s"])


@query
def page_views_in_windows(session: Session, text: str, p: dict) -> list[tuple]:
    return _page_views_by_log(_in_windows(session, p), p["step_s"])


def _in_gaps(session: Session, p: dict) -> dict[int, list[EventRow]]:
    gaps = zip(p["log_ids"], p["first_offsets"], p["next_offsets"], strict=True)
    return {
        log_id: [
            row
            for row in session.events(log_id)
            if first <= row.kafka_offset < after and row.time_us >= p["from_s"] * 1_000_000
        ]
        for log_id, first, after in gaps
    }


@query
def seen_in_gaps(session: Session, text: str, p: dict) -> list[tuple]:
    return _seen_by_log(_in_gaps(session, p), p["step_s"])


@query
def page_views_in_gaps(session: Session, text: str, p: dict) -> list[tuple]:
    return _page_views_by_log(_in_gaps(session, p), p["step_s"])
