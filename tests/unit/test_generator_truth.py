"""The generator's counts against a plain reading of the rules, message by message."""

import re
from collections import Counter, defaultdict
from datetime import datetime

import numpy as np
import orjson
import pytest

from generator.plan import Shares
from generator.stream import Batch, Scenario, Stream
from hotpath.events import FIELDS, PAGE_VIEW
from hotpath.partitioner import partition_for

NOW_US = 1_900_000_000_000_000
TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
LIMITS = {"user_id": 128, "session_id": 128, "page_url": 2_048}


def scenario(**changes) -> Scenario:
    chosen = {
        "seed": 7,
        "users": 500,
        "pages": 50,
        "shares": Shares(bots=0.02, malformed=0.05, late=0.01),
        "partitions": 16,
        "run": "run1",
    }
    return Scenario(**{**chosen, **changes})


def constant(count: int, time_us: int = NOW_US) -> np.ndarray:
    return np.full(count, time_us, np.int64)


def instant(text: str) -> datetime | None:
    """The time that a timestamp names, or None when it is not one that the rules allow."""
    match = TIMESTAMP.fullmatch(text)
    if not match:
        return None
    day, clock, _, zone = match.groups()
    try:
        time = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        year = time.astimezone(tz=datetime.fromisoformat("2000-01-01T00:00:00Z").tzinfo).year
    except (ValueError, OverflowError):
        return None
    return time if 2000 <= year <= 2099 else None


def alone(value: str | bytes | None, append_us: int) -> tuple[str, dict]:
    """The class of a message as far as it depends on no other, and its event."""
    raw = value.encode() if isinstance(value, str) else value or b""
    if len(raw) > 65_536:
        return "too_large", {}
    if not raw.strip(b" \t\r\n"):
        return "empty", {}
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "not_json", {}
    if not isinstance(event, dict):
        return "not_object", {}
    fields = [event.get(name) for name in FIELDS]
    if None in fields:
        return "missing_field", {}
    if not all(isinstance(field, str) for field in fields):
        return "wrong_type", {}
    return of_fields(event, append_us), event


def of_fields(event: dict, append_us: int) -> str:
    for name in FIELDS:
        text = event[name]
        if not text or re.search(r"[\x00-\x1f\x7f]", text) or len(text.encode()) > LIMITS.get(name, 1e9):
            return "bad_value"
        if name in ("user_id", "session_id") and text != text.strip(" "):
            return "bad_value"
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", event["event_type"]):
        return "bad_value"
    if " " in event["page_url"] or not event["page_url"].startswith(("/", "http://", "https://")):
        return "bad_value"
    time = instant(event["timestamp"])
    if time is None:
        return "bad_timestamp"
    return "future" if time.timestamp() * 1e6 > append_us + 60_000_000 else "accepted"


def judge(batches: list[tuple[Batch, int]]) -> Counter:
    """Classes of all messages of `batches`, each with its append time, read log by log."""
    watermarks, views, found = defaultdict(int), Counter(), Counter()
    for batch, append_us in batches:
        for value, log in zip(batch.values, batch.partitions, strict=True):
            label, event = alone(value, append_us)
            if label == "accepted":
                second = int(instant(event["timestamp"]).timestamp())
                viewer = (log, event["user_id"], second)
                if second < watermarks[log] - 300:
                    label = "late"
                elif event["event_type"] == PAGE_VIEW and views[viewer] >= 10:
                    label = "bot"
                else:
                    views[viewer] += event["event_type"] == PAGE_VIEW
                if label != "late":
                    watermarks[log] = max(watermarks[log], second)
            found[label] += 1
    return found


def nonzero(truth: dict[str, int]) -> dict[str, int]:
    return {label: count for label, count in truth.items() if count}


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_is_what_the_rules_make_of_the_messages(seed):
    stream = Stream(scenario(seed=seed))
    batches = []
    for number in range(200):
        time_us = NOW_US + number * 37_000
        batches.append((stream.take(constant(number % 120 + 1, time_us)), time_us))
    assert judge(batches) == nonzero(stream.truth())


@pytest.mark.parametrize("rate", [1, 100, 1_000_000])
def test_the_truth_holds_at_any_speed(rate):
    stream = Stream(scenario(users=3))
    times_us = NOW_US + (np.arange(9_000) * (1_000_000 / rate)).astype(np.int64)
    batches = [(stream.take(part), int(part[-1])) for part in np.array_split(times_us, 300)]
    assert judge(batches) == nonzero(stream.truth())


