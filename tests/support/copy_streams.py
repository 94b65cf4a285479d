"""Reads the binary COPY streams that the sink sends, column by column."""

import struct
from datetime import UTC, datetime

from hotpath.events import TEXT_FIELDS
from hotpath.workers.copy_format import HEADER, TRAILER

MICROSECONDS_2000 = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def parse(stream: memoryview | bytes | None) -> list[list[bytes]]:
    """Rows of a binary COPY stream, as lists of raw column values."""
    if stream is None:
        return []
    data = bytes(stream)
    assert data.startswith(HEADER) and data.endswith(TRAILER)
    at = len(HEADER)
    rows = []
    while (count := struct.unpack_from(">h", data, at)[0]) != -1:
        at += 2
        row = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            row.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        rows.append(row)
    assert at == len(data) - 2
    return rows


def parse_events(stream: memoryview | None) -> list[tuple]:
    """Rows of a stream of events: (log_id, offset, time_us, user_id, event_type, page_url, session_id)."""
    found = []
    for log_id, offset, ts, *texts in parse(stream):
        assert len(texts) == len(TEXT_FIELDS)
        numbers = [int.from_bytes(number, "big", signed=True) for number in (log_id, offset, ts)]
        found.append(
            (numbers[0], numbers[1], numbers[2] + MICROSECONDS_2000, *(text.decode() for text in texts))
        )
    return found
