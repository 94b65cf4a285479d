"""Decode: the bytes of a chunk of messages to columns of a block.

Decides the classes too_large, empty, not_json, not_object, missing_field and wrong_type; every other message
gets its strings into the arena, its hashes and its page-view flag. Pure: no I/O, no clock, no log. The only
state is a bounded cache of event types, which changes no result.

One orjson call parses a segment of a chunk, joined into one array. Between the elements stands a random string, the
sentinel, that no producer can know: when all of them are found in their places, exactly one JSON text lies
between any two, and so each message is exactly one JSON text. Without it `{"a":1` and `"b":2}` would merge.

Half a million small objects a second would wake Python's cyclic collector all the time. Nothing here makes a
cycle, so whoever runs this in a loop does well to switch the collector off.
"""

import re
import secrets
from collections.abc import Callable
from operator import itemgetter
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
from hotpath.shm.block import Block
from hotpath.workers.texts import MARK, ROW_HEAD, Texts, place

SEGMENT_MESSAGES = 64
"""Messages of one call of the parser. One fault spoils a call, and a chunk of 2,000 of ordinary traffic has three:
tried as a whole first it takes 0.47 µs a message, in segments 0.35. Clean ones take 0.34 in segments of 32 to 512 and
as a whole."""

PIECE_MESSAGES = 8
"""A segment that does not parse is tried again in pieces of so many, and those that fail message by message."""

ROWS_JOINED = 64
"""Rows joined and encoded at once, so that the text is still in the L1 cache when it is encoded: 0.10 µs a row, with
128 as well; all at once 0.14."""

PARSED_BYTES_MAX = 1 << 20
"""Bytes of messages that a chunk may have in sum, unless it is one message: nested arrays take nearly 50 times their
bytes as objects. Chunks of ordinary traffic have a third of it."""

_SENTINEL = secrets.token_hex(16)
_SEPARATOR = f',"{_SENTINEL}",'.encode()
_JSON_SPACE = b" \t\n\r"

# What a message that is no event is read as from there on: strings that keep all columns aligned and take no
# bytes of the arena, and a timestamp that does not keep the others of its chunk from being parsed as one matrix.
_BLANK = {"timestamp": "2000-01-01T00:00:00Z"} | dict.fromkeys(TEXT_FIELDS, "")
_BLANKS = tuple(_BLANK.values())
_BLANK_ROW = MARK.join(_BLANKS[1:])

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


Lap = Callable[[str], None]
"""Is told which of the stages (`shm.control.STAGES`) has just ended: for whoever accounts for their time."""


def no_lap(stage: str) -> None:
    """Nobody does."""


def decode(values: list[bytes | None], block: Block, lap: Lap = no_lap) -> Texts:
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
    lap("parse")
    columns = _columns(documents, classes, details)
    row_bytes, stamp_bytes = _join(columns, documents, classes, details)
    _, user_ids, event_types, page_urls, session_ids = columns
    codes = np.frombuffer(bytes(map(_EVENT_TYPES.__getitem__, event_types)), np.uint8)
    block.page_views[rows] = codes == _IS_PAGE_VIEW
    user_hashes = _hashes(user_ids)
    block.user_hashes[rows] = user_hashes
    block.page_hashes[rows] = _hashes(page_urls)
    block.session_hashes[rows] = user_hashes * _SESSION_MULTIPLIER ^ _hashes(session_ids)
    texts = place(block, rows, columns, row_bytes, stamp_bytes, codes != _NOT_ALLOWED)
    block.rows = rows.stop
    lap("columns")
    return texts


def _parse_joined(values: list[bytes | None]) -> list[Any] | None:
    """The documents of `values` by one call of the parser, or None when they need a closer look."""
    try:
        text = b"[" + _SEPARATOR.join(values) + b"]"
        if len(text) > MESSAGE_BYTES_MAX and max(map(len, values)) > MESSAGE_BYTES_MAX:
            return None
        elements = orjson.loads(text)
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
    documents: list[Any] = []
    for start in range(0, len(values), SEGMENT_MESSAGES):
        segment = values[start : start + SEGMENT_MESSAGES]
        documents += _parse_joined(segment) or _parse_pieces(segment, start, classes, details)
    return documents


