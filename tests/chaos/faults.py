"""All faults, by what they break, and how a run picks among them."""

import random

from tests.chaos import faults_kafka, faults_postgres, faults_processes, faults_redis
from tests.chaos.fault import Fault

ALL: tuple[type[Fault], ...] = (
    faults_processes.WorkerKilled,
    faults_processes.SupervisorKilled,
    faults_processes.AllKilled,
    faults_processes.StoppedInMidFlush,
    faults_processes.WorkerFrozen,
    faults_processes.Zombie,
    faults_processes.ClockJumps,
    faults_postgres.PostgresRestarted,
    faults_postgres.PostgresKilled,
    faults_postgres.SessionsTerminated,
    faults_postgres.TableLocked,
    faults_postgres.RowsLocked,
    faults_postgres.CommitReplyLost,
    faults_postgres.DiskFull,
    faults_redis.RedisKilled,
    faults_redis.RedisRestartedEmpty,
    faults_redis.RedisWiped,
    faults_redis.RedisRestored,
    faults_redis.RedisSlow,
    faults_redis.RedisFrozen,
    faults_redis.RedisAnswersErrors,
    faults_redis.RedisWrongTypes,
    faults_redis.RedisKeysLost,
    faults_redis.ScriptReplyLost,
    faults_kafka.KafkaRestarted,
    faults_kafka.KafkaKilled,
    faults_kafka.PoisonStorm,
    faults_kafka.PartitionsAdded,
    faults_kafka.TopicRecreated,
    faults_kafka.RetentionPassed,
)

PAIRS_SHARE = 0.2
"""Share of the faults that come two at a time."""


class Drawn:
    """The faults of a run, in an order that the seed decides. All kinds come once before any comes more often."""

    def __init__(self, seed: int, only: str = "") -> None:
        """`only`: part of the names of the kinds that are wanted."""
        self._chance = random.Random(seed)
        self._kinds = [kind for kind in ALL if only.lower() in kind.__name__.lower()]
        self._first = list(self._kinds)
        self._chance.shuffle(self._first)

    def next(self) -> list[Fault]:
        """One fault, or two that can be at once."""
        faults = [self._draw()]
        if not faults[0].alone and self._chance.random() < PAIRS_SHARE:
            other = self._made(self._pick())
            if not other.alone and not other.touches & faults[0].touches:
                faults.append(other)
        return faults

    def _draw(self) -> Fault:
        return self._made(self._first.pop() if self._first else self._pick())

    def _pick(self) -> type[Fault]:
        return self._chance.choices(self._kinds, [kind.weight for kind in self._kinds])[0]

    def _made(self, kind: type[Fault]) -> Fault:
        # Each fault has a chance of its own, so that it can be run again by itself.
        return kind(random.Random(self._chance.getrandbits(32)))
