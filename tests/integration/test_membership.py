"""Workers' places in a consumer group, on a real Kafka; no worker is behind them."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from hotpath.errors import Unavailable
from hotpath.settings import PipelineSettings
from hotpath.workers.membership import Membership, Replaced
from tests.support.pipeline import Topic, wait_until

EVERYTHING = frozenset(range(4))


@pytest.fixture
def join(topic: Topic) -> Iterator[Callable[..., Membership]]:
    """`join("red")`: a member of that name, and how long Postgres has been silent for it."""
    joined: list[Membership] = []

    def member(machine: str, silent_s: float = 0.0) -> Membership:
        settings = PipelineSettings(
            kafka_bootstrap=topic.bootstrap,
            kafka_options=topic.options,
            topic=topic.name,
            group=f"group-{topic.name}",
            machine=machine,
            group_session_s=2,
            group_handover_s=60,
        )
        joined.append(Membership(settings, 0, SimpleNamespace(silent_s=silent_s)))
        return joined[-1]

    yield member
    for each in joined:
        each.let_go()
        each.close()


def test_revoked_partitions_are_others_only_when_they_were_let_go(join):
    red = join("red")
    wait_until(lambda: red.given == EVERYTHING, "the only member has everything")
    assert red.take(but=()) == EVERYTHING
    blue = join("blue")
    wait_until(lambda: len(red.given) == 2, "half of them are wanted back")
    assert not blue.given
    assert not red.lost
    kept = red.given
    red.let_go()
    wait_until(lambda: blue.given == EVERYTHING - kept, "the other has that half")
    assert red.given == kept


def test_a_member_that_comes_back_in_time_is_not_missed(join):
    red, blue = join("red"), join("blue")
    wait_until(lambda: len(red.given) == len(blue.given) == 2, "each has a half")
    before = red.given, blue.given
    red.close()
    again = join("red")
    wait_until(lambda: again.given == before[0], "it has the same partitions again")
    assert blue.given == before[1]


def test_a_member_leaves_when_postgres_is_silent(join):
    red = join("red")
    wait_until(lambda: red.given == EVERYTHING, "the only member has everything")
    red._postgres.silent_s = 3_600.0
    blue = join("blue")
    wait_until(lambda: blue.given == EVERYTHING, "the other has everything")
    assert not red.given
    with pytest.raises(Unavailable, match="Postgres has not answered"):
        red.check()


def test_of_two_members_of_one_name_the_first_is_fenced(join):
    first = join("red")
    wait_until(lambda: first.given == EVERYTHING, "it has everything")
    second = join("red")

    def fenced() -> bool:
        try:
            first.check()
        except Replaced:
            return True
        return False

    wait_until(fenced, "the first is told")
    wait_until(lambda: second.given == EVERYTHING, "the second has everything")
