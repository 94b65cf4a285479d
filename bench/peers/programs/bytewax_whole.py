"""Bytewax doing the whole job: checks, bots and late events told apart, COPY, live views in Redis.

    KafkaSource ► checks (a batch at once) ► by partition: Apart ► a sink of ours: COPY, then Redis

At least once with recovery on: a restart goes back to the last snapshot (every 10 s) and repeats what came after, in
Postgres and in Redis.
"""

from copy import deepcopy

import orjson
import psycopg
from apart import Apart
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from checks import row_of
from job import BOOTSTRAP, COLUMNS, KAFKA_OPTIONS, POSTGRES, PREFIX, REDIS_URL, TOPIC
from views import Views

BATCH_ROWS = 10_000
"""Messages of a partition read, and so rows copied, at once."""
TABLES = {"accepted": "events", "late": "late_events"}


def rows_of(messages: list[KafkaSourceMessage]) -> list[tuple[str, tuple]]:
    """Rows of the messages that are events, by partition."""
    rows = []
    for message in messages:
        row = row_of(message.value, message.timestamp[1], orjson.loads)
        if row is not None:
            rows.append((str(message.partition), (message.partition, message.offset, *row)))
    return rows


class Telling(StatefulBatchLogic):
    """One partition's rows, each with its class."""

    def __init__(self, state: Apart | None) -> None:
        self._state = state or Apart()

    def on_batch(self, values: list[tuple]) -> tuple[list[tuple[str, tuple]], bool]:
        return [(self._state.class_of(row[2:]), row) for row in values], StatefulBatchLogic.RETAIN

    def snapshot(self) -> Apart:
        return deepcopy(self._state)


class WholeSinkPartition(StatelessSinkPartition):
    """One worker's connections; each batch is one transaction, and then one pipeline."""

    def __init__(self) -> None:
        self._connection = psycopg.connect(**POSTGRES)
        self._views = Views(REDIS_URL, PREFIX)

    def write_batch(self, items: list[tuple[str, tuple[str, tuple]]]) -> None:
        with self._connection.cursor() as cursor:
            for wanted, table in TABLES.items():
                with cursor.copy(f"COPY {table} ({COLUMNS}) FROM STDIN") as copy:
                    for _, (event_class, row) in items:
                        if event_class == wanted:
                            copy.write_row(row)
            self._connection.commit()
        accepted = [row[2:] for _, (event_class, row) in items if event_class == "accepted"]
        if accepted:
            self._views.add(accepted)

    def close(self) -> None:
        self._connection.close()
        self._views.close()


class WholeSink(DynamicSink):
    """Every worker writes what reaches it."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> WholeSinkPartition:
        return WholeSinkPartition()


flow = Dataflow("peer")
source = KafkaSource([BOOTSTRAP], [TOPIC], add_config=KAFKA_OPTIONS, batch_size=BATCH_ROWS)
messages = op.input("kafka", flow, source)
rows = op.flat_map_batch("rows", messages, rows_of)
told = op.stateful_batch("apart", rows, Telling)
op.output("postgres and redis", told, WholeSink())
