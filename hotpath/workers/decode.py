"""Decode: the bytes of a chunk of messages to columns of a block.

Decides the classes too_large, empty, not_json, not_object, missing_field and wrong_type; every other message
gets its strings into the arena, its hashes and its page-view flag. Pure: no I/O, no clock, no log. The only
state is a bounded cache of event types, which changes no result.

One orjson call parses a chunk, joined into one array. Between the elements stands a random string, the
sentinel, that no producer can know: when all of them are found in their places, exactly one JSON text lies
between any two, and so each message is exactly one JSON text. Without it `{"a":1` and `"b":2}` would merge.

Half a million small objects a second would wake Python's cyclic collector all the time. Nothing here makes a
cycle, so whoever runs this in a loop does well to switch the collector off.
"""

import re
import secrets
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import orjson

from hotpath.events import (
    FIELDS,
    MESSAGE_BYTES_MAX,
    PAGE_VIEW,
    TEXT_FIELDS,
    Detail,
    EventClass,
)
from hotpath.shm.block import LENGTH_BYTES, ROW_FIXED_BYTES, ROW_PREFIX_BYTES, Block
from hotpath.workers.texts import MARK, Texts

SEGMENT_MESSAGES = 32
"""When a chunk does not parse as a whole it is tried again in segments of so many messages; only those that
fail again are parsed message by message. With 10 faults in 2,000 messages: 0.55 µs a message, as with 16 (8: 0.59,
64: 0.60, 128: 0.71; without faults 0.35)."""

PARSED_BYTES_MAX = 1 << 20
"""Bytes of messages that a chunk may have in sum, unless it is one message: nested arrays take nearly 50 times their
bytes as objects. Chunks of ordinary traffic have a third of it."""

_SENTINEL = secrets.token_hex(16)
_SEPARATOR = f',"{_SENTINEL}",'.encode()
_JSON_SPACE = b" \t\n\r"

# What a message that is no event is read as from there on: strings that keep all columns aligned and take no
# bytes of the arena, and a timestamp that does not keep the others of its chunk from being parsed as one matrix.
_BLANK = {"timestamp": "2000-01-01T00:00:00Z"} | dict.fromkeys(TEXT_FIELDS, "")

_ROW_PREFIX = "." * ROW_PREFIX_BYTES
_ROW_PATTERN = [_ROW_PREFIX + MARK, "", MARK, "", MARK, "", MARK, ""]

# Any odd number with about half of its bits set; it keeps (a, b) and (b, a) apart.
_SESSION_MULTIPLIER = np.int64(-7046029254386353131)

_NOT_ALLOWED, _ALLOWED, _IS_PAGE_VIEW = range(3)


class _EventTypes(dict):
    """event_type to one of the codes above. There are few in use, so each is matched once."""

    entries_max = 4_096
    length_max = 64
    pattern = re.compile(r"[A-Za-z0-9_.-]{1,64}")

    def __missing__(self, event_type: str) -> int:
        if event_type == PAGE_VIEW:
            code = _IS_PAGE_VIEW
        else:
            code = _ALLOWED if self.pattern.fullmatch(event_type) else _NOT_ALLOWED
        if len(event_type) <= self.length_max:
            if len(self) >= self.entries_max:
                self.clear()
            self[event_type] = code
        return code


_EVENT_TYPES = _EventTypes()


