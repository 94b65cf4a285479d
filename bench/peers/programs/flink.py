"""Flink SQL: its Kafka table, its JSON format and its JDBC table, one INSERT between them.

At least once: a checkpoint (every 10 s) flushes the sink, then the source's offsets count as read. Rows go in batches
of 5,000, or after a second. Nothing is kept in Redis. The whole cluster is one JVM, with as many slots as asked for.
"""

import json
import os

from job import BOOTSTRAP, GROUP, TOPIC
from pyflink.table import EnvironmentSettings, TableEnvironment

CLIENT: dict[str, str] = json.loads(os.environ["PEER_JAVA_CLIENT"])
FIELDS = "user_id STRING, event_type STRING, page_url STRING, session_id STRING"


def options(pairs: dict[str, str]) -> str:
    """The WITH clause of a table."""
    return ", ".join("'{}' = '{}'".format(name, value.replace("'", "''")) for name, value in pairs.items())


def main() -> None:
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for name, value in {
        "pipeline.jars": os.environ["PEER_JARS"],
        "parallelism.default": os.environ["PEER_PROCS"],
        "execution.checkpointing.interval": "10 s",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "table.local-time-zone": "UTC",
        # The sink does not keep the row that it was given.
        "pipeline.object-reuse": "true",
    }.items():
        tables.get_config().set(name, value)
    source = {
        "connector": "kafka",
        "topic": TOPIC,
        "properties.bootstrap.servers": BOOTSTRAP,
        "properties.group.id": GROUP,
        "scan.startup.mode": "earliest-offset",
        "format": "json",
        "json.timestamp-format.standard": "ISO-8601",
        **{f"properties.{name}": value for name, value in CLIENT.items()},
    }
    sink = {
        "connector": "jdbc",
        "url": os.environ["PEER_JDBC_URL"],
        "username": os.environ["PEER_JDBC_USER"],
        "password": os.environ["PEER_JDBC_PASSWORD"],
        "table-name": "events",
        "sink.buffer-flush.max-rows": "5000",
    }
    tables.execute_sql(
        f"CREATE TABLE messages (`timestamp` TIMESTAMP_LTZ(6), {FIELDS}, "
        "log_id INT METADATA FROM 'partition' VIRTUAL, kafka_offset BIGINT METADATA FROM 'offset' VIRTUAL) "
        f"WITH ({options(source)})"
    )
    tables.execute_sql(
        f"CREATE TABLE events (log_id INT, kafka_offset BIGINT, ts TIMESTAMP(6), {FIELDS}) WITH ({options(sink)})"
    )
    running = tables.execute_sql(
        "INSERT INTO events SELECT log_id, kafka_offset, CAST(`timestamp` AS TIMESTAMP(6)), "
        "user_id, event_type, page_url, session_id FROM messages"
    )
    running.wait()


if __name__ == "__main__":
    main()
