"""Blocks into Postgres: what a flush stores, and how logs change hands."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotpath.errors import Fenced, LogLost
from hotpath.events import Detail, EventClass
from hotpath.shm.block import Block
from hotpath.workers import logs
from hotpath.workers.copy_format import seal_rows
from tests.support.blocks import NOON_US, Event, append_events, new_block, numbered
from tests.support.stored import assert_ledger_agrees, new_sink, offsets, rows, take

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
KINDS = list(EventClass)


@pytest.fixture
def sink(database):
    made = new_sink(database)
    yield made
    made.close()


def block_of(handles: list[logs.LogHandle], events: list[Event]) -> Block:
    """A sealed block of these logs; offsets count from each log's next_offset."""
    block = new_block(
        [h.log_id for h in handles], [h.next_offset for h in handles], [h.epoch for h in handles]
    )
    block.logs["watermark_s"] = [h.watermark_s for h in handles]
    seal_rows(block, append_events(block, events))
    return block


def one_of_each_class() -> list[Event]:
    return [
        Event(
            offset,
            event_class=kind,
            user_id=f"u-{offset}",
            payload=None if kind in (EventClass.ACCEPTED, EventClass.LATE) else b"\x00\xff{",
            detail=Detail.BOT_RATE if kind is EventClass.BOT else Detail.NONE,
        )
        for offset, kind in enumerate(KINDS)
    ]


def test_a_flush_puts_every_class_where_it_belongs(database, sink):
    (handle,) = take(sink)
    sink.flush(block_of([handle], one_of_each_class()))
    user = f"u-{EventClass.ACCEPTED}"
    assert rows(database, "select * from events") == [(handle.log_id, 0, NOON, user, "page_view", "/", "s-1")]
    assert offsets(database, "late_events") == [(handle.log_id, EventClass.LATE)]
    quarantined = rows(database, "select class, payload, payload_size from quarantine order by kafka_offset")
    assert quarantined == [
        (kind.label, b"\x00\xff{", 3) for kind in KINDS if kind not in (EventClass.ACCEPTED, EventClass.LATE)
    ]
    bots = rows(database, "select user_id, second, dropped from bot_activity")
    assert bots == [(f"u-{EventClass.BOT}", NOON, 1)]


def test_the_ledger_has_one_column_per_class(database, sink):
    (handle,) = take(sink)
    sink.flush(block_of([handle], one_of_each_class()))
    columns = ", ".join(kind.label for kind in KINDS)
    assert rows(database, f"select first_offset, next_offset, received, {columns} from ledger") == [
        (0, len(KINDS), len(KINDS), *[1] * len(KINDS))
    ]
    assert_ledger_agrees(database)


