"""When a takeover asks Kafka again, and when it gives up."""

import itertools

import pytest

from hotpath.errors import LogLost, LogShorter
from hotpath.workers.assignment import settled
from hotpath.workers.logs import LogHandle

HANDLES = [LogHandle(1, 0, 1, 10, 0)]


class WritingProducers:
    """A Kafka whose logs are longer each time it is asked."""

    def __init__(self, ends: itertools.count) -> None:
        self._ends = ends
        self.asked = 0

    def __call__(self) -> dict[int, tuple[int, int]]:
        self.asked += 1
        return {0: (0, next(self._ends))}


@pytest.mark.parametrize("fault", ["retention has passed", "was made anew"])
def test_a_lost_log_ends_the_takeover_while_producers_write(fault):
    kafka = WritingProducers(itertools.count(100))

    def take_over(ranges) -> list[LogHandle]:
        raise LogLost(fault, 0)

    with pytest.raises(LogLost, match=fault):
        settled(kafka, take_over)
    assert kafka.asked == 1


def test_what_an_owner_stored_until_it_was_fenced_is_not_taken_for_a_shorter_log():
    kafka = WritingProducers(itertools.count(7))
    stored = iter([8, 9])  # by two owners, one after the other

    def take_over(ranges) -> list[LogHandle]:
        if (next_offset := next(stored, 0)) > ranges[0][1]:
            raise LogShorter("shorter", 0, next_offset)
        return HANDLES

    assert settled(kafka, take_over) == HANDLES
    assert kafka.asked > 1


def test_a_shorter_log_ends_the_takeover_while_producers_write():
    kafka = WritingProducers(itertools.count(5))

    def take_over(ranges) -> list[LogHandle]:
        raise LogShorter("shorter", 0, 50)

    with pytest.raises(LogShorter):
        settled(kafka, take_over)
    assert kafka.asked == 2
