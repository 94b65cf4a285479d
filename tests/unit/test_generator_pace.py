"""The schedule of tokens, on a clock of the test's own."""

import pytest

from generator.pace import CATCH_UP_FACTOR, FORGIVEN_S, TICK_S, Pace


def taken(pace: Pace, looks: list[float]) -> list[int]:
    return [pace.due(now) for now in looks]


@pytest.mark.parametrize("rate", [0.5, 1, 97, 1_000, 10_000, 250_000])
def test_the_rate_is_held_over_any_stretch(rate):
    pace, now, total = Pace(rate, now=100.0), 100.0, 0
    while now < 120.0:
        now += pace.pause_s(now)
        total += pace.due(now)
        assert total <= (now - 100.0) * rate
    assert total == pytest.approx((now - 100.0) * rate, abs=max(1, rate * 0.1))


def test_a_hiccup_is_made_up_for_without_a_burst():
    pace = Pace(10_000, now=0.0)
    taken(pace, [tick * TICK_S for tick in range(1, 21)])
    after = taken(pace, [1.0 + tick * TICK_S for tick in range(1, 400)])
    assert max(after[1:]) <= CATCH_UP_FACTOR * 10_000 * TICK_S + 1
    assert sum(after) + 1_000 == pytest.approx((1.0 + 399 * TICK_S) * 10_000, rel=0.001)


def test_an_outage_is_not_made_up_for():
    pace = Pace(1_000, now=0.0)
    looks = [600.0 + tick * TICK_S for tick in range(4_000)]
    assert sum(taken(pace, looks)) == pytest.approx(1_000 * (FORGIVEN_S + 20), rel=0.01)


def test_another_rate_holds_from_the_next_look_on():
    pace = Pace(1_000, now=0.0)
    pace.due(1.0)
    pace.set_rate(10, now=1.0)
    assert pace.due(1.05) == 0
    assert pace.due(1.1) == 1


def test_without_a_rate_there_is_always_work_and_no_pause():
    pace = Pace(0, now=0.0, unlimited_batch=7)
    assert taken(pace, [0.0, 0.0, 1.0]) == [7, 7, 7]
    assert pace.pause_s(1.0) == 0
