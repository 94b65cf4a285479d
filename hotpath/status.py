"""What the supervisor tells of its workers, on loopback: Prometheus metrics, health, and status as JSON.

Everything is read from the workers' control pages at the moment it is asked for; nothing is kept but, for rates, the
counters of the last few seconds.
"""

import collections
import os
import socket
import threading
import time

import orjson
import psutil
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hotpath.errors import ConfigError
from hotpath.events import EventClass
from hotpath.metrics import WorkerMetrics
from hotpath.settings import PipelineSettings
from hotpath.shm.control import STAGES
from hotpath.shm.ring import APPLIED, COMMITTED, DETACHED, PUBLISHED
from hotpath.workers.handle import Seat, WorkerProcess

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
        if not samples or samples[-1][1] != worker.pid:
            samples.clear()
            samples.append((worker.started_at, worker.pid, 0))
        if now - samples[-1][0] >= 0.25:
            samples.append((now, worker.pid, received))
        while len(samples) > 2 and now - samples[0][0] > RATE_OVER_S:
            samples.popleft()
        since, _, before = samples[0]
        return (received - before) / (now - since) if now - since > 0.1 else 0.0


def worker_status(seat: Seat, rates: Rates) -> dict[str, object]:
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
            "ring_slots": worker.ring_slots,
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
            "slots_bytes": int(page["slots_bytes"]),
            "assignments": int(page["assignments"]),
            "fenced": int(page["fenced"]),
            "held_back": int(page["held_back"]),
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


def _application(settings: PipelineSettings, seats: list[Seat]) -> Starlette:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(seats))
    rates = Rates()

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    def healthz(request: Request) -> Response:
        ill = [seat.index for seat in seats if not seat.healthy]
        body = orjson.dumps({"healthy": not ill, "workers_down": ill})
        return Response(body, 503 if ill else 200, media_type="application/json")

    def status(request: Request) -> Response:
        workers = [worker_status(seat, rates) for seat in seats]
        named = {name: getattr(settings, name) for name in ("topic", "assign", "group", "machine")}
        body = orjson.dumps({"pid": os.getpid(), **named, "workers": workers})
        return Response(body, media_type="application/json")

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/status", status)]
    )


class StatusServer:
    """Serves the status of `seats` in a thread, while its `with` block lasts."""

    def __init__(self, settings: PipelineSettings, seats: list[Seat]) -> None:
        """Raises ConfigError when the address is taken."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((settings.status_host, settings.status_port))
        except OSError as error:
            raise ConfigError(
                f"status address {settings.status_host}:{settings.status_port}: {error.strerror}; set --status-port"
            ) from None
        config = uvicorn.Config(_application(settings, seats), log_level="warning", access_log=False)
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
