"""Compares the history by minute with the log: `history_minutes` with the messages, `history_pages` with those sums.

State owned: what was counted of one log, four numbers a minute. `history_pages` is not by log, so its page views are
compared as a whole, minute by minute, with those that `history_minutes` has of all logs in the same snapshot.
"""

from collections import defaultdict
from datetime import UTC, datetime

from hotpath.proof.findings import Findings
from hotpath.proof.snapshot import Snapshot
from hotpath.shm.block import Block
from hotpath.workers.history import minute_counts

MINUTE_S = 60


class HistoryCheck:
    """The minutes of one log, which must have been read from its beginning."""

    def __init__(self, log_id: int, partition: int, kept_since: datetime, findings: Findings) -> None:
        """`kept_since`: minutes before it may have been removed by retention."""
        self._log_id = log_id
        self._partition = partition
        self._kept_since_s = int(kept_since.timestamp())
        self._findings = findings
        self._counted: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, block: Block) -> None:
        """Count a block of this log."""
        found = minute_counts(block)
        if found is None:
            return
        for name, counts in found.counts.items():
            for minute, count in zip(found.minutes.tolist(), counts.tolist(), strict=True):
                self._counted[minute][name] += count

    def compare(self, snapshot: Snapshot) -> None:
        """Compare with the rows, once the log has been read to where Postgres is."""
        stored = {
            minute: dict(zip(("accepted", "page_views", "bot", "late"), counts, strict=True))
            for minute, *counts in snapshot.query("proof_history_minutes", log_id=self._log_id)
        }
        for minute in sorted(self._counted.keys() | stored.keys()):
            self._findings.check("history_minutes")
            expected, found = self._counted.get(minute, {}), stored.get(minute, {})
            if minute * MINUTE_S < self._kept_since_s:
                continue
            for name in expected.keys() | found.keys():
                wanted, here = expected.get(name, 0), found.get(name, 0)
                if wanted != here:
                    field = f"{name} of {named(minute)}"
                    self._findings.differ("history_minutes", self._partition, None, field, wanted, here)


def compare_pages(snapshot: Snapshot, kept_since: datetime, findings: Findings) -> None:
    """Whether the page views by page add up to those by log, minute by minute."""
    for minute, by_log, by_page in snapshot.query("proof_history_pages", since=kept_since):
        findings.check("history_pages")
        if by_log != by_page:
            findings.differ("history_pages", None, None, f"views of {named(minute)}", by_log, by_page)


def named(minute: int) -> str:
    """A minute since 1970 as people write it."""
    return f"{datetime.fromtimestamp(minute * MINUTE_S, UTC):%Y-%m-%dT%H:%MZ}"
