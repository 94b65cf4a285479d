"""A worker's place in Kafka's consumer group: which partitions the group gives it.

What the group says is a hint about who should work on a log, so that two workers seldom do; who may write is decided
by Postgres's epochs alone. Its client reads nothing: it joins, and tells Kafka (for monitoring) how far Postgres is.
Reading is done by the source of each assignment, from Postgres's offsets, as in pinned mode.

A thread serves the client, so that a worker that is busy taking logs over does not hold up the group. It and the
worker's loop meet in two sets of partitions::

    given   what the group gives this worker now     changed by the thread
    held    what the worker has taken of it          changed by `take` and `let_go`

Partitions that are revoked leave `given` at once; Kafka is told that they are free when they have left `held`, or the
hand-over's time is up. After a lost session nothing is waited for: others have them already.

The protocol is the classic one, with static members and the assignor cooperative-sticky:

- A worker that is restarted within the session's time-out has the same `group.instance.id`, gets the same partitions,
  and nobody else notices. Of two members of one name the classic protocol fences the old one, as an epoch does.
  KIP-848 refuses the new one until the old one's session has timed out, which would keep each restart waiting.
- Cooperative: workers whose partitions do not change go on working while others come and go.
- A static member is not missed when it leaves, but when its session times out. Stopping a supervisor for good costs
  its partitions that time; restarting it costs nothing.
"""

import logging
import threading
import time
from collections.abc import Collection

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from hotpath.errors import Fenced, Unavailable
from hotpath.kafka import any_broker_up, client_log, client_options
from hotpath.settings import PipelineSettings
from hotpath.workers.postgres_watch import PostgresWatch

log = logging.getLogger(__name__)

POLL_S = 0.2
LOG_INTERVAL_S = 10.0
CLOSE_TIMEOUT_S = 5.0
"""Kafka may be away just then, and has nothing to be told but the last offsets."""
HEARTBEATS_PER_SESSION = 6
"""Heartbeats also bring the news that the group changes: one a second is heard soon enough, and costs nothing."""
POLL_MARGIN_S = 15.0
"""A worker that hangs is killed and restarted by its supervisor, and keeps its partitions, before the group acts."""


class Replaced(Fenced):
    """Another process has the name of this worker in the group: HOTPATH_MACHINE must differ between supervisors."""


