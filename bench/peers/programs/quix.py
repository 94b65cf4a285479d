"""Quix Streams with its own sinks: PostgreSQLSink for the rows, RedisSink for each user's last event.

At least once: a checkpoint (every 5 s, the default) flushes both sinks, then commits offsets. Settings are the
library's defaults but for what the job asks for; several instances share a consumer group, as its docs scale it.
"""

from urllib.parse import urlsplit

import orjson
from checks import row_of
from job import BOOTSTRAP, GROUP, KAFKA_OPTIONS, POSTGRES, PREFIX, REDIS_URL, TOPIC
from quixstreams import Application, message_context
from quixstreams.kafka.configuration import ConnectionConfig
from quixstreams.sinks.community.postgresql import PostgreSQLSink
from quixstreams.sinks.community.redis import RedisSink


def row_or_none(value: bytes | None, key: object, timestamp_ms: int, headers: object) -> dict | None:
    """The row of a message, or None."""
    row = row_of(value, timestamp_ms, orjson.loads)
    if row is None:
        return None
    time, user_id, event_type, page_url, session_id = row
    context = message_context()
    return {
        "log_id": context.partition,
        "kafka_offset": context.offset,
        "ts": time,
        "user_id": user_id,
        "event_type": event_type,
        "page_url": page_url,
        "session_id": session_id,
    }


def main() -> None:
    connection = ConnectionConfig.from_librdkafka_dict({"bootstrap.servers": BOOTSTRAP, **KAFKA_OPTIONS})
    application = Application(
        broker_address=connection,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        loglevel="WARNING",
    )
    topic = application.topic(TOPIC, key_deserializer="bytes", value_deserializer="bytes")
    rows = application.dataframe(topic).apply(row_or_none, metadata=True).filter(lambda row: row is not None)
    rows.sink(
        PostgreSQLSink(
            host=POSTGRES["host"],
            port=int(POSTGRES["port"]),
            dbname=POSTGRES["dbname"],
            user=POSTGRES["user"],
            password=POSTGRES.get("password", ""),
            table_name="events",
            schema_auto_update=False,
            include_metadata=False,
        )
    )
    where = urlsplit(REDIS_URL)
    rows.sink(
        RedisSink(
            host=where.hostname,
            port=where.port or 6379,
            db=int(where.path.strip("/") or 0),
            password=where.password,
            key_serializer=lambda key, row: f"{PREFIX}:last:{row['user_id']}",
            value_serializer=lambda row: row["page_url"],
        )
    )
    application.run()


if __name__ == "__main__":
    main()
