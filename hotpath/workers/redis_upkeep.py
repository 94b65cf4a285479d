"""What the live views need once a second, traffic or not: published, trimmed, looked through for damage.

Part of the Redis sink, in its thread and over its connection. Each step does nothing for logs that are not live, and
hands what became of the others to `settle`, which has the healer look at those that it must. Raises redis' errors.
"""

import time
from collections.abc import Callable

import numpy as np
import redis

from hotpath.settings import PipelineSettings
from hotpath.views import link, progress, store
from hotpath.views.link import Command, Reply
from hotpath.views.store import Outcome
from hotpath.workers.live_log import LiveLog, Phase

TRIM_BUDGET_S = 0.1
"""Longest a tick spends on trimming: blocks wait meanwhile, what is left waits for the next tick."""

Settle = Callable[[list[LiveLog], list[Outcome]], None]


class Upkeep:
    """See the module's docstring."""

    def __init__(
        self, settings: PipelineSettings, client: redis.Redis, log_status: np.ndarray, settle: Settle
    ) -> None:
        """log_status: LOG_STATUS_DTYPE, one row per log of this worker."""
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._client = client
        self._status = log_status
        self._settle = settle

    def publish(self, logs: list[LiveLog], now_us: int) -> None:
        """Say until when the views are complete. now_us: wall clock, microseconds since 1970."""
        # Of a log that is ahead of Postgres nothing may be said: it is about to be rebuilt with less.
        committed = self._status["committed"]
        live = [known for known in _live(logs) if known.state.applied <= committed[known.row]]
        commands = []
        for known in live:
            until_us = self._complete_until(known, now_us)
            known.learn(until_us, known.state.applied)
            # Where Redis has lost some of it, that is yet to come back.
            if known.state.applied >= known.complete_at:
                until_us = known.complete_until_us
            self._status["complete_until_us"][known.row] = known.complete_until_us
            log_end = int(self._status["log_end"][known.row])
            commands.append(store.publish_command(self._prefix, known.log_id, known.state, until_us, log_end))
        self._run(live, commands)

    def _complete_until(self, known: LiveLog, now_us: int) -> int:
        # The moment before its offset: the other way round it might belong to a later offset (see control.py).
        ended_at_us = int(self._status["ended_at_us"][known.row])
        ended_offset = int(self._status["ended_offset"][known.row])
        return progress.complete_until_us(known.state, ended_at_us, ended_offset, now_us)

    def trim(self, logs: list[LiveLog], as_of_us: int | None) -> None:
        """Take away what has left the windows. as_of_us: of the views over all logs; None when it is not known."""
        left = _live(logs)
        borders = {known.log_id: progress.borders(self._settings, known.state, as_of_us) for known in left}
        deadline = time.monotonic() + TRIM_BUDGET_S
        calls = 0
        while left and time.monotonic() < deadline:
            ticket = store.new_ticket()
            replies = self._run(
                left,
                [
                    store.trim_command(
                        self._prefix, known.log_id, known.state.generation, *borders[known.log_id], ticket
                    )
                    for known in left
                ],
            )
            calls += 1
            trimmed = [pair for pair in zip(left, replies, strict=True) if pair[0].phase is Phase.LIVE]
            for known, reply in trimmed:
                store.forget_freed(known.slots, reply, ticket)
            left = [known for known, reply in trimmed if store.trims_on(reply, calls)]

    def scrub(self, logs: list[LiveLog]) -> None:
        """Look through a piece of each log: who damages a key under an idle user is noticed by nothing else."""
        live = _live(logs)
        replies = self._run(
            live,
            [
                store.scrub_command(
                    self._prefix, known.log_id, known.state.generation, known.scrubbed, len(live)
                )
                for known in live
            ],
        )
        for known, reply in zip(live, replies, strict=True):
            if known.phase is Phase.LIVE:
                known.scrubbed = (reply[1], reply[2])

    def _run(self, logs: list[LiveLog], commands: list[Command]) -> list[Reply]:
        """Replies to one command of each log; logs for which it did not do what it should are settled."""
        replies = link.run(self._client, commands)
        self._settle(logs, [store.outcome_of([reply]) for reply in replies])
        store.refuse(replies)
        return replies


def _live(logs: list[LiveLog]) -> list[LiveLog]:
    return [known for known in logs if known.phase is Phase.LIVE]
