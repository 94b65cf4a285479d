"""Decode: what it leaves in a block, and what it costs no more than it should."""

import json

import numpy as np
import pytest

from hotpath.events import MESSAGE_BYTES_MAX, Detail, EventClass
from hotpath.shm.block import LENGTH_BYTES, ROW_FIXED_BYTES, ROW_PREFIX_BYTES, Block
from hotpath.workers import decode as decode_module
from hotpath.workers.decode import PIECE_MESSAGES, SEGMENT_MESSAGES, decode
from tests.bad_inputs import GOOD, GOOD_MESSAGE, message, without

USER_ID, EVENT_TYPE, PAGE_URL, SESSION_ID = range(4)


@pytest.fixture
def block() -> Block:
    return Block.private(1_000, 1 << 20)


@pytest.fixture
def parser_calls(monkeypatch) -> list[int]:
    """The sizes of what the parser is given, call by call."""
    sizes = []
    loads = decode_module.orjson.loads

    class CountingParser:
        @staticmethod
        def loads(data: bytes) -> object:
            sizes.append(len(data))
            return loads(data)

    monkeypatch.setattr(decode_module, "orjson", CountingParser)
    return sizes


def test_strings_lie_in_the_arena_as_utf8(block):
    decode([message(user_id="ü", page_url="/\u20ac"), GOOD_MESSAGE], block)
    assert [block.text(field, 0) for field in range(4)] == [
        "ü".encode(),
        b"page_view",
        "/€".encode(),
        b"sess_1",
    ]
    assert [block.text(field, 1) for field in range(4)] == [GOOD[name].encode() for name in list(GOOD)[1:]]


def test_rows_leave_room_for_prefix_and_lengths(block):
    decode([GOOD_MESSAGE, message(user_id="a" * 50)], block)
    starts, lengths = block.row_starts[:2].tolist(), block.row_lengths[:2].tolist()
    assert starts == [0, lengths[0]]
    assert lengths == (block.lengths[:, :2].sum(axis=0) + ROW_FIXED_BYTES).tolist()
    assert block.text_starts(USER_ID, slice(0, 1))[0] == ROW_PREFIX_BYTES + LENGTH_BYTES
    assert block.arena_used == sum(lengths)


@pytest.mark.parametrize("text", ["a\x00b", "\x01...", "\x1f", "..\x01...\x01..."])
def test_control_characters_do_not_shift_the_strings_of_others(block, text):
    decode([GOOD_MESSAGE, message(user_id=text, timestamp=text + "\n"), message(session_id="last")], block)
    assert block.text(USER_ID, 1) == text.encode()
    assert block.text(SESSION_ID, 1) == b"sess_1"
    assert block.text(SESSION_ID, 2) == b"last"


def test_messages_that_are_no_events_have_no_row(block):
    texts = decode([b"{", GOOD_MESSAGE, b"[]", without("user_id"), message(user_id=1), None, b""], block)
    assert (block.row_starts[: texts.count] >= 0).tolist() == [False, True, *[False] * 5]
    classes = [EventClass(code).label for code in block.classes[: texts.count]]
    assert classes == ["not_json", "accepted", "not_object", "missing_field", "wrong_type", "empty", "empty"]


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (None, Detail.VALUE_NULL),
        (b" ", Detail.VALUE_BLANK),
        (b" " * (MESSAGE_BYTES_MAX + 1), Detail.VALUE_TOO_LARGE),
        (b"{", Detail.JSON_INVALID),
        (b"1", Detail.JSON_NOT_OBJECT),
        (without("page_url"), Detail.MISSING + 3),
        (message(session_id=None, timestamp=None), Detail.MISSING + 0),
        (message(session_id=None, timestamp=1), Detail.MISSING + 4),
        (message(event_type=1, page_url=2), Detail.NOT_STRING + 2),
    ],
)
def test_detail_names_the_first_field_at_fault(block, value, detail):
    decode([GOOD_MESSAGE, value], block)
    assert block.details[:2].tolist() == [0, detail]


def test_page_views_are_told_from_other_events(block):
    types = ["page_view", "click", "page_view ", "Page_view", "page_view", "PAGE_VIEW"]
    texts = decode([message(event_type=event_type) for event_type in types], block)
    assert block.page_views[:6].tolist() == [True, False, False, False, True, False]
    assert texts.event_types_allowed.tolist() == [True, True, False, True, True, True]


def test_event_type_cache_stays_small(block):
    for start in range(0, 10_000, 500):
        block.clear()
        decode([message(event_type=f"type_{number}") for number in range(start, start + 500)], block)
    decode([message(event_type="x" * 10_000)], block)
    assert len(decode_module._EVENT_TYPES) <= decode_module._EventTypes.entries_max
    assert max(map(len, decode_module._EVENT_TYPES)) <= decode_module._EventTypes.length_max


