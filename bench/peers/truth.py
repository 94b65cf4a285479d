"""What each peer must have stored: the topic, read once more and judged by the reference, as rows in a database.

State: a database whose `events` holds the accepted events and whose `others` holds the bot and late events, which
only hotpath tells apart; a second topic with all of these as clean JSON, for tools that cannot judge messages.

Rows are compared by a sum of hashes over what they say (not over offsets, which differ between the two topics), so
that one row too many, too few or changed shows; the order of rows does not matter.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import orjson
import psycopg

from bench.harness import Place, database, new_topic
from generator.publish import Publisher
from generator.stream import Batch
from hotpath.kafka import log_ranges
from hotpath.proof.messages import LogReader
from hotpath.reference import Outcome, Reference
from hotpath.settings import Settings

_COLUMNS = "log_id, kafka_offset, ts, user_id, event_type, page_url, session_id"
_HASH = "hashtextextended(concat_ws(E'\\x1f', extract(epoch from ts), user_id, event_type, page_url, session_id), 0)"
_STORED = ("accepted", "bot", "late")
_CHUNK = 2_000


@dataclass(frozen=True)
class Digest:
    """Rows, and what they say."""

    rows: int
    hash_sum: int


@dataclass(frozen=True)
class Truth:
    """What must be in `events` when a peer is through."""

    accepted: Digest  # for who tells bots and late events apart
    valid: Digest  # for who stores them with the others
    bytes_per_row: float
    days: list[date]
    clean: Settings
    """The second topic: the valid events as JSON, and nothing else."""


@contextmanager
def truth_of(at: Place, partitions: int, progress: Callable[[int], None]) -> Iterator[Truth]:
    """Judge the topic of a place; `progress` is told how many messages were read. Raises Unavailable."""
    clean = at.settings.model_copy(update={"topic": f"{at.settings.topic}-clean"})
    with (
        database(at.settings.postgres_dsn, f"{at.settings.topic}_truth") as dsn,
        new_topic(clean, partitions),
    ):
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE others (LIKE events)")
            _judge(at.settings, partitions, connection, Publisher(clean, delivery_timeout_s=60), progress)
            accepted = digest(connection)
            others = digest(connection, "others")
            days = connection.execute("SELECT min(ts)::date, max(ts)::date FROM events").fetchone()
            size = stored_bytes(connection)
        valid = Digest(accepted.rows + others.rows, accepted.hash_sum + others.hash_sum)
        yield Truth(accepted, valid, size / max(accepted.rows, 1), _each_day(*days), clean)


def digest(connection: psycopg.Connection, table: str = "events", source: str = "") -> Digest:
    """Of all rows of a table; `source` is what to read instead of it."""
    query = f"SELECT count(*), coalesce(sum({_HASH}::numeric), 0) FROM {source or table} AS stored"
    rows, hash_sum = connection.execute(query).fetchone()
    return Digest(rows, int(hash_sum))


def without_duplicates(connection: psycopg.Connection) -> Digest:
    """Of the rows of `events`, each message once."""
    return digest(connection, source="(SELECT DISTINCT ON (log_id, kafka_offset) * FROM events)")


def stored_bytes(connection: psycopg.Connection) -> int:
    """Of the rows of `events`, without indexes: grows while they are written, costs nothing to ask."""
    return connection.execute(
        "SELECT sum(pg_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'events'::regclass"
    ).fetchone()[0]


def _judge(
    settings: Settings,
    partitions: int,
    connection: psycopg.Connection,
    publisher: Publisher,
    progress: Callable[[int], None],
) -> None:
    reader, read = LogReader(settings), 0
    for partition, (first, end) in log_ranges(settings, list(range(partitions))).items():
        reference = Reference()
        for messages in reader.read(partition, first, end):
            stored = []
            times = messages.append_times_us.tolist()
            for value, offset, append_us in zip(
                messages.values, messages.offsets.tolist(), times, strict=True
            ):
                outcome = reference.classify(partition, value, append_us)
                if outcome.event_class in _STORED:
                    stored.append((partition, offset, outcome))
            _store(connection, stored)
            publisher.send(_clean(stored))
            read += len(messages.values)
            progress(read)
    publisher.flush(90)
    reader.close()
    connection.commit()


def _store(connection: psycopg.Connection, stored: list[tuple[int, int, Outcome]]) -> None:
    for table, wanted in (("events", ("accepted",)), ("others", ("bot", "late"))):
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({_COLUMNS}) FROM STDIN") as copy:
            for partition, offset, outcome in stored:
                if outcome.event_class in wanted:
                    texts = (text.decode() for text in outcome.texts)
                    copy.write_row((partition, offset, _time(outcome), *texts))


def _clean(stored: list[tuple[int, int, Outcome]]) -> Batch:
    batch = Batch()
    for partition, _, outcome in stored:
        user_id, event_type, page_url, session_id = (text.decode() for text in outcome.texts)
        event = {
            "timestamp": _time(outcome).isoformat().replace("+00:00", "Z"),
            "user_id": user_id,
            "event_type": event_type,
            "page_url": page_url,
            "session_id": session_id,
        }
        batch.keys.append(user_id)
        batch.values.append(orjson.dumps(event))
        batch.partitions.append(partition)
    return batch


def _time(outcome: Outcome) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=outcome.time_us)


def _each_day(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
