"""The control page of a worker: what it tells its supervisor, and where its logs stand.

It lies at the start of the worker's segment. Every field has exactly one writer, named beside it; all are
int64, so that a reader in another process never sees half a value (aligned 8-byte stores are atomic on x86-64 and
arm64). Times named `_ns` are CLOCK_MONOTONIC, which all processes of a machine share; those named `_us` are wall
clock, microseconds since 1970.
"""

import time
from enum import IntEnum

import numpy as np

from hotpath.events import CLASS_COUNT


class WorkerState(IntEnum):
    """What a worker says it is doing."""

    STARTING = 0
    RUNNING = 1
    PAUSED = 2  # the ring is full: partitions are paused until the Postgres sink has caught up
    DRAINING = 3
    STOPPED = 4
    IDLE = 5  # group mode: no log is assigned to it


LOOPS = ("source", "postgres", "redis")
"""The worker's loops, each with a heartbeat."""

STAGES = ("consume", "parse", "columns", "validate", "bots", "seal", "postgres", "redis")
"""What CPU time is accounted to: the main thread's work in its order (parse and columns are decode, seal is all that
completes the rows for COPY), then the sinks' threads as a whole."""

CONTROL_DTYPE = np.dtype(
    [
        # main thread
        ("pid", np.int64),
        ("state", np.int64),
        ("started_ns", np.int64),
        ("source_heartbeat_ns", np.int64),
        ("received", np.int64),
        ("classes", np.int64, (CLASS_COUNT,)),
        ("back_pressure", np.int64),  # times the ring was found full
        ("kafka_down", np.int64),  # 1 while no broker answers
        ("kafka_errors", np.int64),
        ("routing_sampled", np.int64),
        ("routing_wrong_key", np.int64),  # key is not the user_id
        ("routing_wrong_partition", np.int64),  # partition is not the key's
        ("bot_counts_bytes", np.int64),
        ("assignments", np.int64),  # times it took logs over
        ("fenced", np.int64),  # times it found a log taken over by another (group mode; else it ends)
        ("held_back", np.int64),  # partitions that the group gives it and that it does not take (yet)
        # Postgres sink's thread
        ("postgres_heartbeat_ns", np.int64),
        ("blocks_committed", np.int64),
        ("rows_committed", np.int64),
        ("flush_ns", np.int64),  # wall time of all flushes
        ("flush_last_ns", np.int64),
        ("postgres_retries", np.int64),
        # Redis sink's thread
        ("redis_heartbeat_ns", np.int64),
        ("redis_away", np.int64),  # 1 while Redis does not answer
        ("redis_heals", np.int64),  # gaps filled and views rebuilt
        ("slots_bytes", np.int64),  # what is known of sessions in Redis
        # each stage its own thread
        ("stage_cpu_ns", np.int64, (len(STAGES),)),
        # the ring's cursors; see ring.py for their writers
        ("cursors", np.int64, (4,)),
        ("log_count", np.int64),
    ],
    align=True,
)

LOG_STATUS_DTYPE = np.dtype(
    [
        # main thread
        ("log_id", np.int64),
        ("partition", np.int64),
        ("epoch", np.int64),
        ("consumed", np.int64),  # next offset to consume
        ("watermark_s", np.int64),
        ("log_end", np.int64),  # the log's end when last heard of
        # The last moment at which the log was seen to hold nothing at or after `ended_offset`. The writer stores
        # the offset first, a reader reads the moment first: it may see an old moment, never a false one.
        ("ended_at_us", np.int64),
        ("ended_offset", np.int64),
        # Postgres sink's thread
        ("committed", np.int64),  # Postgres's next_offset
        # Redis sink's thread
        ("applied", np.int64),
        ("complete_until_us", np.int64),
    ]
)


class Control:
    """A control page with room for `logs_max` logs, mapped over the start of `buffer`.

    `page` is one CONTROL_DTYPE record: `control.page["received"] += 1` writes to the shared memory.
    """

    def __init__(self, buffer: memoryview | bytearray, logs_max: int) -> None:
        self.page = np.frombuffer(buffer, CONTROL_DTYPE, 1)[0]
        self._logs = np.frombuffer(buffer, LOG_STATUS_DTYPE, logs_max, CONTROL_DTYPE.itemsize)

    @staticmethod
    def nbytes(logs_max: int) -> int:
        """Bytes of a control page, a multiple of a memory page so that the ring starts on its own."""
        used = CONTROL_DTYPE.itemsize + LOG_STATUS_DTYPE.itemsize * logs_max
        return -(-used // 4096) * 4096

    @property
    def logs(self) -> np.ndarray:
        """The status of the worker's logs: a view, LOG_STATUS_DTYPE, one row per log."""
        return self._logs[: int(self.page["log_count"])]

    def open_logs(self, count: int) -> np.ndarray:
        """Make room for `count` logs and give their zeroed rows. Raises ValueError when there is none."""
        if count > len(self._logs):
            raise ValueError(f"{count} logs do not fit a control page made for {len(self._logs)}")
        self.close_logs()
        self._logs[:] = 0
        self.page["log_count"] = count
        return self.logs

    def close_logs(self) -> None:
        """Show no logs."""
        self.page["log_count"] = 0

    def beat(self, loop: str) -> None:
        """Say that one of the worker's loops (`source`, `postgres`, `redis`) goes round."""
        self.page[f"{loop}_heartbeat_ns"] = time.monotonic_ns()

    def beat_all(self) -> None:
        """Answer for all loops, while the sinks' do not run."""
        for loop in LOOPS:
            self.beat(loop)
