"""Counts by minute against a recount event by event, whatever the blocks hold."""

import random
from collections import Counter

import numpy as np
import pytest

from hotpath.events import EventClass
from hotpath.workers import copy_format, history
from tests.support.blocks import NOON_US, Event, append_events, new_block
from tests.support.history import read_minutes, read_pages


def block_of(seed: int, count: int, spread_s: int, pages: int):
    random_ = random.Random(seed)
    block = new_block([7, 9, 12])
    offsets = [0, 0, 0]
    events = []
    for _ in range(count):
        log_index = random_.randrange(3)
        event_class = random_.choice([EventClass.ACCEPTED] * 6 + [EventClass.BOT, EventClass.LATE])
        event = Event(
            offsets[log_index],
            log_index,
            event_class,
            NOON_US + random_.randint(-spread_s, spread_s) * 1_000_000 + random_.randrange(1_000_000),
            event_type=random_.choice(("page_view", "click")),
            page_url=f"/p/{random_.randrange(pages)}",
        )
        offsets[log_index] += 1
        events.append(event)
    events.append(Event(offsets[0], event_class=EventClass.NOT_JSON, payload=b"{"))
    copy_format.seal_rows(block, append_events(block, events))
    return block, events


@pytest.mark.parametrize(
    ("spread_s", "pages"), [(0, 3), (90, 40), (100_000, 1_000), (500_000_000, 5)], ids=str
)
@pytest.mark.parametrize("slots", [4, 1 << 16])
def test_history_is_what_a_recount_gives(spread_s, pages, slots, monkeypatch):
    monkeypatch.setattr(history, "SLOTS", slots)
    block, events = block_of(spread_s + pages, 700, spread_s, pages)
    log_ids = [7, 9, 12]
    minutes: dict[tuple[int, int], Counter] = {}
    views: Counter = Counter()
    for event in events[:-1]:
        minute = event.time_us // 60_000_000
        counts = minutes.setdefault((minute, log_ids[event.log_index]), Counter())
        counts[event.event_class.label] += 1
        if event.event_class is EventClass.ACCEPTED and event.event_type == "page_view":
            counts["page_views"] += 1
            views[(minute, event.page_url)] += 1
    expected = {
        key: tuple(counts[name] for name in ("accepted", "page_views", "bot", "late"))
        for key, counts in minutes.items()
    }
    assert read_minutes(history.minute_rows(block)) == expected
    assert read_pages(history.page_rows(block)) == dict(views)


def test_blocks_without_events_add_nothing():
    block = new_block([1])
    append_events(block, [Event(0, event_class=EventClass.EMPTY, payload=b"")])
    assert history.minute_rows(block) is None
    assert history.page_rows(block) is None


def test_groups_of_equal_keys_are_found_however_many_share_a_slot(monkeypatch):
    monkeypatch.setattr(history, "SLOTS", 1)
    keys = np.array([5, 3, 5, 5, 9, 3], np.int64)
    firsts, sizes = history._grouped(keys)
    assert dict(zip(keys[firsts].tolist(), sizes.tolist(), strict=True)) == {5: 3, 3: 2, 9: 1}
