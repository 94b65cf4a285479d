"""What the supervisor tells of its workers, on loopback: Prometheus metrics, health, and status as JSON.

Everything is read from the workers' control pages at the moment it is asked for; nothing is kept but, for rates, the
counters of the last few seconds.
"""

import collections
import os
import socket
import threading
import time
from collections.abc import Iterator

import orjson
import psutil
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hotpath.errors import ConfigError
from hotpath.events import EventClass
from hotpath.settings import PipelineSettings
from hotpath.shm.control import STAGES
from hotpath.shm.ring import APPLIED, COMMITTED, DETACHED, PUBLISHED
from hotpath.workers.handle import WorkerProcess

RATE_OVER_S = 5.0
"""Rates are means over so many seconds: a flush interval is not to be seen in them."""


class Rates:
    """Events a second of each worker, from its counters as they were a few seconds ago."""

    def __init__(self) -> None:
        self._samples: dict[int, collections.deque[tuple[float, int, int]]] = {}

    def of(self, worker: WorkerProcess) -> float:
        """Messages a second that this life of the worker received lately."""
        now, received = time.monotonic(), int(worker.control.page["received"])
        samples = self._samples.setdefault(worker.index, collections.deque())
        if samples and samples[-1][1] != worker.pid:
            samples.clear()
        if not samples or now - samples[-1][0] >= 0.25:
            samples.append((now, worker.pid, received))
        while len(samples) > 2 and now - samples[0][0] > RATE_OVER_S:
            samples.popleft()
        since, _, before = samples[0]
        return (received - before) / (now - since) if now - since > 0.1 else 0.0


def worker_status(seat, rates: Rates) -> dict[str, object]:
    """One worker as JSON: counters since its start, times in seconds, lag in messages."""
    worker = seat.worker
    base = {"worker": seat.index, "restarts": seat.restarts}
    if worker is None:
        state = "given up" if seat.given_up else "waiting to restart"
        return base | {"state": state, "logs": []}
    page, cursors = worker.control.page, worker.control.page["cursors"]
    logs = [
        {
            name: int(row[name])
            for name in (
                "log_id",
                "partition",
                "epoch",
                "consumed",
                "committed",
                "applied",
                "log_end",
                "watermark_s",
            )
        }
        for row in worker.control.logs
    ]
    committed = max(int(page["blocks_committed"]), 1)
    return (
        base
        | {
            "pid": worker.pid,
            "state": worker.state.name.lower(),
            "uptime_s": round(worker.uptime_s, 1),
            "heartbeat_age_s": round(worker.heartbeat_age_s(), 3),
            "events_per_s": round(rates.of(worker), 1),
            "received": int(page["received"]),
            "classes": {c.label: int(page["classes"][c]) for c in EventClass},
            "lag_events": sum(max(0, log["log_end"] - log["committed"]) for log in logs),
            "redis_lag_events": sum(max(0, log["committed"] - log["applied"]) for log in logs),
            "ring_used": int(cursors[PUBLISHED] - min(cursors[COMMITTED], cursors[APPLIED])),
            "redis_away": bool(page["redis_away"] or cursors[DETACHED]),
            "kafka_down": bool(page["kafka_down"]),
            "back_pressure": int(page["back_pressure"]),
            "postgres_retries": int(page["postgres_retries"]),
            "redis_heals": int(page["redis_heals"]),
            "blocks_committed": int(page["blocks_committed"]),
            "rows_committed": int(page["rows_committed"]),
            "flush_mean_s": round(int(page["flush_ns"]) / committed / 1e9, 6),
            "flush_last_s": round(int(page["flush_last_ns"]) / 1e9, 6),
            "stage_cpu_s": {stage: int(page["stage_cpu_ns"][i]) / 1e9 for i, stage in enumerate(STAGES)},
            "routing": {
                name: int(page[f"routing_{name}"]) for name in ("sampled", "wrong_key", "wrong_partition")
            },
            "bot_counts_bytes": int(page["bot_counts_bytes"]),
            "logs": logs,
        }
        | _process(worker.pid)
    )


def _process(pid: int) -> dict[str, object]:
    """CPU seconds and resident bytes of a process; nothing when it has just ended."""
    try:
        process = psutil.Process(pid)
        times, memory = process.cpu_times(), process.memory_info()
    except psutil.Error:
        return {}
    return {"cpu_s": times.user + times.system, "rss_bytes": memory.rss}


def healthy(seat) -> bool:
    """Whether a worker is there and moves."""
    return seat.worker is not None and seat.worker.was_running and not seat.worker.hangs()