def decode(values: list[bytes | None], block: Block) -> Texts:
    """Append one row per message to `block`, and return where their strings are.

    Fills classes, details, row_starts, row_lengths, lengths, the three hashes and page_views of the new rows,
    takes the arena that they need, and marks them as keeping no payload. Rows that are no events have
    row_starts -1. The prefix and the length of the strings in each arena row are left to whoever seals them.
    `values`: no more than PARSED_BYTES_MAX bytes, or memory has no bound. Raises ValueError when the block has no
    room (see `Block.fits`).
    """
    count = len(values)
    rows = slice(block.rows, block.rows + count)
    if rows.stop > block.capacity:
        raise ValueError(f"a block of {block.capacity} rows has no room for {count} more than {block.rows}")
    for column, unset in (
        (block.classes, EventClass.ACCEPTED),
        (block.details, Detail.NONE),
        (block.payload_starts, -1),
        (block.payload_lengths, 0),
        (block.payload_sizes, 0),
    ):
        column[rows] = unset
    classes, details = block.classes[rows], block.details[rows]
    documents = _documents(values, classes, details)
    columns = _columns(documents, classes, details)
    row_bytes, stamp_bytes = _join(columns, classes, details)
    _, user_ids, event_types, page_urls, session_ids = columns
    codes = np.frombuffer(bytes(map(_EVENT_TYPES.__getitem__, event_types)), np.uint8)
    block.page_views[rows] = codes == _IS_PAGE_VIEW
    user_hashes = _hashes(user_ids)
    block.user_hashes[rows] = user_hashes
    block.page_hashes[rows] = _hashes(page_urls)
    block.session_hashes[rows] = user_hashes * _SESSION_MULTIPLIER ^ _hashes(session_ids)
    texts = _place(block, rows, columns, row_bytes, stamp_bytes)
    block.rows = rows.stop
    return replace(texts, event_types_allowed=codes != _NOT_ALLOWED)


def _parse_joined(values: list[bytes | None]) -> list[Any] | None:
    """The documents of `values` by one call of the parser, or None when they need a closer look."""
    try:
        if max(map(len, values)) > MESSAGE_BYTES_MAX:
            return None
        elements = orjson.loads(b"[" + _SEPARATOR.join(values) + b"]")
    except (TypeError, ValueError):  # a null value; not JSON
        return None
    count = len(values)
    if len(elements) == 2 * count - 1 and elements[1::2].count(_SENTINEL) == count - 1:
        return elements[::2]
    return None


def _parse_one(value: bytes | None) -> tuple[Any, EventClass, Detail]:
    if value is None:
        return _BLANK, EventClass.EMPTY, Detail.VALUE_NULL
    if len(value) > MESSAGE_BYTES_MAX:
        return _BLANK, EventClass.TOO_LARGE, Detail.VALUE_TOO_LARGE
    try:
        return orjson.loads(value), EventClass.ACCEPTED, Detail.NONE
    except ValueError:
        if value.strip(_JSON_SPACE):
            return _BLANK, EventClass.NOT_JSON, Detail.JSON_INVALID
        return _BLANK, EventClass.EMPTY, Detail.VALUE_BLANK


def _documents(values: list[bytes | None], classes: np.ndarray, details: np.ndarray) -> list[Any]:
    """What each message parses to; `_BLANK`, and its class, for those that do not."""
    if not values:
        return []
    documents = _parse_joined(values)
    if documents is not None:
        return documents
    documents = []
    for start in range(0, len(values), SEGMENT_MESSAGES):
        segment = values[start : start + SEGMENT_MESSAGES]
        parsed = _parse_joined(segment)
        if parsed is None:
            parsed = []
            for row, value in enumerate(segment, start):
                document, event_class, detail = _parse_one(value)
                parsed.append(document)
                if detail:
                    classes[row], details[row] = event_class, detail
        documents += parsed
    return documents


def _columns(documents: list[Any], classes: np.ndarray, details: np.ndarray) -> list[list[Any]]:
    """The five fields as lists, None where one is absent; documents that are no objects become `_BLANK`."""
    try:
        return [[document[field] for document in documents] for field in FIELDS]
    except (KeyError, TypeError):
        pass
    for row, document in enumerate(documents):
        if type(document) is not dict:
            documents[row] = _BLANK
            classes[row], details[row] = EventClass.NOT_OBJECT, Detail.JSON_NOT_OBJECT
    return [[document.get(field) for document in documents] for field in FIELDS]


def _join(columns: list[list[Any]], classes: np.ndarray, details: np.ndarray) -> tuple[bytes, bytes]:
    """The arena rows and the timestamps as bytes; rows with a field that is no string are made blank."""
    try:
        return _join_strings(columns)
    except TypeError:  # str.join has looked at the type of every element for us
        _blank_non_strings(columns, classes, details)
        return _join_strings(columns)


def _join_strings(columns: list[list[str]]) -> tuple[bytes, bytes]:
    stamps, *strings = columns
    pieces = _ROW_PATTERN * len(stamps)
    for index, column in enumerate(strings):
        pieces[2 * index + 1 :: len(_ROW_PATTERN)] = column
    # The last timestamp gets its newline by an empty one after it.
    return "".join(pieces).encode(), "\n".join([*stamps, ""]).encode()


