"""Slices are asked for in a process of its own: the policy of the tests' process must stay what it is."""

import os
import subprocess
import sys

PROGRAM = """
import os, threading
from hotpath.scheduling import take_long_slices

assert take_long_slices(), "the kernel refuses"
policies = [os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)]
threading.Thread(target=lambda: policies.append(os.sched_getscheduler(0))).start()
print(*policies)
"""


def told_at(nice: int) -> list[int]:
    """What a process that runs at `nice` finds out about itself: its policy, its niceness, a later thread's policy."""
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(["nice", "-n", str(nice), *command], capture_output=True, text=True, check=True)
    return [int(number) for number in run.stdout.split()]


def test_a_process_and_its_later_threads_run_in_batch_as_nice_as_they_were():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert told_at(0) == [os.SCHED_BATCH, own, os.SCHED_BATCH]
    assert told_at(5) == [os.SCHED_BATCH, own + 5, os.SCHED_BATCH]
