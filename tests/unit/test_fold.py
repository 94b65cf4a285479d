"""Folding: from rows to what the views learn of them."""

import itertools
from collections import Counter
from unittest import mock

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpath.events import EventClass
from hotpath.views import fold, packed, store
from hotpath.views.fold import fold_blocks, fold_counts, fold_seen
from hotpath.views.slots import Slots
from tests.support.blocks import NOON_US, Event, append_events, new_block

NOON_STEP = NOON_US // 10_000_000


def unpacked(strings: packed.Strings) -> list[bytes]:
    return msgpack.unpackb(packed.array(len(strings), strings.part(0, len(strings))), raw=True)


def flat_of(seen: fold.Seen) -> list:
    """[user_id, session behind its length, step, ...]"""
    columns = unpacked(seen.users), unpacked(seen.sessions), seen.steps.tolist()
    return list(itertools.chain.from_iterable(zip(*columns, strict=True)))


def seen_of(seen: fold.Seen) -> dict[tuple[bytes, bytes], int]:
    """(user_id, session_id) -> step."""
    flat = flat_of(seen)
    assert all(session[0] == len(session) - 1 for session in flat[1::3])
    triples = [(user, s[1:], step) for user, s, step in zip(flat[::3], flat[1::3], flat[2::3], strict=True)]
    found = {(user, session): step for user, session, step in triples}
    assert len(found) == len(triples)
    return found


def pages_of(piece: fold.CountPiece) -> list:
    """[[step, [page_url, n, ...]], ...]"""
    return msgpack.unpackb(piece.counts, raw=True)


def counts_of(pieces: list[fold.CountPiece]) -> Counter:
    total: Counter = Counter()
    for piece in pieces:
        for step, increments in pages_of(piece):
            for page, count in zip(increments[::2], increments[1::2], strict=True):
                total[step, page] += count
    return total


