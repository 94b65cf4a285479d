"""Reads the COPY streams of the history back, byte by byte, by the documentation of the format."""

import struct

EPOCH_2000_S = 946_684_800
HEADER_BYTES = 19


def _minute(microseconds: int) -> int:
    return (microseconds // 1_000_000 + EPOCH_2000_S) // 60


def read_minutes(stream: bytes) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    """(minute, log_id) -> accepted, page_views, bot, late."""
    found, at = {}, HEADER_BYTES
    row = struct.Struct(">h iq ii iq iq iq iq")
    while stream[at : at + 2] != b"\xff\xff":
        columns, _, ts, _, log_id, _, accepted, _, views, _, bot, _, late = row.unpack_from(stream, at)
        assert columns == 6
        assert (_minute(ts), log_id) not in found
        found[(_minute(ts), log_id)] = (accepted, views, bot, late)
        at += row.size
    assert at + 2 == len(stream)
    return found


def read_pages(stream: bytes) -> dict[tuple[int, str], int]:
    """(minute, page) -> views."""
    found, at = {}, HEADER_BYTES
    while stream[at : at + 2] != b"\xff\xff":
        columns, _, ts = struct.unpack_from(">hiq", stream, at)
        assert columns == 3
        pages, at = _array(stream, at + 14, 25)
        views, at = _array(stream, at, 20)
        for page, count in zip(pages, views, strict=True):
            key = (_minute(ts), page.decode())
            assert key not in found
            found[key] = int.from_bytes(count, "big")
    assert at + 2 == len(stream)
    return found


def _array(stream: bytes, at: int, oid: int) -> tuple[list[bytes], int]:
    (length,) = struct.unpack_from(">i", stream, at)
    end = at + 4 + length
    dimensions, flags, kind, count, first = struct.unpack_from(">iiIii", stream, at + 4)
    assert (dimensions, flags, kind, first) == (1, 0, oid, 1)
    at += 24
    values = []
    for _ in range(count):
        (size,) = struct.unpack_from(">i", stream, at)
        values.append(stream[at + 4 : at + 4 + size])
        at += 4 + size
    assert at == end
    return values, at