def _parse_pieces(
    segment: list[bytes | None], start: int, classes: np.ndarray, details: np.ndarray
) -> list[Any]:
    """The documents of messages that do not parse together, of which the first is row `start` of the chunk."""
    documents: list[Any] = []
    for at in range(0, len(segment), PIECE_MESSAGES):
        piece = segment[at : at + PIECE_MESSAGES]
        parsed = _parse_joined(piece)
        if parsed is None:
            parsed = []
            for row, value in enumerate(piece, start + at):
                document, event_class, detail = _parse_one(value)
                parsed.append(document)
                if detail:
                    classes[row], details[row] = event_class, detail
        documents += parsed
    return documents


def _columns(documents: list[Any], classes: np.ndarray, details: np.ndarray) -> list[list[Any]]:
    """The five fields as lists; documents that are no objects or lack a field become `_BLANK`."""
    columns: list[list[Any]] = []
    for field in FIELDS:
        column: list[Any] = []
        columns.append(column)
        fields = map(itemgetter(field), documents)
        while len(column) < len(documents):
            try:
                column.extend(fields)
            except (KeyError, TypeError):  # at one document; what came before it is in the column
                row = len(column)
                column.append(None)
                _blank(row, columns, documents, classes, details)
    return columns


def _join(
    columns: list[list[Any]], documents: list[Any], classes: np.ndarray, details: np.ndarray
) -> tuple[bytes, bytes]:
    """The arena rows and the timestamps as bytes; documents with a field that is no string become `_BLANK`."""
    stamps, *strings = columns
    rows: list[str] = []
    joined = map(MARK.join, zip(*strings, strict=True))
    while len(rows) < len(stamps):
        try:
            rows.extend(joined)
        except TypeError:  # at one row; those before it are there
            _blank(len(rows), columns, documents, classes, details)
            rows.append(_BLANK_ROW)
    try:
        stamp_text = _lines(stamps)
    except TypeError:
        for row in _not_strings(stamps):
            _blank(row, columns, documents, classes, details)
            rows[row] = _BLANK_ROW
        stamp_text = _lines(stamps)
    pieces = [
        (ROW_HEAD + ROW_HEAD.join(rows[start : start + ROWS_JOINED])).encode()
        for start in range(0, len(rows), ROWS_JOINED)
    ]
    return b"".join(pieces), stamp_text.encode()


def _not_strings(column: list[Any]) -> list[int]:
    """Where the few elements are that are no strings; str.join looks at types much faster than we do."""
    found: list[int] = []
    for start in range(0, len(column), SEGMENT_MESSAGES):
        segment = column[start : start + SEGMENT_MESSAGES]
        try:
            "".join(segment)
        except TypeError:
            found += [row for row, value in enumerate(segment, start) if type(value) is not str]
    return found


def _lines(stamps: list[str]) -> str:
    return "\n".join([*stamps, ""])  # the last one gets its newline by an empty one after it


def _blank(
    row: int, columns: list[list[Any]], documents: list[Any], classes: np.ndarray, details: np.ndarray
) -> None:
    """Read a document that is no event as `_BLANK` from here on, in the columns that there are; set its class."""
    document = documents[row]
    documents[row] = _BLANK
    for column, blank in zip(columns, _BLANKS, strict=False):
        column[row] = blank
    if type(document) is not dict:
        classes[row], details[row] = EventClass.NOT_OBJECT, Detail.JSON_NOT_OBJECT
        return
    kinds = [type(document.get(field)) for field in FIELDS]
    if type(None) in kinds:  # comes first, whichever fields have the two faults
        classes[row], details[row] = EventClass.MISSING_FIELD, Detail.MISSING + kinds.index(type(None))
    else:
        wrong = next(index for index, kind in enumerate(kinds) if kind is not str)
        classes[row], details[row] = EventClass.WRONG_TYPE, Detail.NOT_STRING + wrong


def _hashes(column: list[str]) -> np.ndarray:
    """int64: Python's own hash, which is SipHash under a key per process, so nobody can aim at a collision.

    Two of a million keys collide with a chance of about 1 in 37 million (n² / 2^65).
    """
    return np.fromiter(map(hash, column), np.int64, len(column))
