"""Who waits for Kafka's word that the topic is the same hears everything that keeps it from coming."""

from collections.abc import Callable, Iterator

import pytest

from hotpath.errors import LogLost
from hotpath.kafka import Topic
from hotpath.settings import Settings
from hotpath.workers import topic_watch
from hotpath.workers.topic_watch import TopicWatch

TAKEN = Topic("events", "taken-over", 1)
ANOTHER = Topic("events", "another", 1)


@pytest.fixture
def watch(monkeypatch) -> Iterator[Callable[..., TopicWatch]]:
    """`watch(found)`: one to which Kafka answers that, a topic or an error to raise."""
    answers: list[Topic | Exception] = []
    made: list[TopicWatch] = []

    def describe(*_: object) -> Topic:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    def make(found: Topic | Exception) -> TopicWatch:
        answers.append(found)
        made.append(TopicWatch(Settings(), TAKEN))
        return made[-1]

    monkeypatch.setattr(topic_watch, "admin_client", lambda settings: None)
    monkeypatch.setattr(topic_watch, "describe_topic", describe)
    yield make
    answers.append(ANOTHER)
    for each in made:  # its thread ends with that answer, while nobody else would be asked
        with pytest.raises((LogLost, ValueError)):
            each.confirm(each.ask())


def test_the_same_topic_is_confirmed(watch):
    same = watch(TAKEN)
    same.confirm(same.ask())
    same.check()


@pytest.mark.parametrize(
    ("found", "raised"),
    [(ANOTHER, LogLost), (ValueError("no such enum"), ValueError)],
    ids=["made anew", "an answer nobody foresaw"],
)
def test_what_ends_the_questions_is_raised_to_who_waits_for_an_answer(watch, found, raised):
    ended = watch(found)
    with pytest.raises(raised):
        ended.confirm(ended.ask())
    with pytest.raises(raised):
        ended.check()
