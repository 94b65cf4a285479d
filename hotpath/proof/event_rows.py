"""Compares the rows of `events` or `late_events` with what the log says, byte by byte.

Both sides are rows in the layout of a binary COPY, in the order of logs and offsets. A chunk whose bytes are equal
is done with one comparison; only where they are not are rows taken apart and joined by their offsets.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from hotpath.events import EPOCH_2000_US, FIELDS, EventClass
from hotpath.proof.findings import GONE, Findings, shown
from hotpath.proof.snapshot import RowStream
from hotpath.shm.block import ROW_PREFIX_BYTES, Block
from hotpath.workers.copy_format import COLUMNS, HEADER, TRAILER, CopyBuffer, event_rows

_PREFIX = struct.Struct(">h ii iq iq")
_LENGTH = struct.Struct(">i")
_EPOCH_2000 = datetime(2000, 1, 1, tzinfo=UTC)
assert _PREFIX.size == ROW_PREFIX_BYTES


@dataclass(frozen=True)
class Row:
    """One row, taken apart. `time_us`: microseconds since 1970."""

    log_id: int
    offset: int
    time_us: int
    texts: tuple[bytes, ...]
    nbytes: int

    def fields(self) -> dict[str, str]:
        moment = _EPOCH_2000 + timedelta(microseconds=self.time_us - EPOCH_2000_US)
        return dict(zip(FIELDS, (moment.isoformat(), *map(shown, self.texts)), strict=True))


def row_at(data: memoryview | bytes, at: int) -> Row:
    """The row that begins at byte `at`; all of it must be there."""
    columns, _, log_id, _, offset, _, ts = _PREFIX.unpack_from(data, at)
    assert columns == COLUMNS
    position, texts = at + ROW_PREFIX_BYTES, []
    for _ in range(len(FIELDS) - 1):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        texts.append(bytes(data[position : position + length]))
        position += length
    return Row(log_id, offset, ts + EPOCH_2000_US, tuple(texts), position - at)


ROW_BYTES_MAX = 4_096
"""More than any row has: the lengths that the table allows add up to 2,368 bytes."""


class EventRows:
    """One table. `stream` must hold the rows of the logs that are compared, in the order in which they are."""

    def __init__(
        self, table: str, event_class: EventClass, stream: RowStream, compacted: bool, findings: Findings
    ) -> None:
        """`compacted`: Kafka may have removed messages that it once had."""
        self.table = table
        self._compacted = compacted
        self._event_class = event_class
        self._stream = stream
        self._findings = findings
        self._buffer = CopyBuffer()

    def compare(self, block: Block, partition: int, excused: np.ndarray) -> None:
        """Compare the rows of a block of one log, whose rows are sealed.

        excused: bool, one per row of the block: rows that retention may have taken.
        """
        expected = memoryview(b"")
        rows = event_rows(block, self._event_class, self._buffer)
        if rows is not None:
            expected = memoryview(rows)[len(HEADER) : -len(TRAILER)]
            self._findings.check(self.table, int((block.classes[: block.rows] == self._event_class).sum()))
        stored = self._stream.ahead(len(expected))
        if len(stored) == len(expected) and np.array_equal(
            np.frombuffer(stored, np.uint8), np.frombuffer(expected, np.uint8)
        ):
            self._stream.skip(len(expected))
            if expected:
                return
        self._join(block, partition, expected, excused)

    def finish(self, log_id: int, partition: int) -> None:
        """No more messages of a log come: what is left of it has none."""
        rows = list(self._rows(log_id, 1 << 62))
        self._stream.skip(sum(row.nbytes for row in rows))
        for row in rows:
            self._without_message(partition, row.offset)

    def _without_message(self, partition: int, offset: int) -> None:
        if self._compacted:
            self._findings.note(GONE)
        else:
            self._findings.differ(
                self.table, partition, offset, "", "none, the log has no message there", "a row"
            )

    def stored_offsets(self, log_id: int, last_offset: int) -> set[int]:
        """The offsets of the rows that come next, up to `last_offset`; they still stand to be compared."""
        return {row.offset for row in self._rows(log_id, last_offset)}

    def _rows(self, log_id: int, last_offset: int) -> Iterator[Row]:
        """The next rows of a log up to an offset, without going on."""
        ahead, at, wanted = memoryview(b""), 0, 0
        while True:
            if len(ahead) - at < ROW_BYTES_MAX and len(ahead) == wanted:
                wanted = at + 64 * ROW_BYTES_MAX
                ahead = self._stream.ahead(wanted)
            if at >= len(ahead):
                return
            row = row_at(ahead, at)
            if row.log_id != log_id or row.offset > last_offset:
                return
            at += row.nbytes
            yield row

    def _join(self, block: Block, partition: int, expected: memoryview, excused: np.ndarray) -> None:
        log_id = int(block.logs["log_id"][0])
        offsets = block.offsets[: block.rows]
        stored = list(self._rows(log_id, int(offsets[-1])))
        self._stream.skip(sum(row.nbytes for row in stored))
        by_offset: dict[int, Row] = {}
        for row in stored:
            if row.offset in by_offset:
                self._findings.differ(self.table, partition, row.offset, "", "one row", "one more")
            else:
                by_offset[row.offset] = row
        at = 0
        while at < len(expected):
            wanted = row_at(expected, at)
            at += wanted.nbytes
            found = by_offset.pop(wanted.offset, None)
            if found is None:
                if not excused[np.searchsorted(offsets, wanted.offset)]:
                    self._findings.differ(self.table, partition, wanted.offset, "", "a row", "none")
                continue
            here = found.fields()
            for field, value in wanted.fields().items():
                if here[field] != value:
                    self._findings.differ(self.table, partition, wanted.offset, field, value, here[field])
        for offset in by_offset:
            row = int(np.searchsorted(offsets, offset))
            if offsets[row] == offset:
                label = EventClass(int(block.classes[row])).label
                self._findings.differ(
                    self.table, partition, offset, "", f"none, the message is {label}", "a row"
                )
            else:
                self._without_message(partition, offset)
