"""What is looked at while the pipeline runs for long, and whether it stayed flat.

A sample is a flat dict of numbers: progress, lag, memory of every process, sizes in Postgres and Redis. What should
not grow is told by a straight line through its samples of the second half: the first half may still fill windows,
caches and days.
"""

import time
from collections.abc import Sequence

import numpy as np
import psycopg
import redis

from bench.harness import Place
from bench.memory import memory_of
from bench.pipeline import Supervised, positions_of
from bench.scale import processes

MIB = 2**20
GROWTH_FLAT = 0.05
"""A line that rises by less than this share of its mean over the second half counts as flat."""
SAMPLES_MIN = 8
"""Fewer than this in the second half say nothing."""

_POSTGRES = """
SELECT pg_database_size(current_database()),
    (SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_stat_user_tables
        WHERE relname LIKE 'events%'),
    (SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_stat_user_tables
        WHERE relname NOT LIKE 'events%'),
    (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables),
    (SELECT count(*) FROM time_partitions WHERE parent = 'events'),
    (SELECT count(*) FROM time_partitions)
"""


class Vitals:
    """Owns a connection to Postgres and one to Redis; remembers the sample before."""

    def __init__(self, at: Place, running: Supervised) -> None:
        self._at = at
        self._running = running
        self._postgres = psycopg.connect(at.settings.postgres_dsn, autocommit=True)
        self._redis = redis.Redis.from_url(at.settings.redis_url)
        self.begin()

    def begin(self) -> None:
        """Seconds and rates count from now on."""
        self._began = self._looked_at = time.monotonic()
        self._committed = self.committed()

    def close(self) -> None:
        self._postgres.close()
        self._redis.close()

    def committed(self) -> int:
        """Messages that Postgres is through with."""
        return sum(offset for _, offset in positions_of(self._postgres, self._at).values())

    def applied(self) -> int:
        """Messages that the live views have, too; 0 while the supervisor cannot tell."""
        status = self._running.status() or {"workers": []}
        return sum(log["applied"] for worker in status["workers"] for log in worker["logs"])

    def sample(self, sent: int, ahead_s: float) -> dict[str, float]:
        """Everything at this moment; `sent`: messages produced so far, `ahead_s`: how far the clock has jumped."""
        now, committed = time.monotonic(), self.committed()
        status = self._running.status() or {"workers": []}
        size, events, others, dead, event_days, partitions = self._postgres.execute(_POSTGRES).fetchone()
        found = {
            "seconds": round(now - self._began, 1),
            "clock_ahead_h": round(ahead_s / 3600, 2),
            "sent": sent,
            "committed": committed,
            "events_per_s": round((committed - self._committed) / max(now - self._looked_at, 1e-3)),
            "lag_events": max(0, sent - committed),
            "redis_lag_events": sum(worker.get("redis_lag_events", 0) for worker in status["workers"]),
            "restarts": sum(worker.get("restarts", 0) for worker in status["workers"]),
            "bot_counts_mib": _mib(sum(worker.get("bot_counts_bytes", 0) for worker in status["workers"])),
            "slots_mib": _mib(sum(each.get("slots_bytes", 0) for each in status["workers"])),
            "postgres_mib": _mib(size),
            "events_mib": _mib(events),
            "other_tables_mib": _mib(others),
            "dead_tuples": dead,
            "event_days": event_days,
            "time_partitions": partitions,
            "redis_used_mib": _mib(self._redis.info("memory")["used_memory"]),
        }
        self._looked_at, self._committed = now, committed
        used = memory_of(self._at.pids, processes(self._running))
        found |= {f"memory {name}, MiB": _mib(each) for name, each in used.items()}
        # What windows hold by their nature, by user and by session, is told by itself.
        workers = _mib(sum(each for name, each in used.items() if name.startswith("worker")))
        beside = workers - found["bot_counts_mib"] - found["slots_mib"]
        return found | {"workers_beside_counts_mib": round(beside, 1)}


def _mib(size: float) -> float:
    return round(size / MIB, 1)


def flatness(
    samples: Sequence[dict[str, float]], names: Sequence[str], allowed: dict[str, float] | None = None
) -> dict[str, dict[str, object]]:
    """By name over the second half: `mean`, `growth` (of the fitted line, as a share of the mean) and `flat`.

    `growth` and `flat` are None while there are too few samples. `allowed`: by name, a rise that counts as flat
    whatever the mean, for what is nearly zero and noisy.
    """
    half = samples[len(samples) // 2 :]
    told = {}
    for name in names:
        points = [(sample["seconds"], sample[name]) for sample in half if name in sample]
        if not points:
            continue
        mean = float(np.mean([value for _, value in points]))
        growth = fitted_growth(points) / mean if len(points) >= SAMPLES_MIN and mean else None
        told[name] = {
            "mean": round(mean, 1),
            "growth": None if growth is None else round(growth, 4),
            "flat": None
            if growth is None
            else growth < max(GROWTH_FLAT, (allowed or {}).get(name, 0) / mean),
        }
    return told


def fitted_growth(points: Sequence[tuple[float, float]]) -> float:
    """By how much a straight line through (time, value) points rises from the first to the last."""
    times, values = np.array(points, float).T
    slope = np.polyfit(times - times[0], values, 1)[0]
    return float(slope * (times[-1] - times[0]))
