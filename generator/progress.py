"""What a person sees while the generator runs: a live line on a terminal, else a plain line now and then.

State: the time of the last line. Everything goes to standard error; standard output is for the summary.
"""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from generator.run import Snapshot

LINE_INTERVAL_S = 5.0
LIVE_INTERVAL_S = 0.2


class Progress:
    """Call it with every snapshot; it shows as many as make sense."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._console = Console(stderr=True)
        live = self._console.is_terminal
        self._live = Live(console=self._console, auto_refresh=False) if live else None
        self._interval_s = LIVE_INTERVAL_S if live else LINE_INTERVAL_S
        self._shown_at = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if now - self._shown_at < self._interval_s:
            return
        self._shown_at = now
        if self._live:
            self._live.update(Text(line(self._topic, snapshot), overflow="ellipsis"), refresh=True)
        else:
            print(line(self._topic, snapshot), file=sys.stderr, flush=True)


def line(topic: str, snapshot: Snapshot) -> str:
    """The state of a run in one line."""
    target = f"{snapshot.asked_rate:,.0f}/s" if snapshot.asked_rate else "as fast as possible"
    parts = [
        f"{topic}: target {target}",
        f"reached {snapshot.reached_rate:,.0f}/s",
        f"sent {snapshot.sent:,}",
        f"delivered {snapshot.delivered:,}",
        f"failed {snapshot.failed:,}",
        f"{snapshot.seconds:,.0f} s",
    ]
    if snapshot.trouble and snapshot.delivered + snapshot.failed < snapshot.sent:
        parts.append(snapshot.trouble)
    return ", ".join(parts)
