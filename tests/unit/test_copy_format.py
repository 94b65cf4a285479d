"""The COPY streams of a block say exactly what the block says."""

import struct
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hotpath.events import DETAIL_TEXTS, REFUSED, Detail, EventClass
from hotpath.shm.block import Block
from hotpath.workers.copy_format import (
    CopyBuffer,
    bot_activity_rows,
    event_rows,
    quarantine_rows,
    seal_rows,
)
from tests.support.blocks import NOON_US, Event, append_events, new_block, numbered
from tests.support.copy_streams import parse, parse_events


def expected_events(events: list[Event], log_ids: list[int], event_class: EventClass) -> list[tuple]:
    chosen = sorted((e for e in events if e.event_class == event_class), key=lambda event: event.log_index)
    return [(log_ids[e.log_index], e.offset, e.time_us, *e.texts) for e in chosen]


def sealed(events: list[Event], log_ids: list[int], chunk: int = 1_000) -> Block:
    block = new_block(log_ids)
    for first in range(0, len(events), chunk):
        seal_rows(block, append_events(block, events[first : first + chunk]))
    return block


LOG_IDS = [3, 70_000, 2_147_483_647]
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
any_event = st.builds(
    Event,
    offset=st.just(0),
    log_index=st.integers(0, len(LOG_IDS) - 1),
    event_class=st.sampled_from(EventClass),
    time_us=st.integers(NOON_US - 24 * 365 * 86_400_000_000, NOON_US + 75 * 365 * 86_400_000_000),
    user_id=text,
    event_type=text,
    page_url=text,
    session_id=text,
    payload=st.none() | st.binary(max_size=1_500),
    detail=st.sampled_from(sorted(DETAIL_TEXTS)),
)


def with_offsets(events: list[Event]) -> list[Event]:
    return [Event(**{**vars(event), "offset": 2**40 + number}) for number, event in enumerate(events)]


many_events = st.lists(any_event, max_size=40).map(with_offsets)


@given(many_events, st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_streams_hold_what_the_block_holds(events, chunk):
    block = sealed(events, LOG_IDS, chunk)
    buffer = CopyBuffer(16)
    for event_class in (EventClass.ACCEPTED, EventClass.LATE):
        found = parse_events(event_rows(block, event_class, buffer))
        assert found == expected_events(events, LOG_IDS, event_class)


@given(many_events)
@settings(max_examples=150, deadline=None)
def test_quarantine_holds_refused_and_bot_messages_with_their_bytes(events):
    block = sealed(events, LOG_IDS)
    found = Counter(tuple(row) for row in parse(quarantine_rows(block)))
    kept = [e for e in events if e.event_class in (*REFUSED, EventClass.BOT) and e.payload is not None]
    assert found == Counter(
        (
            struct.pack(">i", LOG_IDS[e.log_index]),
            struct.pack(">q", e.offset),
            e.event_class.label.encode(),
            DETAIL_TEXTS[e.detail].encode(),
            e.payload[:1_024],
            struct.pack(">i", len(e.payload)),
        )
        for e in kept
    )


@given(many_events)
@settings(max_examples=150, deadline=None)
def test_bot_activity_counts_dropped_page_views_by_log_user_and_second(events):
    block = sealed(events, LOG_IDS)
    activity = bot_activity_rows(block)
    found = {}
    if activity is not None:
        keys = zip(activity.log_ids, activity.user_ids, activity.seconds, strict=True)
        found = dict(zip(keys, activity.dropped, strict=True))
        assert len(found) == len(activity.dropped)
    bots = [e for e in events if e.event_class == EventClass.BOT]
    assert found == Counter((LOG_IDS[e.log_index], e.user_id, e.time_us // 1_000_000) for e in bots)


def test_a_class_without_rows_has_no_stream():
    block = sealed([Event(0, event_class=EventClass.EMPTY, payload=b"")], [1])
    assert event_rows(block, EventClass.ACCEPTED, CopyBuffer()) is None
    assert bot_activity_rows(block) is None
    assert quarantine_rows(sealed(list(numbered(3)), [1])) is None


def test_lengths_count_bytes_not_characters():
    block = sealed([Event(0, user_id="é", page_url="/👩‍👩‍👧", session_id="\u2028")], [1])
    assert parse_events(event_rows(block, EventClass.ACCEPTED, CopyBuffer())) == [
        (1, 0, NOON_US, "é", "page_view", "/👩‍👩‍👧", "\u2028")
    ]


def test_a_stream_is_right_in_a_buffer_that_held_a_longer_one():
    buffer = CopyBuffer(16)
    event_rows(sealed(list(numbered(500)), [1]), EventClass.ACCEPTED, buffer)
    events = list(numbered(3, first_offset=9))
    found = parse_events(event_rows(sealed(events, [1]), EventClass.ACCEPTED, buffer))
    assert found == expected_events(events, [1], EventClass.ACCEPTED)


def test_rows_of_logs_are_sorted_and_keep_their_order():
    events = [Event(offset, log_index=offset % 3) for offset in range(30)]
    found = parse_events(event_rows(sealed(events, LOG_IDS, 7), EventClass.ACCEPTED, CopyBuffer()))
    assert [row[:2] for row in found] == sorted((LOG_IDS[o % 3], o) for o in range(30))


def test_a_kept_payload_of_no_bytes_is_stored():
    block = sealed([Event(5, event_class=EventClass.EMPTY, payload=b"", detail=Detail.VALUE_NULL)], [1])
    ((_, _, label, detail, payload, size),) = parse(quarantine_rows(block))
    assert (label, detail, payload, size) == (b"empty", b"the value is null", b"", bytes(4))
