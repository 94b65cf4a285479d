"""Why rows may be missing from Postgres without a fault: retention took them, or a flush stored no more of their class.

State owned: what has been asked of Postgres about the flush of a ledger row.
"""

from datetime import datetime, timedelta

import numpy as np

from hotpath.events import EventClass
from hotpath.proof.findings import Findings
from hotpath.proof.ledger import LedgerRow
from hotpath.proof.snapshot import Snapshot
from hotpath.settings import PipelineSettings
from hotpath.shm.block import Block

_DAY_US = 86_400_000_000


class Absences:
    """Of one log, as of `now`."""

    def __init__(
        self,
        partition: int,
        settings: PipelineSettings,
        now: datetime,
        snapshot: Snapshot,
        findings: Findings,
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._now = now
        self._snapshot = snapshot
        self._findings = findings
        self._capped: dict[tuple[EventClass, int], bool] = {}

    def kept_since(self, days: int) -> datetime:
        """The time from which on rows are kept that are kept for so many days."""
        return self._now - timedelta(days=days)

    def expired(self, block: Block, append_times_us: np.ndarray) -> np.ndarray:
        """Rows of events of a block that retention may have removed: bool. Append times of -1 are not known."""
        count = block.rows
        late = block.classes[:count] == EventClass.LATE
        days = np.where(late, self._settings.retention_late_days, self._settings.retention_events_days)
        before_us = int(self._now.timestamp() * 1_000_000) - days * _DAY_US
        # Late events are removed by the time they were stored; the others by their own, once they were there so long.
        old = np.where(late, append_times_us >= 0, block.times_us[:count] < before_us)
        old &= append_times_us < before_us
        if old.any():
            self._findings.note(
                f"partition {self._partition}: events older than their retention may be missing from Postgres"
            )
        return old

    def may_lack(self, event_class: EventClass, row: LedgerRow, after: datetime | None) -> bool:
        """Whether quarantine may lack messages of a class of the range of a ledger row. `after`: see ledger.MayLack."""
        if row.committed_at < self.kept_since(self._settings.retention_quarantine_days):
            self._findings.note("quarantine rows older than their retention may be missing")
            return True
        key = (event_class, row.first_offset)
        if key not in self._capped:
            # The flush began after the range before it was committed, and stored its rows before it ended.
            after = after or datetime.min.replace(tzinfo=row.committed_at.tzinfo)
            span = {"class": event_class.label, "after": after, "until": row.committed_at}
            most = self._snapshot.query("proof_flush_cap", **span)[0][0]
            self._capped = {key: most >= self._settings.quarantine_rows_max}
        return self._capped[key]