class _WorkerMetrics(Collector):
    """The control pages as Prometheus metrics."""

    def __init__(self, seats: list) -> None:
        self._seats = seats

    def collect(self) -> Iterator[Metric]:
        messages = CounterMetricFamily("hotpath_messages", "messages by class", labels=["worker", "class"])
        lag = GaugeMetricFamily("hotpath_lag_messages", "messages not yet in Postgres", labels=["partition"])
        redis_lag = GaugeMetricFamily(
            "hotpath_redis_lag_messages", "committed, not yet in Redis", labels=["partition"]
        )
        watermark = GaugeMetricFamily(
            "hotpath_watermark_seconds", "greatest event second", labels=["partition"]
        )
        restarts = CounterMetricFamily("hotpath_worker_restarts", "restarts", labels=["worker"])
        up = GaugeMetricFamily("hotpath_worker_up", "1 while the worker moves", labels=["worker"])
        cpu = CounterMetricFamily("hotpath_stage_cpu_seconds", "CPU by stage", labels=["worker", "stage"])
        flushes = CounterMetricFamily("hotpath_flushes", "Postgres transactions", labels=["worker"])
        flush_time = CounterMetricFamily("hotpath_flush_seconds", "time in flushes", labels=["worker"])
        ring = GaugeMetricFamily("hotpath_ring_blocks", "blocks waiting in the ring", labels=["worker"])
        plain = {
            name: (family("hotpath_" + name, text, labels=["worker"]))
            for name, family, text in (
                ("back_pressure", CounterMetricFamily, "times the ring was full"),
                ("postgres_retries", CounterMetricFamily, "flushes tried again"),
                ("redis_heals", CounterMetricFamily, "gaps filled and views rebuilt"),
                ("kafka_errors", CounterMetricFamily, "errors of the Kafka client"),
                ("redis_away", GaugeMetricFamily, "1 while Redis does not answer"),
                ("kafka_down", GaugeMetricFamily, "1 while no broker answers"),
                ("bot_counts_bytes", GaugeMetricFamily, "memory of the bot counts"),
                ("routing_sampled", CounterMetricFamily, "messages whose key was checked"),
                ("routing_wrong_key", CounterMetricFamily, "of these, not keyed by user_id"),
                ("routing_wrong_partition", CounterMetricFamily, "of these, not in their key's partition"),
            )
        }
        for seat in self._seats:
            label = str(seat.index)
            restarts.add_metric([label], seat.restarts)
            up.add_metric([label], healthy(seat))
            worker = seat.worker
            if worker is None:
                continue
            page, cursors = worker.control.page, worker.control.page["cursors"]
            for event_class in EventClass:
                messages.add_metric([label, event_class.label], int(page["classes"][event_class]))
            for row in worker.control.logs:
                partition = [str(row["partition"])]
                lag.add_metric(partition, max(0, int(row["log_end"] - row["committed"])))
                redis_lag.add_metric(partition, max(0, int(row["committed"] - row["applied"])))
                watermark.add_metric(partition, int(row["watermark_s"]))
            for i, stage in enumerate(STAGES):
                cpu.add_metric([label, stage], int(page["stage_cpu_ns"][i]) / 1e9)
            flushes.add_metric([label], int(page["blocks_committed"]))
            flush_time.add_metric([label], int(page["flush_ns"]) / 1e9)
            ring.add_metric([label], int(cursors[PUBLISHED] - min(cursors[COMMITTED], cursors[APPLIED])))
            for name, family in plain.items():
                family.add_metric([label], int(page[name]))
        yield from (messages, lag, redis_lag, watermark, restarts, up, cpu, flushes, flush_time, ring)
        yield from plain.values()


def _application(seats: list) -> Starlette:
    registry = CollectorRegistry()
    registry.register(_WorkerMetrics(seats))
    rates = Rates()

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    def healthz(request: Request) -> Response:
        ill = [seat.index for seat in seats if not healthy(seat)]
        body = orjson.dumps({"healthy": not ill, "workers_down": ill})
        return Response(body, 503 if ill else 200, media_type="application/json")

    def status(request: Request) -> Response:
        workers = [worker_status(seat, rates) for seat in seats]
        body = orjson.dumps({"pid": os.getpid(), "workers": workers})
        return Response(body, media_type="application/json")

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/status", status)]
    )


class StatusServer:
    """Serves the status of `seats` in a thread, while its `with` block lasts."""

    def __init__(self, settings: PipelineSettings, seats: list) -> None:
        """Raises ConfigError when the address is taken."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((settings.status_host, settings.status_port))
        except OSError as error:
            raise ConfigError(
                f"status address {settings.status_host}:{settings.status_port}: {error.strerror}; set --status-port"
            ) from None
        config = uvicorn.Config(_application(seats), log_level="warning", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="status", daemon=True
        )

    def __enter__(self) -> "StatusServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(5)
