"""Memory of processes while something runs, looked at now and then by a thread.

A process's memory is its proportional set size: pages that several share count once over all of them, so that the
backends of Postgres do not each count its shared buffers. A server is its whole process tree, one of ours is itself.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

INTERVAL_S = 1.0
"""Reading it costs milliseconds a process: once a second is nothing beside what is measured."""


def memory_bytes(pid: int | None, tree: bool = False) -> int | None:
    """Of a process, or of it and all its children; None when it is not there or not to be looked at."""
    try:
        process = psutil.Process(pid) if pid else None
        if process is None:
            return None
        total = _own(process)
        for child in process.children(recursive=True) if tree else ():
            try:
                total += _own(child)
            except psutil.NoSuchProcess:
                continue
        return total
    except psutil.NoSuchProcess:
        return None


def _own(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except (psutil.AccessDenied, AttributeError):
        return process.memory_info().rss


def memory_of(servers: dict[str, int | None], ours: dict[str, int | None]) -> dict[str, int]:
    """Bytes by name of the servers' trees and of our own processes, of those that are there."""
    found = {name: memory_bytes(pid, tree=True) for name, pid in servers.items()}
    found |= {name: memory_bytes(pid) for name, pid in ours.items()}
    return {name: used for name, used in found.items() if used is not None}


@contextmanager
def most_memory(look: Callable[[], dict[str, int]]) -> Iterator[dict[str, int]]:
    """The most that `look` showed of each name while the `with` block ran; it is filled as that goes on."""
    most: dict[str, int] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(INTERVAL_S if most else 0):
            for name, used in look().items():
                most[name] = max(most.get(name, 0), used)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()
