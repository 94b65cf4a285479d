"""An assignment: a set of logs in the hands of a worker, from their takeover until they are let go.

In pinned mode a worker has one in its life. In group mode one follows the other over the same ring and control page,
and nothing but these is carried over: the next one has sessions, threads, positions and bot counts of its own, all from
what Postgres holds once the new takeover is committed. That is what makes a change of logs sound: it is a restart.
"""

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from hotpath.errors import LogShorter, PositionLost
from hotpath.kafka import Topic, log_ranges
from hotpath.settings import PipelineSettings
from hotpath.shm.block import Block
from hotpath.shm.control import Control
from hotpath.shm.ring import Ring
from hotpath.views.shared_bots import SharedBots
from hotpath.workers.bots import Recall, SecondCounts, Share
from hotpath.workers.logs import LogHandle
from hotpath.workers.pipeline import Pipeline
from hotpath.workers.postgres_sink import PostgresSink
from hotpath.workers.redis_sink import RedisSink
from hotpath.workers.sink_threads import SinkThreads
from hotpath.workers.source import CommitOffsets, Source
from hotpath.workers.topic_watch import TopicWatch

log = logging.getLogger(__name__)

Ranges = dict[int, tuple[int, int]]
"""Per partition the first offset that Kafka keeps and the one after the last."""

ABANDON_DEADLINE_S = 3.0
"""Time for the sinks' threads to notice that they are to stop. One that hangs in a dead connection does not, and the
process has to end: threads cannot be."""


@dataclass(frozen=True)
class Worker:
    """What a worker has for as long as its process lives."""

    settings: PipelineSettings
    index: int
    logs_max: int
    control: Control
    ring: Ring
    watch: TopicWatch
    stop: threading.Event
    """Set when the supervisor asks it to drain, or is gone."""
    supervisor: str = "alone"
    """The supervisor's name, which no other has."""
    goes_on: bool = False
    """Whether an earlier life of it had its logs. In pinned mode it must not take them back from another supervisor."""


