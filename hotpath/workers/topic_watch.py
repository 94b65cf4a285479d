"""Watches that the topic still is the incarnation that is being read.

A topic that is deleted and made again has the same name, and Kafka's client reads on in the new one without a word
when that is long enough: the stored offset would mean other messages, and the new topic's first ones would never be
read. So Kafka is asked for the topic's id after a block was filled, and the block is committed only when the answer is
the id that was taken over: all its messages were read before the question. The question goes out when a block is
published, and is answered before the sink is through with the block before; it costs a flush nothing.

State owned: a client, a thread that asks, and the moment of the last question with the right answer.
"""

import logging
import threading
import time
from collections.abc import Callable

from hotpath.errors import LogLost, Unavailable
from hotpath.kafka import Topic, admin_client, describe_topic
from hotpath.settings import Settings

log = logging.getLogger(__name__)

INTERVAL_S = 5.0
"""Pause between questions while no block asks: an idle topic that was made anew is noticed so soon."""
RETRY_S = 0.2
ANSWER_TIMEOUT_S = 5
BEAT_S = 0.1
LOG_INTERVAL_S = 10.0


class TopicWatch:
    """Asks in a thread of its own; `ask` and `confirm` are for the pipeline's threads."""

    def __init__(
        self, settings: Settings, topic: Topic, heartbeat: Callable[[], None] = lambda: None
    ) -> None:
        """`heartbeat` is called at least every 0.1 s while `confirm` waits. Raises Unavailable."""
        self._settings = settings
        self._topic = topic
        self._heartbeat = heartbeat
        self._admin = admin_client(settings)
        self._asked = threading.Event()
        self._answered = threading.Condition()
        self._confirmed_at = float("-inf")
        self._error: Exception | None = None
        self._warned_at = float("-inf")
        threading.Thread(target=self._run, name="topic-watch", daemon=True).start()

    def ask(self) -> float:
        """Have Kafka asked now; gives the moment to `confirm`."""
        now = time.monotonic()
        self._asked.set()
        return now

    def confirm(self, moment: float, gives_up: Callable[[], bool] = lambda: False) -> None:
        """Return when what was read before `moment` (of time.monotonic) is of the right topic.

        Raises LogLost when it is not, Unavailable when the caller `gives_up` before Kafka has answered, and whatever
        ended the thread that asks.
        """
        with self._answered:
            while self._confirmed_at < moment:
                self.check()
                if gives_up():
                    raise Unavailable("let go before Kafka has confirmed that the topic is the same")
                self._heartbeat()
                self._answered.wait(BEAT_S)

    def check(self) -> None:
        """Raise LogLost when the topic was made anew, and whatever ended the thread that asks."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while True:
                self._asked.wait(INTERVAL_S)
                self._asked.clear()
                self._ask()
        except Exception as error:  # whoever waits for an answer must hear that none will come
            with self._answered:
                self._error = error
                self._answered.notify_all()

    def _ask(self) -> None:
        """One question and its answer. Raises LogLost."""
        asked_at = time.monotonic()
        try:
            found = describe_topic(self._settings, ANSWER_TIMEOUT_S, self._admin)
        except Unavailable as error:
            if asked_at - self._warned_at > LOG_INTERVAL_S:
                self._warned_at = asked_at
                log.warning("nothing is committed until Kafka answers: %s", error)
            self._asked.set()
            time.sleep(RETRY_S)
            return
        if found.topic_id != self._topic.topic_id:
            raise LogLost(
                f"topic {found.name!r} was made anew: Postgres continues the one with id {self._topic.topic_id}, "
                f"Kafka has id {found.topic_id}; give the old one up: `python -m hotpath.logs retire`"
            )
        with self._answered:
            self._confirmed_at = asked_at
            self._answered.notify_all()
