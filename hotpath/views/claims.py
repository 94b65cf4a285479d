"""Publishes how far the views reach where no worker does it, and nothing that is not proven.

A log is complete until its watermark, as it is for a worker that is behind. It is complete until the present only
where Kafka says that it ends at what Redis has applied: the moment is the one before Kafka was asked, so whatever is
appended later is not claimed.
"""

import logging
from collections.abc import Callable

import psycopg
import redis

from hotpath import kafka
from hotpath.errors import Unavailable
from hotpath.settings import Settings
from hotpath.sql import QUERIES
from hotpath.views import progress, store
from hotpath.views.link import run, state_script

log = logging.getLogger(__name__)

KAFKA_TIMEOUT_S = 3.0

Ends = dict[int, tuple[int, int]]
"""log_id -> (moment in microseconds since 1970, offset at which the log ended then)."""


def publish(
    settings: Settings,
    client: redis.Redis,
    connection: psycopg.Connection,
    log_ids: list[int],
    now_us: Callable[[], int],
) -> None:
    """Publish complete_until and the end of these logs. Raises psycopg's and redis' errors."""
    ends = _ends(settings, connection, log_ids, now_us)
    prefix = settings.redis_prefix
    replies = run(client, [state_script(prefix, log_id) for log_id in log_ids])
    commands = []
    for log_id, reply in zip(log_ids, replies, strict=True):
        if state := store.parse_state(reply):
            ended_at_us, log_end = ends.get(log_id, (0, state.applied))
            until_us = progress.complete_until_us(state, ended_at_us, log_end, now_us())
            commands.append(store.publish_command(prefix, log_id, state, until_us, log_end))
    run(client, commands)


def _ends(
    settings: Settings, connection: psycopg.Connection, log_ids: list[int], now_us: Callable[[], int]
) -> Ends:
    """Where Kafka has the ends of those logs that are of the topic's present incarnation; {} when it is away."""
    rows = connection.execute(QUERIES["log_incarnations"], {"log_ids": log_ids}).fetchall()
    try:
        topic = kafka.describe_topic(settings, KAFKA_TIMEOUT_S)
        logs = {
            partition: log_id
            for log_id, name, topic_id, partition in rows
            if (name, topic_id) == (topic.name, topic.topic_id)
        }
        asked_at_us = now_us()
        ranges = kafka.log_ranges(settings, list(logs), KAFKA_TIMEOUT_S) if logs else {}
    except Unavailable as error:
        log.warning("the views are published up to the logs' watermarks only: %s", error)
        return {}
    return {logs[partition]: (asked_at_us, high) for partition, (_, high) in ranges.items()}
