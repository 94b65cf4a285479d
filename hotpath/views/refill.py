"""The views from Postgres: a gap of offsets filled in, or logs rebuilt into new generations (see `rebuild`).

Postgres is the truth, Redis a view of it. Both ways read one consistent snapshot that also says how far it
reaches (`next_offset`), check the epoch there, and leave the old numbers readable until the new ones stand.
"""

import logging
from collections.abc import Callable, Iterable

import psycopg
import redis

from hotpath.events import STEP_S
from hotpath.settings import Settings
from hotpath.sql import QUERIES
from hotpath.views import fold, postgres, store
from hotpath.views.fold import PAIRS_MAX, LogChanges
from hotpath.views.link import run, state_script
from hotpath.views.postgres import Position, Request
from hotpath.views.rebuild import Progress, Rebuilder, first_second
from hotpath.views.store import LogState, Outcome

log = logging.getLogger(__name__)

SUMMARIZE_OFFSETS = 5_000
"""A gap from which on it pays to summarise the index first; summarising costs less than 1 µs a row, once."""
GAP_OFFSETS = 50_000
"""Offsets of a gap read at once: 20 to 60 ms of Postgres, and a bounded amount of memory."""
FILL_SHARE = 1 / 3
"""The part of the users' window that a gap may have to be filled. Filling costs two to three times as much an event
as a rebuild, whose work is the windows, however large the gap."""


class Refill:
    """Brings logs back, over one Redis and one Postgres connection that the caller keeps."""

    def __init__(self, settings: Settings, client: redis.Redis, connection: psycopg.Connection) -> None:
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._client = client
        self._connection = connection
        self._rebuilder = Rebuilder(settings, client, connection)

    @property
    def progress(self) -> Progress:
        """How far `rebuild` is; may be read by another thread."""
        return self._rebuilder.progress

    def states(self, log_ids: Iterable[int]) -> dict[int, LogState | None]:
        """What Redis holds of the logs. Raises redis' errors."""
        wanted = list(log_ids)
        replies = run(self._client, [state_script(self._prefix, log_id) for log_id in wanted])
        return {log_id: store.parse_state(reply) for log_id, reply in zip(wanted, replies, strict=True)}

    def can_fill(self, state: LogState | None, position: Position) -> bool:
        """Whether filling the gap does: not when Redis is empty or ahead, or so far behind that a rebuild is less."""
        if state is None or state.applied > position.next_offset:
            return False
        settings = self._settings
        seen_window_s = max(settings.active_users_window_s, settings.sessions_window_s)
        missing_s = position.watermark_s - state.watermark_s
        return state.applied == position.next_offset or missing_s < FILL_SHARE * seen_window_s

    def fill(self, state: LogState, position: Position) -> Outcome:
        """Apply the offsets from `state.applied` up to `position.next_offset`."""
        if position.next_offset - state.applied >= SUMMARIZE_OFFSETS:
            self._summarize()
        for first in range(state.applied, position.next_offset, GAP_OFFSETS):
            next_offset = min(first + GAP_OFFSETS, position.next_offset)
            watermark_s = position.watermark_s if next_offset == position.next_offset else 0
            changes = self._gap(state, position.log_id, first, next_offset, watermark_s)
            outcome = store.outcome_of(
                run(self._client, store.change_commands(self._prefix, state.generation, changes))
            )
            if outcome is not Outcome.APPLIED:
                return outcome
        return Outcome.APPLIED

    def _summarize(self) -> None:
        """Bring the index up to what was written last: without it each query below reads all of that."""
        for name, _ in self._connection.execute(QUERIES["summarizable_indexes"]).fetchall():
            try:
                self._connection.execute(QUERIES["summarize_index"], {"name": name})
            except psycopg.errors.LockNotAvailable:
                continue  # maintenance or another worker is at it

    def _gap(
        self, state: LogState, log_id: int, first: int, next_offset: int, watermark_s: int
    ) -> LogChanges:
        span = {"log_id": log_id, "first_offset": first, "next_offset": next_offset, "step_s": STEP_S}
        seen_from, counts_from = first_second(state.seen_step), first_second(state.base_step)
        with self._connection.transaction():
            seen = fold.fold_seen(
                self._connection.execute(QUERIES["seen_in_offsets"], {**span, "from_s": seen_from})
            )
            counts = self._connection.execute(
                QUERIES["page_views_in_offsets"], {**span, "from_s": counts_from, "bucket": PAIRS_MAX}
            )
            pieces = fold.fold_counts(counts, first, next_offset, PAIRS_MAX)
        return LogChanges(log_id, first, next_offset, watermark_s, seen, pieces)

    def rebuild(
        self,
        requests: list[Request],
        as_of_us: int | None,
        now_us: int,
        on_live: Callable[[int], None] = lambda log_id: None,
    ) -> list[int]:
        """Rebuild logs from one snapshot; the log_ids of those that are live anew.

        as_of_us: what the views' as_of is known to be at least; None when unknown. `on_live` is told each log as it
        goes live. A log that another process is rebuilding is left out. Raises Fenced, psycopg's and redis' errors.
        """
        return self._rebuilder.rebuild(requests, as_of_us, now_us, on_live)

    def tidy(self, log_ids: Iterable[int]) -> None:
        """Delete what unfinished rebuilds of the logs have left behind."""
        with self._rebuilder.locked(log_ids) as locked:
            self._rebuilder.drop(locked)

    def drop_retired(self) -> bool:
        """Delete all keys of logs that were given up; whether none are left.

        Under their locks, so that nobody begins a generation meanwhile: who wants to afterwards is fenced.
        """
        left = store.logs_left(self._client, self._prefix, postgres.retired_logs(self._connection))
        if not left:
            return True
        with self._rebuilder.locked(left) as locked:
            # Read again under the locks: a worker may have found a log's incarnation again.
            retired = set(postgres.retired_logs(self._connection))
            for log_id in locked:
                if log_id in retired:
                    log.info("deleting the live views of log %d, which was given up", log_id)
                    store.drop_all(self._client, self._prefix, log_id)
        return len(locked) == len(left)