def check_chain(pieces: list[fold.CountPiece], first_offset: int, next_offset: int) -> None:
    assert pieces[0].first_offset == first_offset
    assert pieces[-1].next_offset == next_offset
    for before, after in itertools.pairwise(pieces):
        assert before.next_offset == after.first_offset
    for piece in pieces:
        assert piece.first_offset < piece.next_offset
        assert sum(len(increments) // 2 for _, increments in pages_of(piece)) <= fold.PAIRS_MAX


event_fields = st.fixed_dictionaries(
    {
        "log_index": st.integers(0, 1),
        "event_class": st.sampled_from([EventClass.ACCEPTED] * 3 + [EventClass.LATE, EventClass.BOT]),
        "time_us": st.integers(-60, 60).map(lambda seconds: NOON_US + seconds * 1_000_000),
        "user_id": st.sampled_from(["u", "v", "ü", "名"]),
        "event_type": st.sampled_from(["page_view", "click"]),
        "page_url": st.sampled_from(["/", "/é", "/a"]),
        "session_id": st.sampled_from(["s", "t", "漢"]),
    }
)


@given(st.lists(event_fields, max_size=60), st.integers(1, 4))
def test_a_folded_block_holds_what_its_accepted_rows_say(rows, pairs_max):
    events = [Event(offset, **fields) for offset, fields in enumerate(rows)]
    block = new_block(log_ids=(7, 9))
    append_events(block, events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "PAIRS_MAX", pairs_max)
        for log_index, log_id in enumerate((7, 9)):
            mine = [
                event
                for event in events
                if event.log_index == log_index and event.event_class is EventClass.ACCEPTED
            ]
            (changes,) = fold_blocks([block], {log_index: 0})
            newest: dict = {}
            for event in mine:
                pair = (event.user_id.encode(), event.session_id.encode())
                newest[pair] = max(newest.get(pair, 0), event.time_us // 10_000_000)
            views = Counter(
                (event.time_us // 10_000_000, event.page_url.encode())
                for event in mine
                if event.event_type == "page_view"
            )
            assert changes.log_id == log_id
            assert seen_of(changes.seen) == newest
            assert counts_of(changes.pieces) == views
            if changes.next_offset > 0:
                check_chain(changes.pieces, 0, changes.next_offset)


def test_rows_below_what_is_applied_are_left_out():
    block = new_block()
    append_events(
        block, [Event(offset, page_url=f"/{offset}", session_id=str(offset)) for offset in range(10)]
    )
    (changes,) = fold_blocks([block], {0: 6})
    assert (changes.first_offset, changes.next_offset) == (6, 10)
    assert set(counts_of(changes.pieces)) == {(NOON_STEP, b"/%d" % offset) for offset in range(6, 10)}
    assert {session for _, session in seen_of(changes.seen)} == {b"6", b"7", b"8", b"9"}


def test_each_session_of_a_user_comes_once():
    block = new_block()
    append_events(block, [Event(i, user_id=f"u-{i % 5}", session_id=f"s-{i % 9}") for i in range(45)])
    seen = seen_of(fold_blocks([block], {0: 0})[0].seen)
    assert seen.keys() == {(b"u-%d" % (i % 5), b"s-%d" % (i % 9)) for i in range(45)}


def learn(slots: Slots, changes: fold.LogChanges) -> None:
    """Every session has a slot behind the others, and its user no other one."""
    steps = changes.seen.steps
    places = slots.count + np.arange(steps.size)
    slots.learn(changes.session_hashes, steps, np.column_stack([places, places, steps]))


def test_sessions_whose_slots_are_known_are_not_named_and_page_views_count_all_the_same():
    block = new_block(log_ids=(7, 9))
    rows = [Event(i, i % 2, user_id=f"u-{i}", session_id="s") for i in range(10)]
    append_events(block, rows)
    known = {0: Slots(), 1: Slots()}
    known[0].load("a ticket", 0, b"")
    first = fold_blocks([block], {0: 0, 1: 0}, known)
    assert [len(changes.seen) for changes in first] == [5, 5]
    learn(known[0], first[0])
    again = fold_blocks([block], {0: 0, 1: 0}, known)
    assert [len(changes.seen) for changes in again] == [0, 5]
    assert again[0].slots.size == 0
    assert [counts_of(a.pieces) for a in again] == [counts_of(f.pieces) for f in first]
    later = new_block()
    later_us = NOON_US + 10_000_000
    events = [
        Event(10, time_us=later_us, user_id="u-4", session_id="s"),
        rows[6],
        Event(11, time_us=later_us, user_id="u-4", session_id="another"),
    ]
    append_events(later, events)
    (changes,) = fold_blocks([later], {0: 0}, known)
    assert seen_of(changes.seen) == {(b"u-4", b"another"): NOON_STEP + 1}
    slot = int(known[0].of(first[0].session_hashes)[unpacked(first[0].seen.users).index(b"u-4")])
    assert (changes.slots.tolist(), changes.slot_steps.tolist()) == ([slot], [NOON_STEP + 1])
    known[0].clear()
    assert len(fold_blocks([block], {0: 0}, known)[0].seen) == 5


def test_more_pairs_than_a_piece_may_have_are_split_by_offset():
    block = new_block()
    append_events(block, [Event(i * 2, page_url=f"/{i % 2_500}") for i in range(4_000)])
    pieces = fold_blocks([block], {0: 0})[0].pieces
    check_chain(pieces, 0, 7_999)
    assert len(pieces) >= 3
    assert sum(counts_of(pieces).values()) == 4_000


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 3), st.sampled_from("abcde"), st.integers(1, 3)),
        max_size=40,
    )
)
def test_buckets_from_postgres_become_adjoining_pieces(rows):
    per_bucket = {(bucket, step, page): count for bucket, step, page, count in rows}
    ordered = [(*key, count) for key, count in sorted(per_bucket.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "PAIRS_MAX", 15)  # as many as a bucket can have here
        pieces = fold_counts(ordered, 1_000, 1_320, 10)
        check_chain(pieces, 1_000, 1_320)
    expected: Counter = Counter()
    for _, step, page, count in ordered:
        expected[step, page.encode()] += count
    assert counts_of(pieces) == expected


def test_a_bucket_counts_in_the_piece_that_holds_its_offsets():
    rows = [(bucket, 1, f"/{bucket}-{page}", 1) for bucket in range(4) for page in range(500)]
    pieces = fold_counts(rows, 0, 2_000, 500)
    assert [(piece.first_offset, piece.next_offset) for piece in pieces] == [
        (500 * bucket, 500 * (bucket + 1)) for bucket in range(4)
    ]
    for bucket, piece in enumerate(pieces):
        assert all(page.startswith(b"/%d-" % bucket) for page in pages_of(piece)[0][1][::2])


def test_rows_from_postgres_become_entries():
    assert flat_of(fold_seen([("u", "a", 1), ("ü", "b", 2)])) == [b"u", b"\1a", 1, "ü".encode(), b"\1b", 2]


def test_entries_of_one_user_stand_in_rounds_behind_those_of_all():
    rows = [("u", "a", 1), ("u", "b", 2), ("v", "c", 3), ("u", "d", 4), ("v", "e", 5)]
    assert flat_of(fold_seen(rows))[0::3] == [b"u", b"v", b"u", b"v", b"u"]
    assert flat_of(fold_seen(rows))[2::3] == [1, 3, 2, 5, 4]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=40), st.integers(1, 7))
