"""A consumer as people write it first: one message at a time, everything done for it at once.

    poll ► json.loads ► checks ► INCR, ZINCRBY, HSET in a pipeline of its own ► 500 rows: one INSERT ► commit offsets

At least once: offsets are committed after the rows they stand for. Redis counts twice what is read twice.
"""

import sys
from contextlib import suppress

import psycopg
import redis
from checks import plain_loads, row_of
from confluent_kafka import Consumer, KafkaException
from job import BOOTSTRAP, COLUMNS, GROUP, KAFKA_OPTIONS, POSTGRES, PREFIX, REDIS_URL, TOPIC

INSERT_ROWS = 500
ROW = "(%s, %s, %s, %s, %s, %s, %s)"


def main() -> None:
    sys.setrecursionlimit(10_000)  # json.loads counts levels of nesting
    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **KAFKA_OPTIONS,
        }
    )
    consumer.subscribe([TOPIC])
    views = redis.Redis.from_url(REDIS_URL)
    rows: list[tuple] = []
    with psycopg.connect(**POSTGRES) as connection:
        while True:
            message = consumer.poll(0.2)
            if message is not None and not message.error():
                row = row_of(message.value(), message.timestamp()[1], plain_loads)
                if row is not None:
                    count(views, row)
                    rows.append((message.partition(), message.offset(), *row))
            if len(rows) >= INSERT_ROWS or (rows and message is None):
                values = ", ".join([ROW] * len(rows))
                flat = [field for row in rows for field in row]
                connection.execute(f"INSERT INTO events ({COLUMNS}) VALUES {values}", flat)
                connection.commit()
                # A rebalance may have taken the partitions meanwhile: who has them now reads the rows again.
                with suppress(KafkaException):
                    consumer.commit(asynchronous=False)
                rows.clear()


def count(views: redis.Redis, row: tuple) -> None:
    """The three live figures."""
    time, user_id, _, page_url, session_id = row
    pipe = views.pipeline(transaction=False)
    pipe.incr(f"{PREFIX}:events")
    pipe.zincrby(f"{PREFIX}:pages", 1, page_url)
    pipe.hset(f"{PREFIX}:sessions:{user_id}", session_id, int(time.timestamp()))
    pipe.execute()


if __name__ == "__main__":
    main()
