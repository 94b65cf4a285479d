"""Logs as a worker holds them, and how it comes to hold them.

A log belongs to whoever raised its epoch last. Taking it over goes in this order:

1. Look whether the topic is the one that Postgres continues. Nothing is changed before that: a worker that was
   pointed at another cluster by mistake must not fence the right one. A worker that starts again for a supervisor looks
   whether the logs still are that supervisor's: it must not take them back from one that has come since.
2. End the old owners' server processes, so that none of them holds a lock while it waits for a client that hangs.
3. Lock the rows, in ascending order, raise their epochs, COMMIT. From here on no old owner can commit a flush.
4. Read where the logs stand; that is final now. Compare it with what Kafka still has: where retention has passed, the
   loss is recorded if that is wanted, else the worker stops.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg

from hotpath import sql
from hotpath.errors import Fenced, LogLost, LogShorter
from hotpath.workers.postgres_session import Backend

log = logging.getLogger(__name__)

RETENTION_PASSED = "retention passed"
"""The ledger's reason for offsets that Kafka had dropped before they were read."""


@dataclass(frozen=True)
class LogHandle:
    """A log that is held: `epoch` proves it, `next_offset` is where to go on, `watermark_s` is 0 before any event."""

    log_id: int
    partition: int
    epoch: int
    next_offset: int
    watermark_s: int


@dataclass(frozen=True)
class Claim:
    """What a worker takes over, and what Kafka says of it: per partition the offsets it holds, [low, high)."""

    topic: str
    topic_id: str
    partitions: Sequence[int]
    low_watermarks: Sequence[int]
    high_watermarks: Sequence[int]
    owner: str
    rules: dict[str, int | str]
    record_losses: bool = False
    only_after: str = ""

    def parameters(self) -> dict[str, object]:
        return {
            "topic": self.topic,
            "topic_id": self.topic_id,
            "partitions": list(self.partitions),
            "lows": list(self.low_watermarks),
            "owner": self.owner,
        }


def rules_id(connection: psycopg.Connection, rules: dict[str, int | str]) -> int:
    """The number of a set of rules, which gets one when it has none."""
    return connection.execute(sql.QUERIES["rules_id"], {"rules": json.dumps(rules)}).fetchone()[0]


def take_over(
    connection: psycopg.Connection, backend: Backend, claim: Claim, rules_number: int
) -> list[LogHandle]:
    """Take the claimed logs over for the session `backend`; handles in ascending order of log_id.

    Raises LogLost when Kafka does not hold what Postgres is to continue with, Fenced when another worker takes
    one of them over at the same time, and psycopg.Error. May be called again after any of them.
    """
    parameters = claim.parameters() | {"rules_id": rules_number} | vars(backend)
    _require_same_incarnation(connection, claim)  # 1
    _require_owner(connection.execute(sql.QUERIES["taken_log_owners"], parameters).fetchall(), claim)
    _end_old_owners(connection, parameters)  # 2
    with connection.transaction():  # 3
        connection.execute(sql.QUERIES["add_logs"], parameters)
        _require_owner(connection.execute(sql.QUERIES["lock_taken_logs"], parameters).fetchall(), claim)
        epochs = dict(connection.execute(sql.QUERIES["raise_epochs"], parameters).fetchall())
    rows = connection.execute(sql.QUERIES["read_logs"], parameters).fetchall()  # 4
    handles = [LogHandle(*row) for row in rows]
    for handle in handles:
        if handle.epoch != epochs[handle.log_id]:
            raise Fenced(f"{_name(claim, handle)}: another worker took it over at the same time")
    bounds = dict(
        zip(claim.partitions, zip(claim.low_watermarks, claim.high_watermarks, strict=True), strict=True)
    )
    return [_readable(connection, claim, handle, *bounds[handle.partition]) for handle in handles]


def _require_same_incarnation(connection: psycopg.Connection, claim: Claim) -> None:
    known = connection.execute(sql.QUERIES["other_incarnations"], claim.parameters()).fetchall()
    if known and claim.topic_id not in [topic_id for topic_id, _ in known]:
        topic_id, updated_at = known[0]
        raise LogLost(
            f"topic {claim.topic!r} was made anew: Postgres continues the one with id {topic_id} (last written "
            f"{updated_at:%Y-%m-%d %H:%M} UTC), Kafka has id {claim.topic_id}; check HOTPATH_KAFKA_BOOTSTRAP, "
            "or give the old one up: `python -m hotpath.logs retire`"
        )


def _require_owner(owners: list[tuple[int, str]], claim: Claim) -> None:
    for partition, owner in owners:
        if not owner.startswith((claim.only_after, claim.owner)):
            raise Fenced(f"topic {claim.topic!r}, partition {partition}: {owner} has taken it over meanwhile")


def _end_old_owners(connection: psycopg.Connection, parameters: dict[str, object]) -> None:
    try:
        ended = connection.execute(sql.QUERIES["end_old_owners"], parameters).fetchall()
    except psycopg.errors.InsufficientPrivilege as error:
        # It is fenced all the same; only its locks may have to be waited for.
        log.warning("cannot end the old owner's session: %s", error)
        return
    for partition, owner, pid, _ in ended:
        log.info("took partition %d from %s and ended its server process %d", partition, owner, pid)


def _readable(
    connection: psycopg.Connection, claim: Claim, handle: LogHandle, low: int, high: int
) -> LogHandle:
    """The handle, moved over what retention has taken when that may be. Raises LogLost."""
    if handle.next_offset < low:
        lost = (
            f"{_name(claim, handle)}: retention has passed; Postgres is at offset {handle.next_offset}, Kafka "
            f"begins at {low}: {low - handle.next_offset} messages may be lost"
        )
        if not claim.record_losses:
            raise LogLost(
                f"{lost}; record it and go on: `python -m hotpath.logs skip`, or --on-loss record",
                handle.partition,
            )
        log.error("%s; recorded", lost)
        return record_loss(connection, handle, low, RETENTION_PASSED)
    if handle.next_offset > high:
        raise LogShorter(
            f"{_name(claim, handle)}: the log is shorter than it was; Postgres is at offset {handle.next_offset}, "
            f"Kafka ends at {high}: it lost messages, or this is another cluster",
            handle.partition,
            handle.next_offset,
        )
    return handle


def _name(claim: Claim, handle: LogHandle) -> str:
    return f"topic {claim.topic!r}, partition {handle.partition} (log {handle.log_id})"


def record_loss(
    connection: psycopg.Connection, handle: LogHandle, next_offset: int, reason: str
) -> LogHandle:
    """Move a held log over offsets that cannot be read any more, with a ledger row that says why.

    Raises Fenced when the log is not where `handle` says, and psycopg.Error.
    """
    parameters = {
        "log_id": handle.log_id,
        "epoch": handle.epoch,
        "first_offset": handle.next_offset,
        "next_offset": next_offset,
        "reason": reason,
    }
    if connection.execute(sql.QUERIES["record_loss"], parameters).rowcount != 1:
        raise Fenced(f"log {handle.log_id} is not at offset {handle.next_offset} under epoch {handle.epoch}")
    return replace(handle, next_offset=next_offset)


def retire_other_incarnations(connection: psycopg.Connection, topic: str, topic_id: str) -> int:
    """Give up the logs of a topic's other incarnations; returns how many there were."""
    parameters = {"topic": topic, "topic_id": topic_id}
    return connection.execute(sql.QUERIES["retire_other_incarnations"], parameters).rowcount
