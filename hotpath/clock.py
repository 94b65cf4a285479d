"""The wall clock: the one place that reads it for the pipeline.

What it decides: `as_of`, when a block was opened, and `future` on topics without LogAppendTime. Deadlines, pauses and
heartbeats are on the monotonic clock, and no class of a message depends on either. State owned: the offset, which is
0 unless a file was named by `follow`: eight bytes, a signed number of microseconds in the machine's byte order, that
whoever maps the file may change at any moment. Tests set a process's clock by it.
"""

import time

import numpy as np

_offset_us = np.zeros(1, np.int64)


def follow(path: str) -> None:
    """From now on add what stands in this file; nothing when `path` is empty. Raises OSError and ValueError."""
    global _offset_us
    if path:
        _offset_us = np.memmap(path, np.int64, "r", shape=(1,))


def offset_us() -> int:
    """Microseconds by which this clock is ahead of the machine's."""
    return int(_offset_us[0])


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000 + offset_us()
