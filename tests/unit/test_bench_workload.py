"""The standard workload is what it says."""

from collections import Counter, defaultdict

import orjson
import pytest

from bench.workload import Workload, parsable, prepared, values_of
from hotpath.reference import Reference

EVENTS = 60_000
OPTIONS = {"partitions": 4, "users": 1_000_000, "as_if_rate": 300_000}


@pytest.fixture(scope="module")
def workload() -> tuple[Workload, list]:
    made = Workload(EVENTS, **OPTIONS)
    return made, list(made.batches())


def test_its_truth_is_what_the_rules_make_of_it(workload):
    made, batches = workload
    reference, found = Reference(), Counter()
    for batch in batches:
        for value, log in zip(batch.values, batch.partitions, strict=True):
            raw = value.encode() if isinstance(value, str) else value
            found[reference.classify(log, raw, made._began_us + 10**6).event_class] += 1
    assert dict(found) == {label: count for label, count in made.truth().items() if count}


def test_its_shares_are_those_of_the_standard(workload):
    truth = workload[0].truth()
    assert sum(truth.values()) == EVENTS
    assert truth["bot"] / EVENTS == pytest.approx(0.005, rel=0.2)
    assert truth["late"] / EVENTS == pytest.approx(0.001, rel=0.2)
    refused = EVENTS - truth["accepted"] - truth["bot"] - truth["late"]
    assert refused / EVENTS == pytest.approx(0.005, rel=0.2)


def test_nobody_but_bots_is_over_one_event_a_second(workload):
    events = [orjson.loads(value) for value in parsable(values_of(workload[1]))]
    people = [event for event in events if str(event.get("user_id")).startswith("user-")]
    assert len(people) > 0.98 * EVENTS
    moments = Counter((event["user_id"], event.get("timestamp")) for event in people)
    assert moments.most_common(1)[0][1] <= 2  # two only where one of them is malformed


def test_people_have_more_than_one_session_on_average():
    batches = prepared(10_000, partitions=4, users=1_000, as_if_rate=500)
    sessions = defaultdict(set)
    for value in parsable(values_of(batches)):
        event = orjson.loads(value)
        if str(event.get("user_id")).startswith("user-") and isinstance(event.get("session_id"), str):
            sessions[event["user_id"]].add(event["session_id"])
    assert sum(map(len, sessions.values())) / len(sessions) > 1.2


def test_what_is_parsable_may_be_joined_into_an_array():
    nested = b'{"a":' + b"[" * 1_023 + b"]" * 1_023 + b"}"
    values = [b'{"a":1}', b'{"a":1},{"b":2}', b"", b"[1]", b"x", nested, b"null"]
    assert parsable(values) == [b'{"a":1}']
