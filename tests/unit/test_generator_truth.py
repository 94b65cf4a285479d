"""The generator's counts against a plain reading of the rules, message by message."""

from collections import Counter, defaultdict

import numpy as np
import orjson
import pytest

from generator.plan import Shares
from generator.stream import Batch, Scenario, Stream
from hotpath.events import PAGE_VIEW
from hotpath.partitioner import partition_for
from hotpath.reference import Reference

NOW_US = 1_900_000_000_000_000


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


def judge(batches: list[tuple[Batch, int]]) -> Counter:
    """Classes of all messages of `batches`, each with its append time, read log by log."""
    reference, found = Reference(), Counter()
    for batch, append_us in batches:
        for value, log in zip(batch.values, batch.partitions, strict=True):
            raw = value.encode() if isinstance(value, str) else value
            found[reference.classify(log, raw, append_us).event_class] += 1
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


@pytest.mark.parametrize("step_us", [10, 1_000, 10_000])
def test_the_same_seed_gives_the_same_messages_however_they_are_cut(step_us):
    times_us = NOW_US + np.arange(10_000) * step_us
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
    reference = Reference()
    for key, value in zip(batch.keys, batch.values, strict=True):
        outcome = reference.classify(0, value.encode() if isinstance(value, str) else value, NOW_US)
        assert outcome.texts is None or outcome.texts[0].decode() == key


def test_pages_follow_zipf():
    batch = Stream(scenario(users=50_000, pages=1_000, shares=Shares(0, 0, 0))).take(constant(40_000))
    views = Counter(orjson.loads(value)["page_url"] for value in batch.values)
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
