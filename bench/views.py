"""What the live views cost: CPU an event of the Redis server, and of the worker that folds and sends.

    python -m bench.views --events 3000000 --as-if-rate 150000

The standard workload in memory, applied in blocks of the default size by one client to a private Redis, like the one
of `make up`. Users who are new cost several times what the others cost: the first events, in which nearly all are, are
not measured. No Kafka, no Postgres, no trimming, no readers. `bench.pipeline` measures the whole.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from bench.redis_apply import Replay
from bench.workload import AS_IF_RATE, USERS, Workload
from deploy.local.home import Home
from deploy.local.redis_server import RedisServer
from hotpath.settings import PipelineSettings
from hotpath.views import link
from hotpath.workers.logs import LogHandle
from hotpath.workers.source import Chunk

PARTITIONS = 16


@contextmanager
def _private_redis() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="hotpath-bench-"))
    home = Home(folder / "home")
    home.make()
    server = RedisServer(home, leash=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        home.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _chunks(workload: Workload, rows_max: int) -> Iterator[Chunk]:
    """The workload as a worker's source gives it: sorted by log, offsets without gaps."""
    next_offsets = np.zeros(PARTITIONS, np.int64)
    for batch in workload.batches(rows_max):
        logs = np.array(batch.partitions, np.int16)
        order = np.argsort(logs, kind="stable")
        logs = logs[order]
        values = [batch.values[i] for i in order.tolist()]
        counts = np.bincount(logs, minlength=PARTITIONS)
        within = np.arange(logs.size) - np.repeat(np.cumsum(counts) - counts, counts)
        offsets = next_offsets[logs] + within
        next_offsets += counts
        now_us = np.full(logs.size, time.time_ns() // 1_000)
        values = [value.encode() if isinstance(value, str) else value for value in values]
        yield Chunk(values, logs, offsets, now_us, None)


def _server_cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--before", type=int, default=2_000_000, help="events before these, not measured")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--as-if-rate", type=float, default=AS_IF_RATE)
    parser.add_argument("--blocks", type=int, default=1, help="blocks of a worker that are applied at once")
    options = parser.parse_args()
    settings = PipelineSettings()
    with _private_redis() as server:
        handles = [LogHandle(number, number, 1, 0, 0) for number in range(PARTITIONS)]
        replay = Replay(settings, handles, link.connect(server.url, 30), "bench", options.blocks)
        process = psutil.Process(server.process.identity().pid)
        began = None
        workload = Workload(
            options.before + options.events, users=options.users, as_if_rate=options.as_if_rate
        )
        for chunk in _chunks(workload, settings.chunk_rows_max):
            if began is None and replay.events >= options.before:
                replay.apply()
                began = replay.events, _server_cpu_s(process), replay.apply_cpu_s
            replay.take(chunk)
        replay.apply()
        events = replay.events - began[0]
        server_s, worker_s = _server_cpu_s(process) - began[1], replay.apply_cpu_s - began[2]
    print(f"events {events:,}")
    print(f"Redis   {server_s / events * 1e6:.2f} us an event")
    print(f"worker  {worker_s / events * 1e6:.2f} us an event, fold and send")


if __name__ == "__main__":
    main()