def test_no_script_is_told_a_user_twice(visits, entries_max):
    block = new_block()
    events = [Event(i, user_id=f"u-{user}", session_id=f"s-{s}") for i, (user, s) in enumerate(visits)]
    append_events(block, events)
    seen = fold_blocks([block], {0: 0})[0].seen
    with mock.patch.object(store, "TOUCH_ENTRIES_MAX", entries_max):
        commands, _ = store.touch_commands("p", 7, 1, "", seen, "live")
    payloads = [msgpack.unpackb(command[5], raw=True) for command in commands]
    assert all(len(set(users)) == len(users) <= entries_max for _, _, users, _, _ in payloads)
    told = [pair for _, _, users, sessions, _ in payloads for pair in zip(users, sessions, strict=True)]
    assert told == list(zip(unpacked(seen.users), unpacked(seen.sessions), strict=True))
    # As few scripts as there can be: only who has several sessions needs more than one.
    most = max(Counter(unpacked(seen.users)).values(), default=0)
    assert len(commands) < len(told) / entries_max + most + 1


def test_blocks_that_follow_each_other_fold_as_one():
    def events(start: int, stop: int, log_index: int) -> list[Event]:
        return [
            Event(i, log_index, user_id=f"u-{i % 7}", session_id=f"s-{i % 3}", page_url=f"/{i % 5}")
            for i in range(start, stop)
        ]

    whole, *parts = (new_block(log_ids=(7, 9)) for _ in range(4))
    append_events(whole, events(0, 90, 0) + events(0, 60, 1))
    for part, (first, middle, end) in zip(parts, ((0, 30, 20), (30, 50, 20), (50, 90, 60)), strict=True):
        append_events(part, events(first, middle, 0) + events(20 if first else 0, end, 1))
    (wanted, wanted_1), (found, found_1) = (fold_blocks(blocks, {0: 3, 1: 0}) for blocks in ([whole], parts))
    for one, other in ((wanted, found), (wanted_1, found_1)):
        assert seen_of(one.seen) == seen_of(other.seen)
        assert counts_of(one.pieces) == counts_of(other.pieces)
        assert (one.log_id, one.first_offset, one.next_offset) == (
            other.log_id,
            other.first_offset,
            other.next_offset,
        )
