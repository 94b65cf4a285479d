"""What the API remembers of the last seconds and minutes: rates, and the line of the active users."""

from api.rates import LINE_S, ActiveUsersLine, Rate

STEP_US = 10_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_the_mean_over_the_last_seconds():
    clock = Clock()
    rate = Rate(clock)
    assert rate.per_s() is None
    for second in range(20):
        clock.now = 100.0 + second
        rate.add({"a": second * 10, "b": min(second, 10) * 2})
    assert rate.per_s() == 10.0, "b stood still for the last nine seconds"


def test_a_rate_takes_counters_that_are_new_or_begin_again_from_then_on():
    clock = Clock()
    rate = Rate(clock)
    rate.add({("worker", 1): 1_000})
    clock.now += 2
    rate.add({("worker", 1): 1_010, ("worker", 2): 500})
    assert rate.per_s() == 5.0
    clock.now += 10
    rate.add({("worker", 1): 3, ("worker", 2): 600})
    clock.now += 10
    rate.add({("worker", 1): 13, ("worker", 2): 700})
    assert rate.per_s() == 11.0


def test_the_line_keeps_the_latest_of_each_step_for_fifteen_minutes():
    line = ActiveUsersLine()
    for second in range(0, 2_000, 2):
        line.add(second * 1_000_000, second)
    points = line.points()
    assert points[-1] == (1_998_000_000, 1_998)
    assert points[0][0] > (1_998 - LINE_S) * 1_000_000
    assert len(points) == 90
    steps = [as_of_us // STEP_US for as_of_us, _ in points]
    assert steps == list(range(steps[0], steps[0] + 90))
    assert points[-2] == (1_988_000_000, 1_988), "the last reading of its step"


def test_the_line_is_filled_from_before_its_first_point_and_within_its_length():
    line = ActiveUsersLine()
    line.add(2_000 * 1_000_000, 7)
    line.fill([(1_000_000_000, 1), (1_150_000_000, 2), (1_900_000_000, 3), (2_100_000_000, 4)])
    assert line.points() == [(1_150_000_000, 2), (1_900_000_000, 3), (2_000_000_000, 7)]
    empty = ActiveUsersLine()
    empty.fill([(5, 1)])
    assert empty.points() == [(5, 1)]
