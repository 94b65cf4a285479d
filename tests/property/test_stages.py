"""Whatever the messages and wherever they are cut, the stages do what the reference does."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hotpath.events import EventClass
from hotpath.settings import Rules
from tests.bad_inputs import GOOD, NOW_US
from tests.support.agreement import Case, Reference, check, cut, numbered
from tests.support.messages import LOG_COUNT, MESSAGES, SMALL_BAD, logs_of_messages
from tests.support.stages import Message, StageRunner, rows_of

RULES = Rules(bot_page_views_max=2)  # few, so that small examples have bots

CUTS = st.lists(st.integers(0, 40), max_size=6)
FEW_CUTS = st.lists(st.integers(0, 6), max_size=3)


@st.composite
def cases(draw) -> Case:
    return Case(
        draw(logs_of_messages()),
        draw(CUTS),
        draw(FEW_CUTS),
        draw(FEW_CUTS),
        draw(st.sampled_from([1_000_000, 1_000_000, 0, 1, 2])),
        draw(st.sampled_from([300, 300, 0, 10])),
        draw(st.sampled_from([60, 60, 0])),
        draw(st.sampled_from([2, 2, 1, 3])),
    )


def at_one_time(values: list[tuple[int, bytes | None]]) -> list[tuple[int, bytes | None, int]]:
    return [(log, value, NOW_US) for log, value in values]


HALVES_OF_ONE = at_one_time([(0, b'{"a":1'), (0, b'"b":2}')])
BAD_ONES = at_one_time([(0, value) for value in SMALL_BAD])
BAD_ONES_IN_THREE_LOGS = at_one_time([(n % 3, value) for n, value in enumerate(SMALL_BAD)])


@settings(max_examples=300, deadline=None)
@given(case=cases())
@example(case=Case(HALVES_OF_ONE))
@example(case=Case(BAD_ONES))
@example(case=Case(BAD_ONES_IN_THREE_LOGS, [7, 8, 30], [2], [1]))
def test_stages_agree_with_the_reference(case):
    check(case)


@settings(max_examples=100, deadline=None)
@given(values=MESSAGES)
def test_rows_in_the_arena_do_not_overlap(values):
    block = StageRunner(LOG_COUNT, RULES).block([numbered(at_one_time(values))])
    spans = []
    for row in range(block.rows):
        if block.row_starts[row] >= 0:
            start = int(block.row_starts[row])
            spans.append((start, start + int(block.row_lengths[row])))
            end = block.text_starts(3, slice(row, row + 1))[0] + block.lengths[3, row]
            assert end == spans[-1][1]
        else:
            assert EventClass.TOO_LARGE <= block.classes[row] <= EventClass.WRONG_TYPE
        if block.payload_starts[row] >= 0:
            start = int(block.payload_starts[row])
            spans.append((start, start + int(block.payload_lengths[row])))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert not spans or spans[-1][1] <= block.arena_used


STAMP_PIECES = st.sampled_from(
    [
        *"0123456789",
        "T",
        "t",
        "Z",
        "z",
        "-",
        ":",
        "+",
        ".",
        " ",
        "2024",
        "-02-29",
        "T23:59:60",
        "é",
        "\x00",
        "00",
    ]
)


@st.composite
def near_timestamps(draw) -> str:
    text = draw(
        st.one_of(
            st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
            st.builds(
                "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}{}".format,
                st.one_of(st.integers(0, 9_999), st.sampled_from([1999, 2000, 2024, 2099, 2100])),
                *(st.integers(0, top) for top in (13, 32, 25, 61, 61)),
                st.from_regex(r"(\.[0-9]{1,10})?([Zz]|[+-][012][0-9]:[0-6][0-9])", fullmatch=True),
            ),
        )
    )
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(STAMP_PIECES) + text[at + draw(st.integers(0, 2)) :]
    return text


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(near_timestamps(), min_size=1, max_size=30))
def test_timestamps_agree_with_the_reference(texts):
    append_time_us = 5_000_000_000_000_000  # so late that no year up to 2099 is in the future
    runner = StageRunner(len(texts))
    messages = [
        Message(log, 0, json.dumps(GOOD | {"timestamp": text}).encode(), append_time_us)
        for log, text in enumerate(texts)
    ]
    outcomes = [Reference().classify(0, message.value, append_time_us) for message in messages]
    rows = rows_of(runner.block([messages]))
    assert [(row.event_class, row.time_us) for row in rows] == [
        (outcome.event_class, outcome.time_us) for outcome in outcomes
    ]


@pytest.mark.parametrize("seed", range(3))
def test_large_chunks_agree_with_the_reference(seed):
    """Faults spread over a chunk of many segments, and users enough for probing to collide."""
    random = np.random.default_rng(seed)
    values = []
    for number in range(3_000):
        pick = random.random()
        if pick < 0.01:
            values.append((number % 2, SMALL_BAD[random.integers(len(SMALL_BAD))], NOW_US))
        else:
            second = int(random.integers(60))
            event = GOOD | {
                "timestamp": f"2024-03-15T14:{29 - (pick > 0.9) * 3:02d}:{second:02d}Z",
                "user_id": f"usr_{random.integers(40)}",
            }
            values.append((number % 2, json.dumps(event).encode(), NOW_US))
    messages = numbered(values)
    runner = StageRunner(2, RULES)
    rows = [row for chunk in cut(messages, [2_000]) for row in rows_of(runner.block([chunk]))]
    model = Reference(bot_page_views_max=2)
    expected = [
        (message.log, message.offset, model.classify(message.log, message.value, NOW_US).event_class)
        for message in messages
    ]
    assert sorted((row.log, row.offset, row.event_class) for row in rows) == sorted(expected)
    assert {"bot", "accepted", "not_json"} <= {event_class for _, _, event_class in expected}
