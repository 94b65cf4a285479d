"""Compares what quarantine has of refused messages with the messages.

A row that is stored must be right in every column. Which rows may be missing is the ledger's matter (see ledger.py).
One kind of row is accepted as it stands, because no rule decides it: an event that Postgres itself refused, which
must be named by exactly that detail, and whose kept bytes are its COPY row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hotpath.events import DETAIL_TEXTS, QUARANTINED, Detail, EventClass
from hotpath.proof.findings import GONE, Findings, shown
from hotpath.shm.block import Block
from hotpath.workers.postgres_sink import refuse_rows

_LABELS = {int(c): c.label for c in EventClass}
_REFUSED_BY_POSTGRES = DETAIL_TEXTS[Detail.ROW_REFUSED]


class StoredRow(NamedTuple):
    """A row of the table."""

    log_id: int
    offset: int
    event_class: str
    detail: str
    payload: bytes
    payload_size: int


@dataclass
class QuarantineRows:
    """`rows`: those of the logs that are compared, by log and offset."""

    rows: Iterator[tuple]
    compacted: bool
    findings: Findings

    def __post_init__(self) -> None:
        self._next = self._read()

    def _read(self) -> StoredRow | None:
        row = next(self.rows, None)
        return None if row is None else StoredRow(*row)

    def take(self, log_id: int, last_offset: int) -> list[StoredRow]:
        """The next rows of a log, up to an offset."""
        taken = []
        while (row := self._next) is not None and row.log_id <= log_id:
            if row.log_id == log_id and row.offset > last_offset:
                break
            if row.log_id == log_id:
                taken.append(row)
            self._next = self._read()
        return taken

    def compare(self, block: Block, partition: int, stored: Sequence[StoredRow]) -> np.ndarray:
        """Compare stored rows with a block of one log; bool, one per row of the block: whether it has one."""
        count = block.rows
        has = np.zeros(count, np.bool_)
        for row in stored:
            index = int(np.searchsorted(block.offsets[:count], row.offset))
            if index >= count or block.offsets[index] != row.offset:
                self._without_message(partition, row)
            elif block.classes[index] not in QUARANTINED:
                label = _LABELS[int(block.classes[index])]
                self._differ(
                    partition, row, "", f"none, the message is {label}", f"a row of class {row.event_class}"
                )
            elif has[index]:
                self._differ(partition, row, "", "one row", "one more")
            else:
                has[index] = True
                self._compare_row(block, partition, index, row)
        self.findings.check("quarantine", len(stored))
        return has

    def finish(self, log_id: int, partition: int) -> None:
        """No more messages of a log come: what is left of it has none."""
        for row in self.take(log_id, 1 << 62):
            self._without_message(partition, row)

    def _without_message(self, partition: int, row: StoredRow) -> None:
        if self.compacted:
            self.findings.note(GONE)
        else:
            self._differ(partition, row, "", "none, the log has no message there", "a row")

    def _compare_row(self, block: Block, partition: int, index: int, row: StoredRow) -> None:
        wanted = {
            "class": (_LABELS[int(block.classes[index])], row.event_class),
            "detail": (repr(DETAIL_TEXTS[int(block.details[index])]), repr(row.detail)),
            "payload": (shown(block.payload(index)), shown(row.payload)),
            "payload_size": (int(block.payload_sizes[index]), row.payload_size),
        }
        for field, (expected, found) in wanted.items():
            if expected != found:
                self._differ(partition, row, field, expected, found)

    def _differ(self, partition: int, row: StoredRow, field: str, expected: object, found: object) -> None:
        self.findings.differ("quarantine", partition, row.offset, field, expected, found)


def future_rows(offsets: np.ndarray, stored: Sequence[StoredRow]) -> np.ndarray:
    """Which messages (int64 offsets) quarantine holds as `future`: bool, one each."""
    wanted = [row.offset for row in stored if row.event_class == EventClass.FUTURE.label]
    return np.isin(offsets, wanted)


def refuse_as_postgres(block: Block, stored: Sequence[StoredRow]) -> int:
    """Make bad_value the events of a sealed block that Postgres is said to have refused; how many these are."""
    named = [row.offset for row in stored if row.detail == _REFUSED_BY_POSTGRES]
    if not named:
        return 0
    offsets, classes = block.offsets[: block.rows], block.classes[: block.rows]
    events = np.isin(classes, (EventClass.ACCEPTED, EventClass.LATE))
    rows = np.flatnonzero(events & np.isin(offsets, named)).tolist()
    refuse_rows(block, rows)
    return len(rows)
