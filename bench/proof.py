"""`hotpath verify` on what a benchmark has made, as its users would run it, and how fast it was."""

import json
import subprocess
import sys

from bench.harness import ROOT, Place, child_environment
from hotpath.errors import WorkersFailed


def verify(at: Place) -> dict[str, object]:
    """`messages` that were compared, and `messages_per_s`. Raises WorkersFailed when something is not proven."""
    done = subprocess.run(
        [sys.executable, "-m", "hotpath.verify", "--json"],
        env=child_environment(at.environment),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode not in (0, 1):
        raise WorkersFailed(f"hotpath verify ended with exit code {done.returncode}; see above")
    found = json.loads(done.stdout)
    if not found["proven"]:
        raise WorkersFailed(
            f"hotpath verify: {found['difference_counts']}, the first: {found['differences'][:3]}"
        )
    messages = found["checked"]["messages"]
    return {"messages": messages, "messages_per_s": round(messages / found["seconds"])}
