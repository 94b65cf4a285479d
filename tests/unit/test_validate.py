"""Validate: which detail a row gets, and where the borders of the rules are."""

import numpy as np
import pytest

from hotpath.events import Detail, EventClass
from hotpath.settings import Rules
from hotpath.shm.block import Block
from hotpath.workers.decode import decode
from hotpath.workers.validate import validate
from tests.bad_inputs import GOOD_MESSAGE, NOW_US, message


def validated(values: list[bytes], append_times_us: list[int] | None = None, **rules: int) -> Block:
    block = Block.private(len(values), 1 << 20)
    texts = decode(values, block)
    append_times = np.array(append_times_us or [NOW_US] * len(values), np.int64)
    validate(block, texts, append_times, Rules(**rules))
    return block


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"timestamp": ""}, Detail.FIELD_EMPTY + 0),
        ({"session_id": "", "user_id": ""}, Detail.FIELD_EMPTY + 1),
        ({"page_url": "", "user_id": "a\x00"}, Detail.FIELD_EMPTY + 3),
        ({"timestamp": "2024\n", "user_id": "\x1f"}, Detail.CONTROL_CHARACTER + 0),
        ({"event_type": "a\tb"}, Detail.CONTROL_CHARACTER + 2),
        ({"session_id": "a\x7f"}, Detail.CONTROL_CHARACTER + 4),
        ({"user_id": "a" * 129}, Detail.TOO_LONG + 1),
        ({"page_url": "/" * 2_049}, Detail.TOO_LONG + 3),
        ({"session_id": " " * 129}, Detail.TOO_LONG + 4),
        ({"user_id": " a"}, Detail.OUTER_SPACE + 1),
        ({"session_id": "a "}, Detail.OUTER_SPACE + 4),
        ({"event_type": "a b"}, Detail.EVENT_TYPE_PATTERN),
        ({"page_url": "x y"}, Detail.PAGE_URL_SPACE),
        ({"page_url": "x"}, Detail.PAGE_URL_PREFIX),
        ({"timestamp": "now"}, Detail.TIMESTAMP_FORMAT),
        ({"timestamp": "2024-02-30T00:00:00Z"}, Detail.TIMESTAMP_NOT_REAL),
        ({"timestamp": "1999-02-03T00:00:00Z"}, Detail.TIMESTAMP_YEAR),
        ({"timestamp": "2025-02-03T00:00:00Z"}, Detail.TIMESTAMP_AHEAD),
        ({"timestamp": "2025-02-03T00:00:00Z", "page_url": "x"}, Detail.PAGE_URL_PREFIX),
    ],
)
def test_detail_is_the_first_rule_and_field_broken(fields, detail):
    block = validated([GOOD_MESSAGE, message(**fields), GOOD_MESSAGE])
    assert block.details[:3].tolist() == [0, detail, 0]


def test_class_from_decoding_stays():
    block = validated([b"{", GOOD_MESSAGE, message(user_id=1)])
    classes = [EventClass.NOT_JSON, EventClass.ACCEPTED, EventClass.WRONG_TYPE]
    assert block.classes[:3].tolist() == classes


def test_times_are_filled():
    block = validated([GOOD_MESSAGE, message(timestamp="2024-03-15T14:30:00.5Z"), message(timestamp="now")])
    assert block.times_us[:3].tolist() == [NOW_US, NOW_US + 500_000, 0]


def test_future_is_measured_from_each_append_time_to_the_microsecond():
    values = [message(timestamp="2024-03-15T14:31:00.000001Z")] * 3
    block = validated(values, [NOW_US, NOW_US + 1, NOW_US + 2])
    assert block.classes[:3].tolist() == [EventClass.FUTURE, EventClass.ACCEPTED, EventClass.ACCEPTED]


def test_future_follows_its_rule():
    values = [message(timestamp="2024-03-15T14:30:05Z"), message(timestamp="2024-03-15T14:30:06Z")]
    block = validated(values, future_max_s=5)
    assert block.classes[:2].tolist() == [EventClass.ACCEPTED, EventClass.FUTURE]


def test_spaces_inside_one_field_are_not_held_against_another():
    # The last byte of one string and the first of the next are four bytes apart, and spaces are looked for in
    # all of them at once.
    values = [message(user_id="a b", session_id="c d"), message(user_id="a ", page_url="/a"), GOOD_MESSAGE]
    assert validated(values).classes[:3].tolist() == [
        EventClass.ACCEPTED,
        EventClass.BAD_VALUE,
        EventClass.ACCEPTED,
    ]


def test_rules_hold_in_the_last_row_of_an_arena():
    for fields in ({"session_id": "a "}, {"session_id": "a\x7f"}, {"page_url": "h"}, {"page_url": "https:/"}):
        assert validated([message(**fields)]).classes[0] == EventClass.BAD_VALUE


def test_limits_are_in_bytes():
    values = [message(user_id="é" * 64), message(user_id="é" * 64 + "a"), message(page_url="/" + "é" * 1_024)]
    block = validated(values)
    assert block.details[:3].tolist() == [0, Detail.TOO_LONG + 1, Detail.TOO_LONG + 3]
