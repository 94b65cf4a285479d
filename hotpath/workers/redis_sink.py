"""Brings committed blocks into the live views, and keeps the views of this worker's logs whole.

It runs in one thread and owns a connection to Redis, the columns `applied` and `complete_until_us` of the worker's
log status, and a `Healer`. Invariants: only blocks that Postgres has committed reach it; nothing here waits longer
than `redis_timeout_s` a reply; no failure of Redis is an error of the worker.

Each log is in one of three phases::

    UNKNOWN ── state read ──► LIVE ── gap, ahead, broken ──► HEALING
       ▲                        │                               │
       └── connection lost ─────┴───────── healer is done ──────┘

Blocks of a log that is not LIVE wait in the ring while it has room (`is_ready`), and are left to the healer then, which
reads the same rows in Postgres. What is due once a second is in redis_upkeep.py.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import redis

from hotpath import clock
from hotpath.settings import PipelineSettings
from hotpath.shm.block import Block
from hotpath.views import link, store
from hotpath.views.fold import LogChanges, fold_blocks
from hotpath.views.healer import LOG_INTERVAL_S, Healer
from hotpath.views.postgres import Request
from hotpath.views.slots import SLOTS_MAX, Slots
from hotpath.views.store import LogState, Outcome
from hotpath.workers.live_log import LiveLog, Phase
from hotpath.workers.redis_upkeep import Upkeep

log = logging.getLogger(__name__)

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 5.0


class RedisSink:
    """See the module's docstring. `background=False`: healing runs inside `apply` and `tick` (for tests)."""

    def __init__(
        self,
        settings: PipelineSettings,
        log_status: np.ndarray,
        background: bool = True,
        clock_us: Callable[[], int] = clock.now_us,
    ) -> None:
        """log_status: LOG_STATUS_DTYPE, one row per log of this worker, in the order of its blocks' logs."""
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._status = log_status
        self._client = link.connect(settings.redis_url, settings.redis_timeout_s)
        self._slots_max = SLOTS_MAX // max(1, len(log_status))
        self._logs = [
            LiveLog(row, int(log_id), slots=Slots(self._slots_max))
            for row, log_id in enumerate(log_status["log_id"])
        ]
        self._healer = Healer(settings, [known.log_id for known in self._logs], background, clock_us)
        self._upkeep = Upkeep(settings, self._client, log_status, self._settle)
        self._by_id = {known.log_id: known for known in self._logs}
        self._as_of_us: int | None = None
        self._retry_at = 0.0
        self._backoff_s = BACKOFF_MIN_S
        self._warned_at = -LOG_INTERVAL_S
        self.heals = 0
        """Times a log was brought back from Postgres."""

    def is_ready(self, block: Block) -> bool:
        """Whether no log of a committed block is with the healer; True when Redis is away, for `apply` to find out.

        Raises Fenced when another worker has taken a log over.
        """
        self._collect()
        if time.monotonic() < self._retry_at:
            return True
        try:
            self._prepare(block)
        except (redis.RedisError, OSError) as error:
            self._lose(error)
            return True
        return _none_healing(self._logs[: block.log_count])

    def is_settled(self) -> bool:
        """Whether no log is with the healer. Raises Fenced when another worker has taken a log over."""
        self._collect()
        return _none_healing(self._logs)

    def apply(self, blocks: list[Block]) -> bool:
        """Bring committed blocks that follow each other into the views, at once; False when Redis is away.

        Logs that the healer has are left to it. Raises Fenced when another worker has taken a log over.
        """
        self._collect()
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._prepare(blocks[0])
            self._send(self._changes(blocks))
        except (redis.RedisError, OSError) as error:
            self._lose(error)
            return False
        self._backoff_s = BACKOFF_MIN_S
        return True

    def tick(self, now_us: int, waiting: Block | None = None) -> bool:
        """Once a second: look at the logs, publish, trim, scrub, have gaps healed. False when Redis is away.

        now_us: wall clock, microseconds since 1970. waiting: the oldest committed block that is yet to be applied; what
        it and those behind it hold is no gap. Raises Fenced.
        """
        self._collect()
        due_before = [known.due_at_tick for known in self._logs]
        self._note_due(waiting)
        self._healer.look()
        if time.monotonic() < self._retry_at:
            return False
        try:
            states = self._look_at(self._logs, others=True)
            self._notice_gaps(due_before)
            self._upkeep.publish(self._logs, now_us)
            self._learn_as_of(states)
            self._upkeep.trim(self._logs, self._as_of_us)
            self._upkeep.scrub(self._logs)
        except (redis.RedisError, OSError) as error:
            self._lose(error)
            return False
        self._backoff_s = BACKOFF_MIN_S
        return True

    def heal(self, log_id: int, rebuild: bool = False) -> None:
        """Have a log's gap filled from Postgres, or all of it rebuilt."""
        self._ask([self._by_id[log_id]], rebuild)

    @property
    def slots_bytes(self) -> int:
        """Memory of what is known of sessions in Redis."""
        return sum(known.slots.nbytes for known in self._logs)

    def close(self) -> None:
        """Close the connections and end the healer."""
        self._healer.close()
        self._client.close()

    # What the logs are

    def _look_at(self, logs: list[LiveLog], others: bool = False) -> dict[int, LogState | None]:
        """Read the states of `logs`, and of other workers' if `others`; own logs are adopted or given to the healer."""
        wanted = dict.fromkeys(known.log_id for known in logs)
        if others:
            wanted |= dict.fromkeys(self._healer.open_logs)
        replies = link.run(self._client, [link.state_script(self._prefix, log_id) for log_id in wanted])
        store.refuse(replies)
        states = {log_id: store.parse_state(reply) for log_id, reply in zip(wanted, replies, strict=True)}
        missing = []
        for known in logs:
            state = states[known.log_id]
            if known.phase is Phase.HEALING:
                continue
            if state is None:
                missing.append(known)
            else:
                self._adopt(known, state)
        self._ask(missing)
        return states

    def _adopt(self, known: LiveLog, state: LogState) -> None:
        if known.state is None or known.state.generation != state.generation:
            known.scrubbed = store.SCRUB_START
            known.slots.clear()
        known.phase, known.state = Phase.LIVE, state
        if state.applied <= self._status["committed"][known.row]:
            # Else Redis is ahead of a Postgres that was restored: what it says holds for more than there is now.
            known.learn(state.complete_until_us, state.applied)
        self._status["applied"][known.row] = state.applied
        self._status["complete_until_us"][known.row] = known.complete_until_us

    def _ask(self, logs: list[LiveLog], rebuild: bool = False) -> None:
        if not logs:
            return
        requests = []
        for known in logs:
            known.phase = Phase.HEALING
            known.slots.clear()
            epoch = int(self._status["epoch"][known.row])
            requests.append(Request(known.log_id, epoch, known.complete_until_us))
        self._healer.ask(requests, rebuild, self._as_of_us)
        self._collect()

    def _collect(self, timeout_s: float = 0.0) -> None:
        for log_id in self._healer.healed(timeout_s):
            self._by_id[log_id].phase = Phase.UNKNOWN
            self.heals += 1
        self._healer.check()

    def _note_due(self, waiting: Block | None) -> None:
        due = self._status["committed"] if waiting is None else waiting.logs["first_offset"]
        for known in self._logs:
            known.due_at_tick = int(due[known.row])

    def _notice_gaps(self, due_before: list[int]) -> None:
        """Ask for logs that have not moved for a whole tick and lag behind where they were to be, or are ahead."""
        still = []
        for known, due in zip(self._logs, due_before, strict=True):
            if known.phase is not Phase.LIVE:
                continue
            applied = known.state.applied
            elsewhere = applied < due or applied > self._status["committed"][known.row]
            if elsewhere and applied == known.applied_at_tick:
                still.append(known)
            known.applied_at_tick = applied
        self._ask(still)

    # Blocks

    def _prepare(self, block: Block) -> None:
        """Find out where the logs are, and have the offsets before the block's brought in where they are missing."""
        self._look_at([known for known in self._logs if known.phase is Phase.UNKNOWN])
        behind = []
        for known in self._logs[: block.log_count]:
            if known.phase is not Phase.LIVE:
                continue
            ahead = known.state.applied > max(
                self._status["committed"][known.row], block.logs["next_offset"][known.row]
            )
            if known.state.applied < block.logs["first_offset"][known.row] or ahead:
                behind.append(known)
        self._ask(behind)
        self._look_at([known for known in behind if known.phase is Phase.UNKNOWN])
        self._load_slots(self._logs[: block.log_count])

    def _load_slots(self, logs: list[LiveLog]) -> None:
        """Learn what Redis has of the logs that are live and of which nothing is known."""
        wanted = [known for known in logs if known.phase is Phase.LIVE and known.slots.ticket is None]
        replies = link.run(
            self._client,
            [
                store.slots_command(self._prefix, known.log_id, known.state.generation, self._slots_max)
                for known in wanted
            ],
        )
        outcomes = [store.outcome_of([reply]) for reply in replies]
        for known, reply, outcome in zip(wanted, replies, outcomes, strict=True):
            if outcome is Outcome.APPLIED:
                known.slots.load(reply[1].decode(), reply[2], reply[3])
        self._settle(wanted, outcomes)
        store.refuse(replies)

    def _changes(self, blocks: list[Block]) -> list[LogChanges]:
        """What the blocks have for their logs beyond what is applied already."""
        first, last = blocks[0], blocks[-1]
        start = {}
        for known in self._logs[: first.log_count]:
            # A log that the healer has not brought back in time is left to it.
            fits = known.phase is Phase.LIVE and first.logs["first_offset"][known.row] <= known.state.applied
            if fits and known.state.applied < last.logs["next_offset"][known.row]:
                start[known.row] = known.state.applied
        return fold_blocks(blocks, start, {row: self._logs[row].slots for row in start})

    def _send(self, work: list[LogChanges]) -> None:
        commands, ends = [], []
        for changes in work:
            known = self._by_id[changes.log_id]
            commands += store.change_commands(
                self._prefix, known.state.generation, changes, slots=known.slots
            )
            ends.append(len(commands))
        replies = link.run(self._client, commands)
        start, logs, outcomes = 0, [], []
        for changes, end in zip(work, ends, strict=True):
            known = self._by_id[changes.log_id]
            logs.append(known)
            outcomes.append(store.outcome_of(replies[start:end]))
            if outcomes[-1] is Outcome.APPLIED:
                self._advance(known, changes, store.places_of(replies[start:end], changes.seen.steps))
            else:
                known.slots.clear()
            start = end
        self._settle(logs, outcomes)
        store.refuse(replies)

    def _advance(self, known: LiveLog, changes: LogChanges, places: np.ndarray | None) -> None:
        watermark_s = max(known.state.watermark_s, changes.watermark_s)
        known.state = replace(known.state, applied=changes.next_offset, watermark_s=watermark_s)
        self._status["applied"][known.row] = changes.next_offset
        if places is None:
            known.slots.clear()
        elif known.slots.ticket is not None and places.size:
            known.slots.learn(changes.session_hashes, changes.seen.steps, places)

    def _learn_as_of(self, states: dict[int, LogState | None]) -> None:
        """as_of over all logs, as the states said; it stays unknown until every log has one."""
        if not self._healer.open_logs or any(states.get(log_id) is None for log_id in self._healer.open_logs):
            return
        least = min(states[log_id].complete_until_us for log_id in self._healer.open_logs)
        self._as_of_us = max(least, self._as_of_us or 0)

    def _settle(self, logs: list[LiveLog], outcomes: list[Outcome]) -> None:
        """Have the healer look at logs whose scripts did not find what they should."""
        found = list(zip(logs, outcomes, strict=True))
        self._ask([known for known, outcome in found if outcome is Outcome.BROKEN], rebuild=True)
        self._ask([known for known, outcome in found if outcome is Outcome.ELSEWHERE])

    def _lose(self, error: Exception) -> None:
        """Let Redis go: note what is no longer known, and when to try again."""
        self._client.connection_pool.disconnect()
        for known in self._logs:
            known.slots.clear()
            if known.phase is Phase.LIVE:
                known.phase = Phase.UNKNOWN
        self._retry_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        if time.monotonic() - self._warned_at > LOG_INTERVAL_S:
            self._warned_at = time.monotonic()
            log.warning("Redis is away, the live views will catch up: %s", error)


def _none_healing(logs: list[LiveLog]) -> bool:
    return not any(known.phase is Phase.HEALING for known in logs)