class Membership:
    """Joins the group at once. `let_go` and `take` are for one thread."""

    def __init__(self, settings: PipelineSettings, index: int, postgres: PostgresWatch) -> None:
        """Stays in the group for as long as `postgres` is reached. Raises Unavailable if the client cannot be made."""
        self._postgres = postgres
        self._postgres_away_s = settings.group_postgres_away_s
        self.name = f"{settings.machine}-{index}"
        self._topic = settings.topic
        self._session_s = settings.group_session_s
        self._handover_s = settings.group_handover_s
        self._condition = threading.Condition()
        self._given: frozenset[int] = frozenset()
        self._held: frozenset[int] = frozenset()
        self._lost = False
        self._to_commit: list[TopicPartition] = []
        self._closed = False
        self._error: Exception | None = None
        self._warned_at = float("-inf")
        self.kafka_down = False
        """Whether no broker answers, as last heard."""
        try:
            self._consumer = Consumer(self._options(settings), logger=client_log)
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        except KafkaException as error:
            raise Unavailable(f"Kafka client: {error.args[0].str()}; see HOTPATH_KAFKA_OPTIONS") from None
        self._thread = threading.Thread(target=self._serve, name="membership", daemon=True)
        self._thread.start()

    def _options(self, settings: PipelineSettings) -> dict[str, object]:
        session_ms = int(settings.group_session_s * 1_000)
        silence_max_s = settings.hang_deadline_s + settings.group_handover_s + POLL_MARGIN_S
        return client_options(
            settings,
            **{
                "group.id": settings.group,
                "group.instance.id": self.name,
                "group.protocol": "classic",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": session_ms,
                "heartbeat.interval.ms": session_ms // HEARTBEATS_PER_SESSION,
                "max.poll.interval.ms": max(session_ms, int(silence_max_s * 1_000)),
                "topic.metadata.refresh.interval.ms": 5_000,  # partitions that are added are given out so soon
                "reconnect.backoff.max.ms": 1_000,  # a machine that is back rejoins at once
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "statistics.interval.ms": 1_000,
                "stats_cb": self._on_statistics,
                "error_cb": self._on_error,
            },
        )

    @property
    def given(self) -> frozenset[int]:
        """The partitions that the group gives this worker now."""
        return self._given

    @property
    def lost(self) -> bool:
        """Whether the session has timed out since the last `take`: what was held may be others' by now."""
        return self._lost

    def check(self) -> None:
        """Raise Replaced, or Unavailable when it had to leave or the client has failed for good."""
        if self._error is not None:
            raise self._error

    def take(self, but: Collection[int]) -> frozenset[int]:
        """Hold what is given now, except `but`: until `let_go` the group waits before it gives them to others."""
        with self._condition:
            self._held = self._given.difference(but)
            self._lost = False
            return self._held

    def let_go(self) -> None:
        """Hold nothing any more."""
        with self._condition:
            self._held = frozenset()
            self._condition.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until something may have changed."""
        with self._condition:
            self._condition.wait(timeout_s)

    def commit(self, offsets: list[TopicPartition]) -> None:
        """Have Kafka told how far Postgres is, soon. The thread does it: a client in its `poll` locks others out."""
        self._to_commit = offsets

    def close(self) -> None:
        """End the client. The group keeps the partitions for this name until the session times out."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join(CLOSE_TIMEOUT_S)

    # In the thread

    def _serve(self) -> None:
        commit_from, turned_at = 0.0, time.monotonic()
        try:
            while not self._closed and self._error is None:
                now = time.monotonic()
                if now - turned_at > self._session_s / 2:
                    # This process was stopped. What the group knew it as may be over, and a commit under that name
                    # would be taken for another member's, which ends the client.
                    commit_from = now + self._session_s
                turned_at = now
                message = self._consumer.poll(POLL_S)
                if message is not None and message.error() is not None:
                    self._on_error(message.error())
                if now >= commit_from:
                    self._commit()
                if self._postgres.silent_s > self._postgres_away_s:
                    raise Unavailable(
                        f"leaves the group: Postgres has not answered for {self._postgres_away_s:g} s"
                    )
        except Exception as error:
            self._error = error
        # Without heartbeats the group gives the partitions to others, whatever the worker's loop may wait for.
        self._consumer.close()
        self._change(frozenset())

    def _commit(self) -> None:
        offsets, self._to_commit = self._to_commit, []
        if offsets:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                self._on_error(error.args[0])

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign([])  # the source reads them, once Postgres has said from where
        self._change(self._given | _numbers(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = _numbers(partitions)
        self._change(self._given - gone)
        with self._condition:
            released = self._condition.wait_for(
                lambda: self._closed or self._error is not None or not self._held & gone, self._handover_s
            )
        if not released:
            log.warning(
                "partitions %s go to another worker before all that was read is committed", _list(gone)
            )
        consumer.incremental_unassign([])

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning(
            "the group has taken partitions %s away: it did not hear of this worker", _list(self._given)
        )
        self._lost = True
        self._change(frozenset())
        consumer.incremental_unassign([])

    def _change(self, given: frozenset[int]) -> None:
        with self._condition:
            self._given = given
            self._condition.notify_all()

    def _on_statistics(self, text: str) -> None:
        self.kafka_down = not any_broker_up(orjson.loads(text))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
            if error.code() == KafkaError.FENCED_INSTANCE_ID or "fenced" in error.str():
                self._error = Replaced(f"Kafka has fenced {self.name!r}: {error.str()}")
            else:
                self._error = Unavailable(f"Kafka client: {error.str()}")
        elif time.monotonic() - self._warned_at > LOG_INTERVAL_S:
            self._warned_at = time.monotonic()
            log.warning("Kafka: %s", error.str())


def _numbers(partitions: list[TopicPartition]) -> frozenset[int]:
    return frozenset(each.partition for each in partitions)


def _list(partitions: Collection[int]) -> str:
    return ", ".join(map(str, sorted(partitions))) or "(none)"
