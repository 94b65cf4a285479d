"""Puts the stand-ins where production code finds the real thing, and makes its numbers small.

Small numbers, because a world has a few dozen messages: every piece, batch and border must occur in them.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import psycopg

from hotpath import clock, kafka
from hotpath.shm import control
from hotpath.views import build, fold, healer, link, rebuild, refill, store
from hotpath.workers import (
    assignment,
    pipeline,
    postgres_session,
    process,
    redis_sink,
    redis_upkeep,
    sink_threads,
    source,
    topic_watch,
)
from tests.simulation import scheduler
from tests.simulation.kafka import TOPIC, TOPIC_ID

if TYPE_CHECKING:
    from tests.simulation.world import World

WORLD: "World"


def enter(world: "World") -> None:
    """Make this the world that the stand-ins lead to."""
    global WORLD
    WORLD = world
    scheduler.enter(world.scheduler)


class _Chance:
    @staticmethod
    def uniform(low: float, high: float) -> float:
        return scheduler.CURRENT.random.uniform(low, high)


def _describe_topic(*_: object) -> kafka.Topic:
    scheduler.CURRENT.step()
    return kafka.Topic(TOPIC, TOPIC_ID, len(WORLD.logs))


def _log_ranges(settings: object, partitions: list[int]) -> dict[int, tuple[int, int]]:
    scheduler.CURRENT.step()
    return {p: (WORLD.logs[p].low, WORLD.logs[p].end) for p in partitions}


def _stop_event(_: int) -> scheduler.Event:
    return WORLD.stop_event_of(scheduler.CURRENT.current.life)


def _stand_ins() -> list[tuple[object, str, Any]]:
    time, threading = scheduler.Time, scheduler.Threading
    sinks = (postgres_session, redis_sink, redis_upkeep, sink_threads, topic_watch)
    modules = (clock, control, healer, rebuild, process, pipeline, source, *sinks)
    found: list[tuple[object, str, Any]] = [(m, "time", time) for m in modules]
    found += [(m, "threading", threading) for m in (healer, sink_threads, topic_watch)]
    found += [
        (healer, "queue", scheduler.Queue),
        (pipeline, "gc", scheduler.Collector),
        (postgres_session, "random", _Chance),
        (psycopg, "connect", lambda *a, **k: WORLD.postgres.connect(*a, **k)),
        (link, "connect", lambda url, timeout_s: WORLD.redis.connect(url, timeout_s)),
        (source, "Consumer", lambda options, logger: WORLD.consumer(options)),
        (process, "describe_topic", _describe_topic),
        (assignment, "log_ranges", _log_ranges),
        (process, "_stop_event", _stop_event),
        (store, "_PROCESS", "world"),
        (store, "_NUMBERS", itertools.count()),
        (topic_watch, "describe_topic", _describe_topic),
        (topic_watch, "admin_client", lambda settings: None),
    ]
    return found


SMALL: list[tuple[object, str, Any]] = [
    (fold, "PAIRS_MAX", 4),
    (refill, "PAIRS_MAX", 4),
    (build, "PAIRS_MAX", 4),
    (store, "TOUCH_ENTRIES_MAX", 3),
    (store, "TRIM_PAGES", 2),
    (store, "TRIM_USERS", 2),
    (store, "SWEEP_STEPS", 1),
    (store, "SCRUB_USERS_MAX", 2),
    (store, "DROP_KEYS", 3),
    (refill, "GAP_OFFSETS", 16),
    (sink_threads, "HEAL_POLL_S", 0.2),
    (rebuild, "CURSOR_ROWS", 6),
    (rebuild, "SLACK_S", 20),
    (link, "STREAM_BATCH", 3),
    (sink_threads, "IDLE_WAIT_S", 0.5),
    (pipeline, "IDLE_WAIT_S", 0.5),
    (pipeline, "SINK_BUSY_WAIT_S", 0.1),
    (sink_threads, "TICK_INTERVAL_S", 2.0),
    (healer, "ROUND_INTERVAL_S", 2.0),
]


@contextmanager
def installed(more: Callable[[ExitStack], None] = lambda stack: None) -> Iterator[None]:
    """Production code runs on the stand-ins meanwhile."""
    with ExitStack() as stack:
        for owner, name, value in _stand_ins() + SMALL:
            assert hasattr(owner, name), f"{owner.__name__} has no {name} any more"
            stack.enter_context(mock.patch.object(owner, name, value))
        more(stack)
        yield
