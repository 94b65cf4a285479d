"""What Postgres holds after a test, and the proof that it agrees with itself."""

from collections.abc import Sequence
from itertools import pairwise

import psycopg
from psycopg.rows import dict_row

from hotpath.events import EventClass
from hotpath.settings import PipelineSettings
from hotpath.workers.logs import LogHandle
from hotpath.workers.postgres_sink import PostgresSink

RULES = {"future_max_s": 60, "late_max_s": 300}


def new_sink(dsn: str, worker: int = 0, **functions: object) -> PostgresSink:
    return PostgresSink(PipelineSettings(postgres_dsn=dsn), worker, **functions)


def take(
    sink: PostgresSink,
    partitions: Sequence[int] = (0,),
    *,
    topic_id: str = "id-1",
    low: int = 0,
    high: int = 1 << 40,
    owner: str = "worker 0",
) -> list[LogHandle]:
    """Take partitions of the topic `events` over."""
    count = len(partitions)
    return sink.take_over("events", topic_id, partitions, [low] * count, [high] * count, owner, RULES)


def rows(dsn: str, query: str, *parameters: object) -> list[tuple]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, parameters).fetchall()


def offsets(dsn: str, table: str = "events") -> list[tuple[int, int]]:
    """(log_id, kafka_offset) of every row of a table, sorted; a row stored twice is there twice."""
    return rows(dsn, f"select log_id, kafka_offset from {table} order by 1, 2")


def assert_ledger_agrees(dsn: str) -> None:
    """The ledger of each log has no gap, ends at next_offset, and counts what the tables hold."""
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        states = connection.execute("select * from partition_state order by log_id").fetchall()
        for state in states:
            ledger = connection.execute(
                "select * from ledger where log_id = %s order by first_offset", [state["log_id"]]
            ).fetchall()
            for before, after in pairwise(ledger):
                assert before["next_offset"] == after["first_offset"]
            if ledger:
                assert ledger[-1]["next_offset"] == state["next_offset"]
            for event_class, table in ((EventClass.ACCEPTED, "events"), (EventClass.LATE, "late_events")):
                stored = connection.execute(
                    f"select count(*) as n from {table} where log_id = %s", [state["log_id"]]
                ).fetchone()["n"]
                assert stored == sum(row[event_class.label] for row in ledger), (state, table)