def test_the_truth_holds_when_the_clock_leaps_in_the_middle_of_bursts():
    stream = Stream(scenario(shares=Shares(bots=0.3, malformed=0, late=0.01)))
    times_us = [NOW_US + number * 400_000_000 for number in range(300)]
    batches = [(stream.take(constant(17, time_us)), time_us) for time_us in times_us]
    assert judge(batches) == nonzero(stream.truth())


def test_every_class_is_generated():
    stream = Stream(scenario(shares=Shares(bots=0.02, malformed=0.3, late=0.01)))
    stream.take(constant(20_000))
    assert all(stream.truth().values())


@pytest.mark.parametrize("bots", [0.0, 0.02, 0.4])
def test_shares_are_those_asked_for(bots):
    count = 60_000
    stream = Stream(scenario(shares=Shares(bots=bots, malformed=0.02, late=0.005)))
    stream.take(constant(count))
    truth = stream.truth()
    assert truth["bot"] / count == pytest.approx(bots, rel=0.1)
    assert truth["late"] / count == pytest.approx(0.005, rel=0.1)
    refused = count - truth["bot"] - truth["late"] - truth["accepted"]
    assert refused / count == pytest.approx(0.02, rel=0.15)


def test_without_faults_every_message_is_accepted():
    stream = Stream(scenario(shares=Shares(0, 0, 0)))
    stream.take(constant(5_000))
    assert nonzero(stream.truth()) == {"accepted": 5_000}


def test_the_same_seed_gives_the_same_messages_however_they_are_cut():
    times_us = NOW_US + np.arange(10_000) * 10_000
    whole, parts = Stream(scenario()), Stream(scenario())
    one = whole.take(times_us, NOW_US)
    many = [parts.take(part, NOW_US) for part in np.array_split(times_us, 77)]
    assert one.keys == [key for batch in many for key in batch.keys]
    assert one.partitions == [partition for batch in many for partition in batch.partitions]
    assert one.values == [value for batch in many for value in batch.values]
    assert whole.truth() == parts.truth()


def test_another_seed_gives_other_messages():
    assert Stream(scenario()).take(constant(50)).values != Stream(scenario(seed=8)).take(constant(50)).values


def test_messages_lie_in_the_partition_of_their_key():
    batch = Stream(scenario(shares=Shares(0.05, 0.2, 0.01))).take(constant(5_000))
    for key, partition in zip(batch.keys, batch.partitions, strict=True):
        home = partition_for(key.encode() if isinstance(key, str) else key, 16)
        assert home in (partition, None)


def test_accepted_events_are_keyed_by_their_user():
    batch = Stream(scenario()).take(constant(5_000))
    for key, value in zip(batch.keys, batch.values, strict=True):
        label, event = alone(value, NOW_US)
        assert label != "accepted" or event["user_id"] == key


def test_pages_follow_zipf():
    batch = Stream(scenario(users=50_000, pages=1_000, shares=Shares(0, 0, 0))).take(constant(40_000))
    views = Counter(event["page_url"] for _, event in (alone(v, NOW_US) for v in batch.values))
    first, second, *_ = views.most_common()
    assert first[0] == "/"
    assert first[1] / second[1] == pytest.approx(2, rel=0.15)


def test_at_a_rate_that_the_people_can_hold_most_events_are_page_views():
    stream = Stream(scenario(users=50_000, shares=Shares(0, 0, 0)))
    times_us = NOW_US + np.arange(50_000) * 100
    events = [orjson.loads(value) for value in stream.take(times_us).values]
    share = sum(event["event_type"] == PAGE_VIEW for event in events) / len(events)
    assert share == pytest.approx(0.7, abs=0.02)


def test_people_come_and_go_and_some_have_two_sessions():
    stream = Stream(scenario(users=200, shares=Shares(0, 0, 0)))
    events = [orjson.loads(value) for value in stream.take(constant(20_000)).values]
    early = {event["user_id"] for event in events[:400]}
    assert 100 < len(early) < 200
    sessions = defaultdict(set)
    for event in events[:400]:
        sessions[event["user_id"]].add(event["session_id"])
    assert any(len(ids) == 2 for ids in sessions.values())
    assert len({event["user_id"] for event in events if event["user_id"].startswith("user-")}) == 200
    assert len({event["session_id"] for event in events}) > 600
