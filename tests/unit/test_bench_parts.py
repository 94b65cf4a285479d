"""What benchmarks decide without servers: truth of the peers' checks, padding, flatness, what they ask."""

import collections
import importlib
import sys
import time

import numpy as np
import orjson
import pytest

from bench import results
from bench.load import machine_clock_us
from bench.peers.catalogue import PEERS, connect_worker
from bench.peers.job import PROGRAMS, Job
from bench.peers.programs import checks
from bench.peers.race import Race
from bench.questions import QUESTIONS
from bench.soak import Clock
from bench.start import summed_up
from bench.tables import MULTI
from bench.vitals import GROWTH_FLAT, flatness
from bench.workload import padded, prepared, values_of
from generator.plan import Shares
from hotpath.reference import Reference
from hotpath.settings import Settings
from hotpath.sql import SQL_DIR


@pytest.fixture
def deep_recursion():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize("loads", [checks.plain_loads, orjson.loads])
def test_what_peers_check_is_what_the_reference_says(loads, deep_recursion):
    values = values_of(prepared(8_000, users=500, shares=Shares(bots=0.01, malformed=0.6, late=0.01)))
    reference, now_ms = Reference(), time.time_ns() // 10**6
    stored = 0
    for value in values:
        outcome = reference.judge(value, now_ms * 1_000)
        row = checks.row_of(value, now_ms, loads)
        if outcome.event_class != "accepted":
            assert row is None, value[:200]
            continue
        stored += 1
        moment, *texts = row
        assert round(moment.timestamp() * 1e6) == outcome.time_us
        assert tuple(text.encode() for text in texts) == outcome.texts
    assert 0 < stored < len(values)


def test_what_peers_tell_apart_is_what_the_reference_says(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAMS))  # programs import each other as scripts do
    apart = importlib.import_module("apart").Apart()
    values = values_of(
        prepared(30_000, users=300, partitions=1, shares=Shares(bots=0.2, malformed=0, late=0.05))
    )
    reference, now_ms = Reference(), time.time_ns() // 10**6
    found = collections.Counter()
    for value in values:
        expected = reference.classify(0, value, now_ms * 1_000).event_class
        found[expected] += 1
        assert apart.class_of(checks.row_of(value, now_ms, orjson.loads)) == expected
    assert set(found) == {"accepted", "bot", "late"}


def test_padded_messages_have_the_bytes_asked_for_and_say_the_same():
    (batch,) = prepared(500, users=500)
    plain = next(value for value in batch.values if isinstance(value, str))
    for size in (256, 4_096):
        longer = padded(plain, size)
        assert len(longer.encode()) == size
        event = orjson.loads(longer)
        assert event.pop("padding") and event == orjson.loads(plain)
    assert padded(plain, 10) == plain
    assert padded(b"raw", 4_096) == b"raw" and padded(None, 4_096) is None


def _samples(values):
    return [{"seconds": 60.0 * number, "mib": value} for number, value in enumerate(values)]


def test_a_saw_tooth_is_flat_and_a_leak_is_not():
    saw = flatness(_samples([100, 120, 140] * 20), ["mib"])["mib"]
    assert saw["flat"] and abs(saw["growth"]) < GROWTH_FLAT
    leak = flatness(_samples(np.linspace(100, 200, 60)), ["mib"])["mib"]
    assert not leak["flat"] and leak["growth"] == pytest.approx(0.28, abs=0.02)


def test_what_grows_before_the_second_half_only_is_flat():
    assert flatness(_samples([*range(30), *[30] * 31]), ["mib"])["mib"]["flat"]


def test_a_small_rise_may_be_allowed_and_few_samples_say_nothing():
    rising = _samples(np.linspace(1, 3, 40))
    assert not flatness(rising, ["mib"])["mib"]["flat"]
    assert flatness(rising, ["mib"], {"mib": 4})["mib"]["flat"]
    assert flatness(_samples([1, 2, 3]), ["mib"])["mib"]["flat"] is None
    assert flatness(rising, ["absent"]) == {}


def test_a_clock_jumps_for_everybody_who_maps_its_file(tmp_path):
    clock = Clock(tmp_path)
    seen = np.memmap(clock.path, np.int64, "r", shape=(1,))
    clock.jump(3_600)
    clock.jump(3_600)
    assert clock.ahead_s == 7_200 and int(seen[0]) == 7_200 * 10**6
    assert clock.now_us() >= machine_clock_us() + 7_199 * 10**6


def test_times_are_summed_up_by_median_and_most():
    assert summed_up([3.0, 1.0, 2.0]) == {"median_s": 2.0, "max_s": 3.0, "all_s": [3.0, 1.0, 2.0]}


def test_a_rate_is_told_only_when_most_rows_came_after_the_first_look():
    assert Race(100, 1.0, 2.0, 1_100, {}).rows_per_s == 500
    assert Race(600, 1.0, 2.0, 1_100, {}).rows_per_s is None


def test_every_question_keeps_the_shares_of_messages_possible():
    for question in QUESTIONS.values():
        for case in question.cases:
            shares = case.workload.get("shares")
            assert shares is None or shares.bots + shares.late <= 1 >= shares.malformed
            assert case.events_factor > 0


def test_kafka_connect_reads_from_the_beginning_and_as_our_user(tmp_path):
    options = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    settings = Settings(kafka_options=options | {"sasl.username": "us", "sasl.password": "secret"})
    told = connect_worker(Job(settings, "", "peer", 2), tmp_path)
    assert told["consumer.auto.offset.reset"] == "earliest"
    assert 'password="secret"' in told["consumer.sasl.jaas.config"]
    fields = orjson.loads(told["value.converter.schema.content"])["fields"]
    assert {field["field"] for field in fields} == {
        "timestamp",
        "user_id",
        "event_type",
        "page_url",
        "session_id",
    }


def test_peers_have_names_of_their_own_and_say_what_they_guarantee():
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert all(peer.guarantee.startswith("at least once") and peer.does for peer in PEERS)


def test_plots_are_drawn(tmp_path):
    results.bars(tmp_path / "bars.png", "rates", "here, now", {"hotpath": 3.0, "another": 1.0})
    panels = {"one": {"a": ([1, 10], [3, 4]), "b": ([1, 10], [1, 2])}, "two": {"c": ([1, 10], [0, 1])}}
    results.lines(tmp_path / "lines.png", "growth", "here, now", panels, "users", log_x=True)
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("bars.png", "lines.png"))


def test_the_table_that_is_compared_with_others_has_the_index_of_the_schema():
    schema = "".join((SQL_DIR / "schema.sql").read_text().split())
    assert f"events_brinoneventsusing{''.join(MULTI.split())};" in schema
