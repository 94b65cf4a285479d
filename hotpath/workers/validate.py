"""Validate: the columns of decoded events to the classes bad_value, bad_timestamp and future.

Pure: no I/O, no clock, no log, no state. Each rule first asks one question of the whole chunk (the longest
id, any space at all) and looks for rows only when the answer is unusual, so that a clean chunk costs a few
numpy calls. Rules are applied in the order of their `Detail` codes within a class; a row keeps the first.
"""

from dataclasses import dataclass

import numpy as np

from hotpath.events import (
    FIELDS,
    ID_BYTES_MAX,
    PAGE_URL_BYTES_MAX,
    PAGE_URL_PREFIXES,
    TEXT_FIELDS,
    Detail,
    EventClass,
)
from hotpath.settings import Rules
from hotpath.shm.block import Block
from hotpath.workers.texts import Texts
from hotpath.workers.timestamps import parse_timestamps

_USER_ID, _EVENT_TYPE, _PAGE_URL, _SESSION_ID = range(len(TEXT_FIELDS))
_BYTES_MAX = {_USER_ID: ID_BYTES_MAX, _PAGE_URL: PAGE_URL_BYTES_MAX, _SESSION_ID: ID_BYTES_MAX}
_SPACE, _DELETE = b" ", b"\x7f"
FOUND_SINGLY_MAX = 50
"""Bytes that are looked for one after the other: 0.2 µs each, and 3 µs for a chunk of 2,000; by numpy it takes 60, and
bytes.count takes 50."""
_FIRST_TEXT = FIELDS.index(TEXT_FIELDS[0])
"""How far the fields' numbers in `Detail` are ahead of those in TEXT_FIELDS."""
_LONG_PREFIXES = [np.frombuffer(p.encode(), np.uint8) for p in PAGE_URL_PREFIXES if len(p) > 1]


class _Refusals:
    """The classes and details of a chunk, of which each row keeps the first fault that is found."""

    def __init__(self, block: Block, rows: slice) -> None:
        self.classes = block.classes[rows]
        self.details = block.details[rows]

    def add(self, rows: np.ndarray, event_class: EventClass, details: int | np.ndarray) -> None:
        """Refuse `rows` (distinct indices into the chunk) that stand as accepted."""
        if not rows.size:
            return
        standing = self.classes[rows] == EventClass.ACCEPTED
        rows = rows[standing]
        self.classes[rows] = event_class
        self.details[rows] = details[standing] if isinstance(details, np.ndarray) else details


def validate(block: Block, texts: Texts, append_times_us: np.ndarray, rules: Rules) -> None:
    """Refuse rows of a decoded chunk whose values are not allowed; fill `times_us` of all its rows.

    `append_times_us`: int64, one per row of the chunk, microseconds since 1970. Rows refused before keep
    their class; the time of a row without a good timestamp is 0.
    """
    if texts.count == 0:
        return
    refusals = _Refusals(block, texts.rows)
    _refuse_bad_values(block, texts, refusals)
    times_us, faults = parse_timestamps(
        np.frombuffer(texts.stamp_bytes, np.uint8), texts.stamp_starts, texts.stamp_lengths
    )
    block.times_us[texts.rows] = times_us
    if faults.any():
        rows = np.flatnonzero(faults)
        refusals.add(rows, EventClass.BAD_TIMESTAMP, faults[rows])
    ahead = times_us > append_times_us + rules.future_max_s * 1_000_000
    if ahead.any():
        refusals.add(np.flatnonzero(ahead), EventClass.FUTURE, Detail.TIMESTAMP_AHEAD)