def test_a_flush_moves_offset_and_watermark(database, sink):
    (handle,) = take(sink)
    sink.flush(block_of([handle], list(numbered(2_000))))
    state = rows(database, "select next_offset, watermark_s from partition_state")
    assert state == [(2_000, (NOON_US + 1_999_000) // 1_000_000)]
    (again,) = take(sink)
    assert (again.next_offset, again.watermark_s) == state[0]
    assert again.epoch == handle.epoch + 1


def test_logs_of_a_block_move_together_and_untouched_ones_stay(database, sink):
    handles = take(sink, [0, 1, 2])
    assert [h.partition for h in handles] == [0, 1, 2]
    assert [h.log_id for h in handles] == sorted(h.log_id for h in handles)
    sink.flush(block_of(handles, [*numbered(10, log_index=2), *numbered(10, log_index=0)]))
    state = rows(database, "select partition, next_offset from partition_state order by 1")
    assert state == [(0, 10), (1, 0), (2, 10)]
    assert len(rows(database, "select from ledger")) == 2
    assert_ledger_agrees(database)


def test_offsets_with_gaps_end_at_last_offset_plus_one(database, sink):
    (handle,) = take(sink, low=100)
    sink.flush(block_of([handle], [Event(105), Event(200)]))
    assert rows(database, "select first_offset, next_offset, received from ledger") == [(100, 201, 2)]


def test_an_empty_block_writes_nothing(database, sink):
    sink.flush(block_of(take(sink), []))
    assert rows(database, "select from ledger") == []


def test_dropped_page_views_of_a_second_add_up_over_flushes(database, sink):
    (handle,) = take(sink)
    bots = [Event(o, event_class=EventClass.BOT, user_id="b", time_us=NOON_US + o) for o in range(6)]
    block = block_of([handle], bots[:4])
    sink.flush(block)
    (handle,) = take(sink)
    sink.flush(block_of([handle], bots[4:]))
    assert rows(database, "select user_id, second, dropped from bot_activity") == [("b", NOON, 6)]


def test_times_without_a_day_of_their_own_are_stored(database, sink):
    (handle,) = take(sink)
    years = [datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
    times = [(y - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() for y in years]
    sink.flush(block_of([handle], [Event(o, time_us=round(t * 1e6)) for o, t in enumerate(times)]))
    assert [ts for (ts,) in rows(database, "select ts from events_default order by ts")] == years


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@given(
    # No text of `texts` is too long but for an event_type, which has 64 bytes at most.
    st.lists(
        st.tuples(st.integers(0, 1), texts, texts.map(lambda text: text[:16]), texts, texts),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 9_999_999_999),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_postgres_stores_what_the_block_says(database, sink, drawn, microseconds):
    handles = take(sink, [0, 1])
    base = [h.next_offset for h in handles]
    events = [
        Event(base[log] + number, log, time_us=NOON_US + microseconds + number, user_id=user,
              event_type=kind, page_url=page, session_id=session)
        for number, (log, user, kind, page, session) in enumerate(drawn)
    ]  # fmt: skip
    sink.flush(block_of(handles, events))
    stored = rows(
        database,
        "select log_id, kafka_offset, (extract(epoch from ts) * 1000000)::bigint, user_id, event_type, page_url, "
        "session_id from events where (log_id, kafka_offset) >= (%s, %s) and log_id = %s "
        "or (log_id, kafka_offset) >= (%s, %s) and log_id = %s order by 1, 2",
        *(value for h, first in zip(handles, base, strict=True) for value in (h.log_id, first, h.log_id)),
    )  # fmt: skip
    assert stored == sorted((handles[e.log_index].log_id, e.offset, e.time_us, *e.texts) for e in events)


# Taking over


def test_a_new_log_begins_at_the_low_watermark(sink):
    assert [h.next_offset for h in take(sink, [4, 5], low=77)] == [77, 77]


def test_a_new_partition_of_a_known_topic_begins_at_the_low_watermark(sink):
    take(sink, [0])
    assert [h.next_offset for h in take(sink, [0, 1], low=0)] == [0, 0]


def test_a_topic_made_anew_stops_with_a_message_and_changes_nothing(database, sink):
    take(sink, topic_id="old")
    before = rows(database, "select * from partition_state")
    with pytest.raises(LogLost, match=r"was made anew.*id old.*id new"):
        take(sink, topic_id="new")
    assert rows(database, "select * from partition_state") == before


def test_a_topic_made_anew_is_taken_once_the_old_one_is_retired(sink):
    (old,) = take(sink, topic_id="old")
    assert logs.retire_other_incarnations(sink._session.connection, "events", "new") == 1
    (new,) = take(sink, topic_id="new", low=3)
    assert new.log_id != old.log_id
    assert new.next_offset == 3


def test_a_log_whose_retention_has_passed_stops_with_a_message(sink):
    take(sink)
    with pytest.raises(LogLost, match=r"retention has passed.*at offset 0.*begins at 5"):
        take(sink, low=5)


def test_a_log_shorter_than_postgres_says_stops_with_a_message(sink):
    (handle,) = take(sink)
    sink.flush(block_of([handle], list(numbered(10))))
    with pytest.raises(LogLost, match=r"shorter.*at offset 10.*ends at 9"):
        take(sink, high=9)
    assert take(sink, high=10)[0].next_offset == 10


def test_a_loss_is_a_ledger_row_with_its_reason(database, sink):
    (handle,) = take(sink)
    moved = logs.record_loss(sink._session.connection, handle, 50, "retention passed")
    sink.flush(block_of([moved], list(numbered(3, first_offset=50))))
    ledger = rows(database, "select first_offset, next_offset, received, reason from ledger order by 1")
    assert ledger == [(0, 50, 0, "retention passed"), (50, 53, 3, None)]
    assert_ledger_agrees(database)
    with pytest.raises(Fenced):
        logs.record_loss(sink._session.connection, handle, 60, "again")


def test_equal_rules_have_one_number(database, sink):
    take(sink, [0])
    take(sink, [1])
    assert len(rows(database, "select from rules")) == 1


# Bot counts


def test_bot_counts_are_those_of_accepted_page_views_below_the_offset(sink):
    handles = take(sink, [0, 1])
    second = NOON_US // 1_000_000
    events = [Event(o, log, user_id="a", time_us=NOON_US + o) for log in (0, 1) for o in range(5)]
    events += [
        Event(5, 0, user_id="b", time_us=NOON_US + 999_999),
        Event(6, 0, user_id="b", time_us=NOON_US + 1_000_000),
        Event(7, 0, user_id="b", event_type="click"),
        Event(8, 0, user_id="b", event_class=EventClass.BOT),
        Event(9, 0, user_id="b"),
    ]
    sink.flush(block_of(handles, events))
    first, other = (h.log_id for h in handles)
    pairs = [(first, second), (first, second + 1), (other, second), (other, second + 1)]
    found = sink.load_bot_counts(pairs, {first: 9, other: 3})
    assert sorted(found) == [
        (first, second, "a", 5),
        (first, second, "b", 1),
        (first, second + 1, "b", 1),
        (other, second, "a", 3),
    ]
    assert sink.load_bot_counts([], {}) == []