def _blank_non_strings(columns: list[list[Any]], classes: np.ndarray, details: np.ndarray) -> None:
    missing: dict[int, int] = {}
    wrong: dict[int, int] = {}
    for index, column in enumerate(columns):
        if set(map(type, column)) != {str}:
            for row, value in enumerate(column):
                if type(value) is not str:
                    (missing if value is None else wrong).setdefault(row, index)
    for row in missing.keys() | wrong.keys():
        if row in missing:  # comes first, whichever fields have the two faults
            classes[row], details[row] = EventClass.MISSING_FIELD, Detail.MISSING + missing[row]
        else:
            classes[row], details[row] = EventClass.WRONG_TYPE, Detail.NOT_STRING + wrong[row]
        for column, blank in zip(columns, _BLANK.values(), strict=True):
            column[row] = blank


def _place(
    block: Block, rows: slice, columns: list[list[str]], row_bytes: bytes, stamp_bytes: bytes
) -> Texts:
    """Copy the rows into the arena and set where they and their strings are."""
    stamps, *strings = columns
    count = len(stamps)
    at = block.arena_used
    if at + len(row_bytes) > block.arena.size:
        raise ValueError(f"an arena of {block.arena.size} bytes has no room for {len(row_bytes)} after {at}")
    region = np.frombuffer(row_bytes, np.uint8)
    block.arena[at : at + region.size] = region
    block.arena_used = at + region.size

    marks = np.flatnonzero(region < 0x20)
    if marks.size == len(TEXT_FIELDS) * count:
        # Only our own marks: string f of a row reaches from behind mark f to the next one, the last string
        # to the next row, whose first mark stands behind its prefix.
        ends = np.append(marks[1:], region.size + ROW_PREFIX_BYTES)
        ends[len(TEXT_FIELDS) - 1 :: len(TEXT_FIELDS)] -= ROW_PREFIX_BYTES
        lengths = np.ascontiguousarray((ends - marks - LENGTH_BYTES).reshape(count, len(TEXT_FIELDS)).T)
    else:
        lengths = _encoded_lengths(strings)
    row_lengths = lengths.sum(axis=0) + ROW_FIXED_BYTES
    starts = np.cumsum(row_lengths) - row_lengths
    string_starts = np.empty_like(lengths)
    string_starts[0] = starts + (ROW_PREFIX_BYTES + LENGTH_BYTES)
    for field in range(1, len(TEXT_FIELDS)):
        string_starts[field] = string_starts[field - 1] + lengths[field - 1] + LENGTH_BYTES
    block.lengths[:, rows] = lengths
    block.row_lengths[rows] = row_lengths
    block.row_starts[rows] = np.where(block.classes[rows] == EventClass.ACCEPTED, starts + at, -1)

    stamp_marks = np.flatnonzero(np.frombuffer(stamp_bytes, np.uint8) < 0x20)
    stamp_ends = stamp_marks
    if stamp_marks.size != count:
        stamp_ends = np.cumsum(_encoded_lengths([stamps])[0] + 1) - 1
    stamp_starts = np.zeros(count, np.int64)
    stamp_starts[1:] = stamp_ends[:-1] + 1
    return Texts(
        rows=rows,
        row_bytes=row_bytes,
        starts=starts,
        string_starts=string_starts,
        marks=marks,
        stamp_bytes=stamp_bytes,
        stamp_starts=stamp_starts,
        stamp_lengths=stamp_ends - stamp_starts,
        stamp_marks=stamp_marks,
        event_types_allowed=np.zeros(0, np.bool_),
    )


def _encoded_lengths(columns: list[list[str]]) -> np.ndarray:
    """int64, (columns, rows): bytes of each string as UTF-8."""
    flat = map(len, map(str.encode, chain.from_iterable(columns)))
    return np.fromiter(flat, np.int64, sum(map(len, columns))).reshape(len(columns), -1)


def _hashes(column: list[str]) -> np.ndarray:
    """int64: Python's own hash, which is SipHash under a key per process, so nobody can aim at a collision.

    Two of a million keys collide with a chance of about 1 in 37 million (n² / 2^65).
    """
    return np.fromiter(map(hash, column), np.int64, len(column))
