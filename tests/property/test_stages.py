"""Whatever the messages and wherever they are cut, the stages do what the reference does."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hotpath.events import CLASS_COUNT, DETAIL_TEXTS, EventClass
from hotpath.settings import Rules
from tests import reference
from tests.bad_inputs import BAD_INPUTS, GOOD, GOOD_MESSAGE, NOW_US
from tests.reference import FIELDS, Reference
from tests.support.stages import Message, Row, StageRunner, rows_of

RULES = Rules(bot_page_views_max=2)  # few, so that small examples have bots

# Strings that are near a rule's border, or of several bytes a character.
TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "a", " a", "a ", "a b", "é", "\u20ac" * 42, "\u20ac" * 43, "x" * 128, "x" * 129]
    ),
    st.sampled_from(
        ["a\x00b", "\x1f", "\x7f", "\x01...", "/a b", "http://", "http:/", "https://é", "/", "h"]
    ),
    st.text(max_size=12),
)
SECONDS = st.sampled_from([0, 0, 0, 1, 59, 60, 61, -1, -10, -299, -300, -301, -302, -900])
ZONES = st.sampled_from(["Z", "z", "+00:00", "-00:00", ".5Z", ".999999999Z"])


@st.composite
def timestamps(draw) -> str:
    seconds = 14 * 3_600 + 30 * 60 + draw(SECONDS)
    hour, minute, second = seconds // 3_600, seconds // 60 % 60, seconds % 60
    return f"2024-03-15T{hour:02d}:{minute:02d}:{second:02d}{draw(ZONES)}"


@st.composite
def good_events(draw) -> dict[str, object]:
    return {
        "timestamp": draw(timestamps()),
        "user_id": draw(st.sampled_from(["usr_1", "usr_2", "ü"])),
        "event_type": draw(st.sampled_from(["page_view", "page_view", "page_view", "click"])),
        "page_url": draw(st.sampled_from(["/", "/products/1", "https://é"])),
        "session_id": draw(st.sampled_from(["s", "sess_1"])),
    }


@st.composite
def mutated_events(draw) -> dict[str, object]:
    event = draw(good_events())
    for field in draw(st.lists(st.sampled_from([*FIELDS, "extra"]), min_size=1, max_size=3)):
        fault = draw(st.sampled_from(["drop", "text", "text", "text", "value"]))
        if fault == "drop":
            event.pop(field, None)
        elif fault == "text":
            event[field] = draw(TEXTS)
        else:
            event[field] = draw(
                st.sampled_from([None, True, 0, 1.5, 10**30, [], {}, ["a"], {"user_id": "a"}])
            )
    return event


@st.composite
def encoded(draw, events: st.SearchStrategy) -> bytes:
    event = draw(events)
    space = draw(st.sampled_from(["", "", " ", "\n"]))
    text = json.dumps(event, ensure_ascii=draw(st.booleans()), separators=("," + space, ":"))
    return (space + text + space).encode("utf-8", "surrogatepass")


@st.composite
def broken_bytes(draw) -> bytes:
    """A message with a piece of it cut out, and something put in its place."""
    value = draw(encoded(good_events()))
    start = draw(st.integers(0, len(value)))
    stop = draw(st.integers(start, min(len(value), start + 20) if draw(st.booleans()) else len(value)))
    pieces = [
        b"",
        b"\x00",
        b'"',
        b"\\",
        b"}",
        b"]",
        b"[1,",
        b",",
        b" ",
        b"\xc3",
        b"\xed\xa0\x80",
        GOOD_MESSAGE,
    ]
    return value[:start] + draw(st.sampled_from(pieces)) + value[stop:]


SMALL_BAD = [bad.value for bad in BAD_INPUTS if len(bad.value or b"") < 5_000]
VALUES = st.one_of(
    encoded(good_events()),
    encoded(good_events()),
    encoded(mutated_events()),
    broken_bytes(),
    st.sampled_from(SMALL_BAD),
    st.binary(max_size=30),
    st.sampled_from([b"[1", b"2]", b'{"a":1', b'"b":2}', b'"', b"1,2", b"[", b"]", b"1],[2"]),
)
LOG_COUNT = 3
MESSAGES = st.lists(st.tuples(st.integers(0, LOG_COUNT - 1), VALUES), max_size=40)


def cut(messages: list, at: list[int]) -> list[list]:
    bounds = [0, *sorted({min(cut, len(messages)) for cut in at}), len(messages)]
    return [messages[start:stop] for start, stop in pairwise(bounds)]


def numbered(values: list[tuple[int, bytes | None]]) -> list[Message]:
    """Messages with rising offsets that have gaps, as those of a log with transactions have."""
    return [Message(log, 3 * number + log, value, NOW_US) for number, (log, value) in enumerate(values)]


def key(row: Row) -> tuple[int, int]:
    return row.log, row.offset


@settings(max_examples=300, deadline=None)
@given(
    values=MESSAGES,
    chunk_cuts=st.lists(st.integers(1, 40), max_size=6),
    block_cuts=st.lists(st.integers(1, 6), max_size=3),
)
@example(values=[(0, b'{"a":1'), (0, b'"b":2}')], chunk_cuts=[], block_cuts=[])
@example(values=[(0, value) for value in SMALL_BAD], chunk_cuts=[], block_cuts=[])
@example(values=[(n % 3, value) for n, value in enumerate(SMALL_BAD)], chunk_cuts=[7, 8, 30], block_cuts=[2])
def test_stages_agree_with_the_reference(values, chunk_cuts, block_cuts):
    messages = numbered(values)
    runner = StageRunner(LOG_COUNT, RULES)
    blocks = [runner.block(chunks) for chunks in cut(cut(messages, chunk_cuts), block_cuts)]
    rows = sorted((row for block in blocks for row in rows_of(block)), key=key)

    model = Reference(bot_page_views_max=RULES.bot_page_views_max)
    outcomes = {
        (message.log, message.offset): model.classify(message.log, message.value, NOW_US)
        for message in messages
    }
    raw = {(message.log, message.offset): message.value or b"" for message in messages}
    assert [key(row) for row in rows] == sorted(outcomes)
    for row in rows:
        outcome = outcomes[key(row)]
        assert (row.event_class, row.time_us, row.texts) == (
            outcome.event_class,
            outcome.time_us,
            outcome.texts,
        )
        in_quarantine = row.event_class not in ("accepted", "late")
        assert row.payload == (raw[key(row)][:1_024] if in_quarantine else None)
        assert bool(row.detail) == in_quarantine
        assert row.detail in DETAIL_TEXTS
    for log, watermark in enumerate(runner.watermarks.tolist()):
        assert watermark == model.logs.get(log, reference.Log()).watermark_s


@settings(max_examples=100, deadline=None)
@given(values=MESSAGES, chunk_cuts=st.lists(st.integers(1, 40), max_size=6))
def test_tally_says_what_the_rows_say(values, chunk_cuts):
    block = StageRunner(LOG_COUNT, RULES).block(cut(numbered(values), chunk_cuts))
    classes, logs = block.classes[: block.rows], block.log_indexes[: block.rows]
    for log in range(LOG_COUNT):
        expected = np.bincount(classes[logs == log], minlength=CLASS_COUNT)
        assert block.logs["counts"][log].tolist() == expected.tolist()
        assert block.logs["received"][log] == expected.sum()


@settings(max_examples=100, deadline=None)
@given(values=MESSAGES)
def test_rows_in_the_arena_do_not_overlap(values):
    block = StageRunner(LOG_COUNT, RULES).block([numbered(values)])
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
            values.append((number % 2, SMALL_BAD[random.integers(len(SMALL_BAD))]))
        else:
            second = int(random.integers(60))
            event = GOOD | {
                "timestamp": f"2024-03-15T14:{29 - (pick > 0.9) * 3:02d}:{second:02d}Z",
                "user_id": f"usr_{random.integers(40)}",
            }
            values.append((number % 2, json.dumps(event).encode()))
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