def _refuse_bad_values(block: Block, texts: Texts, refusals: _Refusals) -> None:
    lengths = block.lengths[:, texts.rows]

    def refuse(rows: np.ndarray, detail: int) -> None:
        refusals.add(rows, EventClass.BAD_VALUE, detail)

    if texts.stamp_lengths.min() == 0:
        refuse(np.flatnonzero(texts.stamp_lengths == 0), Detail.FIELD_EMPTY)
    if lengths.min() == 0:
        # Messages that are no events have nothing but empty strings: nearly always it is only them.
        empty = np.flatnonzero((lengths == 0).any(axis=0) & (refusals.classes == EventClass.ACCEPTED))
        if empty.size:
            for field in range(len(TEXT_FIELDS)):
                refuse(empty[lengths[field, empty] == 0], Detail.FIELD_EMPTY + _FIRST_TEXT + field)
    refuse(_stamps_with_control_characters(texts), Detail.CONTROL_CHARACTER)
    controls = _control_characters(texts, lengths)
    if controls.rows.size:
        for field in range(len(TEXT_FIELDS)):
            refuse(controls.rows_of(field), Detail.CONTROL_CHARACTER + _FIRST_TEXT + field)
    for field, bytes_max in _BYTES_MAX.items():
        if lengths[field].max() > bytes_max:
            refuse(np.flatnonzero(lengths[field] > bytes_max), Detail.TOO_LONG + _FIRST_TEXT + field)
    spaces = _locate(_positions(texts.row_bytes, _SPACE), texts, lengths)
    if spaces.rows.size:
        for field in (_USER_ID, _SESSION_ID):
            refuse(spaces.outer_rows_of(field, lengths), Detail.OUTER_SPACE + _FIRST_TEXT + field)
    if not texts.event_types_allowed.all():
        refuse(np.flatnonzero(~texts.event_types_allowed), Detail.EVENT_TYPE_PATTERN)
    refuse(spaces.rows_of(_PAGE_URL), Detail.PAGE_URL_SPACE)
    refuse(_rows_with_bad_prefix(texts), Detail.PAGE_URL_PREFIX)


@dataclass(frozen=True, slots=True)
class _Places:
    """Bytes that were looked for, as places inside strings: parallel int64 arrays."""

    rows: np.ndarray
    fields: np.ndarray
    within: np.ndarray
    """Where in its string each byte stands."""

    def rows_of(self, field: int) -> np.ndarray:
        """The rows that have such a byte in `field`, some of them repeatedly."""
        return self.rows[self.fields == field]

    def outer_rows_of(self, field: int, lengths: np.ndarray) -> np.ndarray:
        """The rows whose `field` begins or ends with such a byte."""
        outer = (self.within == 0) | (self.within == lengths[self.fields, self.rows] - 1)
        return self.rows[(self.fields == field) & outer]


_NO_PLACES = _Places(*[np.zeros(0, np.int64)] * 3)


def _positions(data: bytes, byte: bytes) -> np.ndarray:
    """int64: where `byte` stands in `data`. Nearly always nowhere or in a few places, which bytes find much faster."""
    positions: list[int] = []
    at = data.find(byte)
    while at >= 0:
        positions.append(at)
        if len(positions) > FOUND_SINGLY_MAX:
            return np.flatnonzero(np.frombuffer(data, np.uint8) == byte[0])
        at = data.find(byte, at + 1)
    return np.array(positions, np.int64)


def _locate(positions: np.ndarray, texts: Texts, lengths: np.ndarray) -> _Places:
    """Which of `positions` in `texts.row_bytes` are inside strings, and of which rows and fields."""
    if positions.size == 0:
        return _NO_PLACES
    rows = np.searchsorted(texts.starts, positions, side="right") - 1
    fields = (texts.string_starts[:, rows] <= positions).sum(axis=0) - 1
    within = positions - texts.string_starts[fields, rows]
    # What stands before a row's first string or behind the end of a string is no part of any.
    inside = (fields >= 0) & (within < lengths[fields, rows])
    return _Places(rows[inside], fields[inside], within[inside])


def _control_characters(texts: Texts, lengths: np.ndarray) -> _Places:
    deletes = _positions(texts.row_bytes, _DELETE)
    if not deletes.size and not texts.controls.size:
        return _NO_PLACES
    return _locate(np.concatenate([texts.controls, deletes]), texts, lengths)


def _stamps_with_control_characters(texts: Texts) -> np.ndarray:
    positions = _positions(texts.stamp_bytes, _DELETE)
    if texts.stamp_marks.size > texts.count:
        positions = np.concatenate([texts.stamp_marks, positions])
    if not positions.size:
        return positions
    rows = np.searchsorted(texts.stamp_starts, positions, side="right") - 1
    return rows[positions - texts.stamp_starts[rows] < texts.stamp_lengths[rows]]


def _rows_with_bad_prefix(texts: Texts) -> np.ndarray:
    """Rows whose page_url begins with none of PAGE_URL_PREFIXES. Empty ones may be among them or not."""
    region = np.frombuffer(texts.row_bytes, np.uint8)
    starts = texts.string_starts[_PAGE_URL]
    # Behind each page_url stands the mark of session_id, which is in no prefix: reading on past the end of a
    # short one finds nothing.
    rows = np.flatnonzero(region[starts] != ord("/"))
    if rows.size == 0:
        return rows
    good = np.zeros(rows.size, np.bool_)
    for prefix in _LONG_PREFIXES:
        heads = region.take(starts[rows][:, np.newaxis] + np.arange(prefix.size), mode="clip")
        good |= (heads == prefix).all(axis=1)
    return rows[~good]
