"""Holds the ledger against the classes of the log: every range, every class, and that ranges adjoin.

State: the ledger row whose range is being read, and what was counted in it so far. Rows may be those of flushes or
merged ones. It also knows how many quarantine rows each range has, because what may be missing there depends on it:
a flush stores at most so many of a class, over all logs that it holds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from hotpath.events import CLASS_COUNT, QUARANTINED, EventClass
from hotpath.proof.findings import Findings


@dataclass(frozen=True)
class LedgerRow:
    """A row as stored; `counts` by EventClass."""

    log_id: int
    first_offset: int
    next_offset: int
    received: int
    counts: list[int]
    reason: str | None
    committed_at: datetime


@dataclass
class _Range:
    """What the log says of the range of one ledger row."""

    row: LedgerRow
    after: datetime | None
    """When the range before it was committed."""
    whole: bool
    """Whether the range is read from its first offset on."""
    counts: np.ndarray = field(default_factory=lambda: np.zeros(CLASS_COUNT, np.int64))
    stored: np.ndarray = field(default_factory=lambda: np.zeros(CLASS_COUNT, np.int64))
    unstored_first: dict[int, int] = field(default_factory=dict)
    """The first offset of each class that quarantine does not have."""


MayLack = Callable[[EventClass, LedgerRow, datetime | None], bool]
"""(class, ledger row, when the range before it was committed) to whether quarantine may lack rows of it."""


class LedgerCheck:
    """The ledger of one log. `rows`: its rows by offset, those of later logs may follow."""

    def __init__(
        self,
        log_id: int,
        partition: int,
        first_offset: int,
        rows: "LedgerRows",
        may_lack: MayLack,
        compacted: bool,
        findings: Findings,
    ) -> None:
        self._partition = partition
        self._first_offset = first_offset
        self._rows = rows.of(log_id)
        self._may_lack = may_lack
        self._compacted = compacted
        self._findings = findings
        self._range: _Range | None = None
        self._reached = first_offset
        """Where the ranges taken so far end."""
        self._after: datetime | None = None
        self._next_range()

    def add(self, offsets: np.ndarray, classes: np.ndarray, stored: np.ndarray) -> None:
        """Count messages: int64 offsets, uint8 classes, bool whether quarantine has a row of it; n each."""
        start = 0
        while start < offsets.size:
            while self._range is not None and offsets[start] >= self._range.row.next_offset:
                self._close()
            if self._range is None:
                return  # told at the end: the ledger does not reach partition_state's next_offset
            row = self._range.row
            if offsets[start] < row.first_offset:
                stop = int(np.searchsorted(offsets, row.first_offset))
                if self._after is None:  # a gap between two rows has been told already
                    self._uncounted(offsets[start:stop])
            else:
                stop = int(np.searchsorted(offsets, row.next_offset))
                self._count(self._range, *(each[start:stop] for each in (offsets, classes, stored)))
            start = stop

    def finish(self, next_offset: int, partition_next: int | None) -> None:
        """No more messages come: the log was read up to `next_offset`, which is the log's end if `partition_next`."""
        while self._range is not None and self._range.row.next_offset <= next_offset:
            self._close()
        if partition_next is not None and self._range is not None:
            self._reached = self._range.row.next_offset
        if partition_next is not None and self._reached != partition_next:
            self._findings.differ(
                "partition_state",
                self._partition,
                None,
                "next_offset",
                f"{self._reached}, where the ledger ends",
                partition_next,
            )

    @staticmethod
    def _count(here: _Range, offsets: np.ndarray, classes: np.ndarray, stored: np.ndarray) -> None:
        here.counts += np.bincount(classes, minlength=CLASS_COUNT)
        if stored.any():
            here.stored += np.bincount(classes[stored], minlength=CLASS_COUNT)
        unstored = np.flatnonzero(np.isin(classes, QUARANTINED) & ~stored)
        for row in unstored.tolist():
            here.unstored_first.setdefault(int(classes[row]), int(offsets[row]))

    def _uncounted(self, offsets: np.ndarray) -> None:
        self._findings.differ(
            "ledger",
            self._partition,
            int(offsets[0]),
            "",
            f"a row that counts it ({offsets.size:,} messages on end)",
            "none",
        )

    def _next_range(self) -> None:
        row = next(self._rows, None)
        if row is None:
            self._range = None
            return
        whole = row.first_offset >= self._first_offset
        if whole and row.first_offset != self._reached and self._after is not None:
            self._findings.differ(
                "ledger", self._partition, row.first_offset, "first_offset", self._reached, row.first_offset
            )
        self._range = _Range(row, self._after, whole)

    def _close(self) -> None:
        done = self._range
        row = done.row
        if done.whole:
            self._findings.check("ledger")
            if row.reason is not None:
                self._compare_loss(done)
            else:
                self._compare_counts(done)
                self._compare_stored(done)
        elif row.next_offset > self._first_offset:
            self._findings.note(
                f"partition {self._partition}: the counts of ledger row {row.first_offset:,} - {row.next_offset:,} "
                f"are not proven, it begins before offset {self._first_offset:,}"
            )
        self._reached, self._after = row.next_offset, row.committed_at
        self._next_range()

    def _compare_loss(self, done: _Range) -> None:
        row = done.row
        if not row.reason.strip():
            self._findings.differ(
                "ledger", self._partition, row.first_offset, "reason", "why the range was lost", "nothing"
            )
        if done.counts.any():
            self._findings.differ(
                "ledger",
                self._partition,
                row.first_offset,
                "reason",
                f"none: Kafka still has {int(done.counts.sum()):,} messages of the range",
                repr(row.reason),
            )

    def _compare_counts(self, done: _Range) -> None:
        row = done.row
        wanted = [("received", int(done.counts.sum()), row.received)]
        wanted += [(c.label, int(done.counts[c]), row.counts[c]) for c in EventClass]
        for name, expected, found in wanted:
            if found == expected or (self._compacted and found > expected):
                continue
            self._findings.differ(
                "ledger",
                self._partition,
                row.first_offset,
                name,
                f"{expected:,} up to offset {row.next_offset:,}",
                f"{found:,}",
            )

    def _compare_stored(self, done: _Range) -> None:
        for number, offset in done.unstored_first.items():
            event_class = EventClass(number)
            if not self._may_lack(event_class, done.row, done.after):
                self._findings.differ(
                    "quarantine",
                    self._partition,
                    offset,
                    "",
                    f"a row of class {event_class.label}",
                    f"none; the flush stored {int(done.stored[number]):,} of {int(done.counts[number]):,}",
                )


class LedgerRows:
    """The ledger's rows of several logs, handed out log by log; logs are asked for in the order of the rows."""

    def __init__(self, rows: Iterator[tuple]) -> None:
        self._rows = (LedgerRow(*row) for row in rows)
        self._next = next(self._rows, None)

    def of(self, log_id: int) -> Iterator[LedgerRow]:
        while self._next is not None and self._next.log_id < log_id:
            self._next = next(self._rows, None)
        while self._next is not None and self._next.log_id == log_id:
            row, self._next = self._next, next(self._rows, None)
            yield row