class Assignment:
    """The given partitions, taken over. Owns everything between Kafka and the servers that is about these logs."""

    def __init__(
        self,
        worker: Worker,
        topic: Topic,
        partitions: list[int],
        gives_up: Callable[[], bool],
        commit_offsets: CommitOffsets | None = None,
    ) -> None:
        """Take the partitions over. `gives_up`: asked while Postgres is away, as long as nothing is held yet.

        `commit_offsets`: who tells Kafka how far Postgres is; the source itself unless given.
        Raises LogLost, Fenced, and Unavailable when a server is away (or `gives_up` says so).
        """
        settings, control = worker.settings, worker.control
        self.partitions = partitions
        self._worker = worker
        self.name = f"{settings.machine}/{worker.index}/"
        self.owner = f"{self.name}{worker.supervisor}:{os.getpid()}"
        """Who Postgres says has the logs: `name` is the worker's in all its lives, the rest is this process's."""
        self._keeps_off = worker.goes_on and settings.assign == "pinned"
        self._taking = True
        self._abandoned = False
        self._postgres = PostgresSink(
            settings, worker.index, lambda: gives_up() if self._taking else self._abandoned, self._beat
        )
        try:
            self.handles = self._take_over(topic)
        except BaseException:
            self._postgres.close()
            raise
        self._taking = False
        status = control.open_logs(len(self.handles))
        for row, handle in zip(status, self.handles, strict=True):
            row["log_id"], row["partition"], row["epoch"] = handle.log_id, handle.partition, handle.epoch
            row["consumed"] = row["committed"] = row["log_end"] = handle.next_offset
            row["watermark_s"] = handle.watermark_s
        self._source = Source(settings, topic.name, self.handles, status, control.page, commit_offsets)
        self._redis = RedisSink(settings, status)
        self._sinks = SinkThreads(worker.ring, control, self._postgres, self._redis, worker.watch)
        self._shared = SharedBots(settings) if settings.bot_counters == "redis" else None
        self._topic = topic
        names = ", ".join(map(str, partitions))
        log.info("worker %d owns partitions %s", worker.index, names)

    def _take_over(self, topic: Topic) -> list[LogHandle]:
        settings, partitions = self._worker.settings, self.partitions

        def ask() -> Ranges:
            self._beat()
            ranges = log_ranges(settings, partitions)
            self._beat()
            return ranges

        def take_over(ranges: Ranges) -> list[LogHandle]:
            return self._postgres.take_over(
                topic.name,
                topic.topic_id,
                partitions,
                [ranges[partition][0] for partition in partitions],
                [ranges[partition][1] for partition in partitions],
                owner=self.owner,
                rules=settings.rules(),
                only_after=f"{self.name}{self._worker.supervisor}:" if self._keeps_off else "",
            )

        return settled(ask, take_over)

    def run(self, is_over: Callable[[], bool]) -> None:
        """Work until `is_over`; what is not committed then may yet be, by `drain`. Raises whatever ended a sink."""
        self._pipeline = Pipeline(
            self._worker.settings,
            self.handles,
            self._topic.partitions,
            self._source,
            _recall(self._postgres, self.handles),
            _share(self._shared, self.handles) if self._shared else None,
            self._worker.ring,
            self._worker.control,
            self._sinks,
            is_over,
        )
        try:
            self._pipeline.run()
        except PositionLost:
            # What was read before may be gone from Kafka, too.
            self.drain(self._worker.settings.drain_deadline_s)
            raise

    def drain(self, deadline_s: float) -> None:
        """Commit what was read, and apply it if Redis is there. Raises whatever ended a sink, and TimeoutError."""
        self._pipeline.drain(deadline_s)

    def abandon(self) -> None:
        """Leave what is not committed, and end the sinks' threads. Raises TimeoutError when one does not end.

        What is in the middle of a flush may be committed or not; the next takeover finds out.
        """
        self._abandoned = True
        self._sinks.abandon(ABANDON_DEADLINE_S, self._beat)

    def close(self) -> None:
        """After `drain` or `abandon`: close the connections and leave an empty ring and no logs on the page."""
        self._worker.control.close_logs()
        self._worker.ring.discard()
        self._postgres.close()
        self._source.close()
        self._redis.close()
        if self._shared is not None:
            self._shared.close()
        self._beat()

    def _beat(self) -> None:
        """While it takes logs over or lets them go, this thread answers for the sinks' loops, which do not run."""
        self._worker.control.beat("postgres")
        if self._taking or self._abandoned:
            self._worker.control.beat_all()


def settled(ask: Callable[[], Ranges], take_over: Callable[[Ranges], list[LogHandle]]) -> list[LogHandle]:
    """What `take_over` gives for the ranges that Kafka was asked for last. Raises what it raises.

    An owner that was at work until it was fenced may have stored more than Kafka had when it was asked; a log is
    shorter only when Kafka, asked after Postgres said where it is, still ends before that.
    """
    ranges = ask()
    while True:
        try:
            return take_over(ranges)
        except LogShorter as error:
            ranges = ask()
            if ranges[error.partition][1] < error.next_offset:
                raise


def _recall(postgres: PostgresSink, handles: list[LogHandle]) -> Recall:
    """What Postgres holds of seconds that were counted before the logs were taken over."""
    below = {handle.log_id: handle.next_offset for handle in handles}

    def recall(log: int, seconds: list[int]) -> Iterable[SecondCounts]:
        log_id = handles[log].log_id
        rows = postgres.load_bot_counts([(log_id, second) for second in seconds], below)
        for second, group in itertools.groupby(sorted(rows, key=itemgetter(1)), itemgetter(1)):
            _, _, user_ids, counts = zip(*group, strict=True)
            yield second, user_ids, counts

    return recall


def _share(shared: SharedBots, handles: list[LogHandle]) -> Share:
    """What the other workers' logs have counted, by way of Redis."""

    def share(block: Block, log: int, rows: np.ndarray, own_counts: np.ndarray) -> np.ndarray:
        users = [block.text(0, row) for row in rows.tolist()]
        return shared.others(handles[log].log_id, users, block.times_us[rows] // 1_000_000, own_counts)

    return share
