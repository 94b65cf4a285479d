"""Entry of a worker process: `python -m hotpath.workers.process`, started by the supervisor and by nothing else.

Settings come in HOTPATH_* variables, the shared memory as an inherited descriptor, and the supervisor's life as a pipe:
when it closes, the supervisor is gone, and the worker drains and ends.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time

from hotpath import clock
from hotpath.console import configure_logging
from hotpath.errors import HotpathError
from hotpath.kafka import Topic, describe_topic
from hotpath.scheduling import take_long_slices
from hotpath.settings import PipelineSettings, load
from hotpath.shm.control import WorkerState
from hotpath.shm.segment import Segment
from hotpath.workers.assignment import Assignment, Worker
from hotpath.workers.group import work_in_group
from hotpath.workers.layout import map_worker
from hotpath.workers.topic_watch import TopicWatch

log = logging.getLogger(__name__)


def pinned_partitions(partitions: int, index: int, procs: int) -> list[int]:
    """The partitions of worker `index` of `procs`: partition p belongs to worker p mod procs."""
    return list(range(index, partitions, procs))


def run(settings: PipelineSettings, segment: Segment, options: argparse.Namespace) -> None:
    """Take over this worker's logs, or those that the group gives it, until told to stop. Raises HotpathError."""
    index, logs_max = options.index, options.logs_max
    control, ring = map_worker(segment.buffer, settings, logs_max)
    control.page["pid"] = os.getpid()
    control.page["started_ns"] = time.monotonic_ns()
    control.page["state"] = WorkerState.STARTING

    topic = describe_topic(settings)
    watch = TopicWatch(settings, topic, lambda: control.beat("postgres"))
    stop = _stop_event(options.supervisor_fd)
    worker = Worker(
        settings, index, logs_max, control, ring, watch, stop, options.supervisor, options.goes_on
    )
    if settings.assign == "group":
        work_in_group(worker)
    else:
        _work_pinned(worker, topic)
    control.page["state"] = WorkerState.STOPPED


def _work_pinned(worker: Worker, topic: Topic) -> None:
    """One assignment until the worker is told to stop. Whatever fences it or ends a sink ends the process."""
    settings, stop = worker.settings, worker.stop
    # Partitions that were added since the supervisor looked are the last ones; it will make room for them.
    partitions = pinned_partitions(topic.partitions, worker.index, settings.procs)[: worker.logs_max]
    assignment = Assignment(worker, topic, partitions, gives_up=stop.is_set)
    assignment.run(stop.is_set)
    assignment.drain(settings.drain_deadline_s)
    assignment.close()


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
    parser.add_argument("--supervisor", required=True)
    parser.add_argument("--goes-on", action="store_true")
    options = parser.parse_args()
    settings = load(PipelineSettings, [], parser.prog)
    configure_logging(settings, f"worker {options.index}")
    clock.follow(settings.clock_file)
    take_long_slices()
    segment = Segment(options.segment_fd, options.segment_bytes)
    try:
        run(settings, segment, options)
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
