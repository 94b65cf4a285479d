"""Entry of a worker process: `python -m hotpath.workers.process`, started by the supervisor and by nothing else.

Settings come in HOTPATH_* variables, the shared memory as an inherited descriptor, and the supervisor's life as a pipe:
when it closes, the supervisor is gone, and the worker drains and ends.
"""

import argparse
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from operator import itemgetter

import numpy as np

from hotpath.console import configure_logging
from hotpath.errors import ConfigError, HotpathError
from hotpath.kafka import describe_topic, log_ranges
from hotpath.settings import PipelineSettings, load
from hotpath.shm.block import Block
from hotpath.shm.control import WorkerState
from hotpath.shm.segment import Segment
from hotpath.views.shared_bots import SharedBots
from hotpath.workers.bots import Recall, SecondCounts, Share
from hotpath.workers.layout import map_worker
from hotpath.workers.logs import LogHandle
from hotpath.workers.pipeline import Pipeline
from hotpath.workers.postgres_sink import PostgresSink
from hotpath.workers.redis_sink import RedisSink
from hotpath.workers.sink_threads import SinkThreads
from hotpath.workers.source import Source

log = logging.getLogger(__name__)


def pinned_partitions(partitions: int, index: int, procs: int) -> list[int]:
    """The partitions of worker `index` of `procs`: partition p belongs to worker p mod procs."""
    return list(range(index, partitions, procs))


def run(settings: PipelineSettings, index: int, segment: Segment, logs_max: int, supervisor_fd: int) -> None:
    """Take over this worker's logs and work on them until told to stop. Raises HotpathError."""
    control, ring = map_worker(segment.buffer, settings, logs_max)
    control.page["pid"] = os.getpid()
    control.page["started_ns"] = time.monotonic_ns()
    control.page["state"] = WorkerState.STARTING

    topic = describe_topic(settings)
    partitions = pinned_partitions(topic.partitions, index, settings.procs)
    if len(partitions) > logs_max:
        raise ConfigError(
            f"worker {index} has {len(partitions)} partitions but memory for {logs_max}: restart"
        )
    stop = _stop_event(supervisor_fd)

    def gives_up() -> bool:
        """While it starts, a worker that is to stop need not wait for Postgres; later it drains first."""
        return stop.is_set() and control.page["state"] == WorkerState.STARTING

    postgres = PostgresSink(settings, index, gives_up, lambda: control.beat("postgres"))
    ranges = log_ranges(settings, partitions)
    handles = postgres.take_over(
        topic.name,
        topic.topic_id,
        partitions,
        [ranges[partition][0] for partition in partitions],
        [ranges[partition][1] for partition in partitions],
        owner=f"{os.uname().nodename}/{os.getpid()}",
        rules=settings.rules(),
    )
    status = control.open_logs(len(handles))
    for row, handle in zip(status, handles, strict=True):
        row["log_id"], row["partition"], row["epoch"] = handle.log_id, handle.partition, handle.epoch
        row["consumed"] = row["committed"] = row["log_end"] = handle.next_offset
        row["watermark_s"] = handle.watermark_s

    source = Source(settings, topic.name, handles, status, control.page)
    sinks = SinkThreads(ring, control, postgres, RedisSink(settings, status))
    share = _share(settings, handles) if settings.bot_counters == "redis" else None
    pipeline = Pipeline(
        settings,
        handles,
        topic.partitions,
        source,
        _recall(postgres, handles),
        share,
        ring,
        control,
        sinks,
        stop,
    )
    log.info("worker %d owns partitions %s", index, ", ".join(map(str, partitions)))
    pipeline.run()
    control.page["state"] = WorkerState.STOPPED
    source.close()


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


def _share(settings: PipelineSettings, handles: list[LogHandle]) -> Share:
    """What the other workers' logs have counted, by way of Redis."""
    shared = SharedBots(settings)

    def share(block: Block, log: int, rows: np.ndarray, own_counts: np.ndarray) -> np.ndarray:
        users = [block.text(0, row) for row in rows.tolist()]
        return shared.others(handles[log].log_id, users, block.times_us[rows] // 1_000_000, own_counts)

    return share


def _stop_event(supervisor_fd: int) -> threading.Event:
    """Set by SIGTERM, and when the supervisor's end of the pipe closes, however it died."""
    stop = threading.Event()

    def watch() -> None:
        os.read(supervisor_fd, 1)
        log.warning("the supervisor is gone: draining")
        stop.set()

    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
    return stop


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hotpath.workers.process", description=__doc__)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--logs-max", type=int, required=True)
    parser.add_argument("--segment-fd", type=int, required=True)
    parser.add_argument("--segment-bytes", type=int, required=True)
    parser.add_argument("--supervisor-fd", type=int, required=True)
    options = parser.parse_args()
    settings = load(PipelineSettings, [], parser.prog)
    configure_logging(settings, f"worker {options.index}")
    segment = Segment(options.segment_fd, options.segment_bytes)
    try:
        run(settings, options.index, segment, options.logs_max, options.supervisor_fd)
    except HotpathError as error:
        log.error("%s", error)
        return error.exit_code
    except TimeoutError as error:
        log.error("stopped before everything was committed: %s; it will be read again", error)
        return 1
    except Exception:
        log.exception("unexpected failure")
        return 1
    return 0


if __name__ == "__main__":
    # Threads that hang in a dead connection must not keep a worker alive that has said its last word.
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