def test_hashes_tell_users_sessions_and_pages_apart(block):
    decode(
        [
            message(user_id="a", session_id="b"),
            message(user_id="a", session_id="c"),
            message(user_id="b", session_id="a"),
            message(user_id="a", session_id="b", page_url="/other"),
        ],
        block,
    )
    users, sessions, pages = (
        column[:4].tolist() for column in (block.user_hashes, block.session_hashes, block.page_hashes)
    )
    assert users[0] == users[1] == users[3] != users[2]
    assert users[0] == hash("a")
    assert sessions[0] == sessions[3]
    assert len(set(sessions)) == 3
    assert pages[0] == pages[1] == pages[2] != pages[3]


def test_second_chunk_is_appended_behind_the_first(block):
    decode([GOOD_MESSAGE], block)
    used = block.arena_used
    texts = decode([message(user_id="second")], block)
    assert texts.rows == slice(1, 2)
    assert block.rows == 2
    assert block.row_starts[1] == used
    assert block.text(USER_ID, 1) == b"second"


def test_empty_chunk_changes_nothing(block):
    texts = decode([], block)
    assert (texts.count, block.rows, block.arena_used) == (0, 0, 0)


def test_full_block_is_refused_with_a_reason():
    with pytest.raises(ValueError, match="2 rows"):
        decode([GOOD_MESSAGE] * 3, Block.private(2, 10_000))
    with pytest.raises(ValueError, match="arena of 60 bytes"):
        decode([GOOD_MESSAGE], Block.private(2, 60))


@pytest.mark.parametrize("value", [b"", b"1", b"{}", b'{"a":"' + b"x" * 500 + b'"}', GOOD_MESSAGE, b"[" * 99])
def test_a_chunk_that_fits_does_fit(value):
    count = 40
    block = Block.private(count, count * ROW_FIXED_BYTES + 2 * count * len(value))
    assert block.fits(count, count * len(value))
    decode([value] * count, block)
    assert block.arena_used <= count * (ROW_FIXED_BYTES + len(value))


def test_clean_chunk_is_parsed_by_one_call_a_segment(block, parser_calls):
    decode([GOOD_MESSAGE] * 500, block)
    assert len(parser_calls) == -(-500 // SEGMENT_MESSAGES)


def test_fault_costs_its_segment_and_no_more(block, parser_calls):
    values = [GOOD_MESSAGE] * 500
    values[100] = (
        GOOD_MESSAGE[:-1] + b',"extra":[1'
    )  # swallows all that follows, up to the end of its segment
    decode(values, block)
    segments, pieces = -(-500 // SEGMENT_MESSAGES), SEGMENT_MESSAGES // PIECE_MESSAGES
    assert len(parser_calls) == segments + pieces + PIECE_MESSAGES
    assert np.flatnonzero(block.classes[:500]).tolist() == [100]


def test_each_of_many_faults_costs_its_own_message_alone(block):
    faults = {
        0: b"[]",
        3: without("session_id"),
        4: without("timestamp"),
        70: message(timestamp=1),
        71: message(page_url=None),
        72: message(user_id=[], timestamp={}),
        498: b'"text"',
        499: message(session_id=True),
    }
    values = [
        faults.get(row, message(user_id=f"user_{row}", session_id="s" * (row % 9 + 1))) for row in range(500)
    ]
    decode(values, block)
    assert np.flatnonzero(block.classes[:500]).tolist() == list(faults)
    assert (np.flatnonzero(block.row_starts[:500] < 0)).tolist() == list(faults)
    for row in set(range(500)) - set(faults):
        assert block.text(USER_ID, row) == f"user_{row}".encode()
        assert block.text(SESSION_ID, row) == b"s" * (row % 9 + 1)


def test_oversized_message_is_never_parsed(block, parser_calls):
    decode([GOOD_MESSAGE, json.dumps(GOOD | {"extra": "x" * 1_000_000}).encode()], block)
    assert max(parser_calls) <= MESSAGE_BYTES_MAX


def test_sentinel_is_not_known_to_producers(block):
    """A guess at it, or what an older process has leaked of its own, is a string like any other."""
    guess = b'"' + b"0" * 32 + b'"'
    decode([b"{},%b,{}" % guess, b"[1", b"%b,2]" % guess, GOOD_MESSAGE], block)
    assert [EventClass(code).label for code in block.classes[:4]] == [*["not_json"] * 3, "accepted"]
    assert len(decode_module._SENTINEL) == 32
