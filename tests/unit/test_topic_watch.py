"""Who waits for Kafka's word that the topic is the same hears everything that keeps it from coming."""

import pytest

from hotpath.errors import LogLost
from hotpath.kafka import Topic
from hotpath.settings import Settings
from hotpath.workers import topic_watch
from hotpath.workers.topic_watch import TopicWatch

TAKEN = Topic("events", "taken-over", 1)


@pytest.fixture
def answer(monkeypatch):
    """Sets what Kafka answers: a topic, or an error to raise."""

    def become(found: Topic | Exception) -> None:
        def describe(*_: object) -> Topic:
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(topic_watch, "describe_topic", describe)

    return become


def test_the_same_topic_is_confirmed(answer):
    answer(TAKEN)
    watch = TopicWatch(Settings(), TAKEN)
    watch.confirm(watch.ask())
    watch.check()


@pytest.mark.parametrize(
    ("found", "raised"),
    [(Topic("events", "another", 1), LogLost), (ValueError("no such enum"), ValueError)],
    ids=["made anew", "an answer nobody foresaw"],
)
def test_what_ends_the_questions_is_raised_to_who_waits_for_an_answer(answer, found, raised):
    answer(found)
    watch = TopicWatch(Settings(), TAKEN)
    with pytest.raises(raised):
        watch.confirm(watch.ask())
    with pytest.raises(raised):
        watch.check()
