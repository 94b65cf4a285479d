"""Bytewax: its KafkaSource, one batch operator for the checks, and a sink of ours that COPYs, since it has none.

At least once with recovery on: a restart goes back to the last snapshot (every 10 s) and repeats what came after.
Nothing is kept in Redis.
"""

import orjson
import psycopg
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from checks import row_of
from job import BOOTSTRAP, COLUMNS, KAFKA_OPTIONS, POSTGRES, TOPIC

BATCH_ROWS = 10_000
"""Messages of a partition read, and so rows copied, at once; the default of 1,000 makes ten times the transactions."""


class CopyPartition(StatelessSinkPartition):
    """One worker's connection; each batch is one transaction."""

    def __init__(self) -> None:
        self._connection = psycopg.connect(**POSTGRES)

    def write_batch(self, rows: list[tuple]) -> None:
        with self._connection.cursor() as cursor:
            with cursor.copy(f"COPY events ({COLUMNS}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            self._connection.commit()

    def close(self) -> None:
        self._connection.close()


class CopySink(DynamicSink):
    """Every worker writes what reaches it."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> CopyPartition:
        return CopyPartition()


def rows_of(messages: list[KafkaSourceMessage]) -> list[tuple]:
    """Rows of the messages that are events."""
    rows = []
    for message in messages:
        row = row_of(message.value, message.timestamp[1], orjson.loads)
        if row is not None:
            rows.append((message.partition, message.offset, *row))
    return rows


flow = Dataflow("peer")
source = KafkaSource([BOOTSTRAP], [TOPIC], add_config=KAFKA_OPTIONS, batch_size=BATCH_ROWS)
messages = op.input("kafka", flow, source)
rows = op.flat_map_batch("rows", messages, rows_of)
op.output("postgres", rows, CopySink())
