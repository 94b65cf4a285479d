"""The views from Postgres: a gap of offsets filled in, or logs rebuilt into new generations.

Postgres is the truth, Redis a view of it. Both ways read one consistent snapshot that also says how far it
reaches (`next_offset`), check the epoch there, and leave the old numbers readable until the new ones stand.

The order of a rebuild:

    1. lock      one rebuilder of a log at a time (advisory lock), whoever it is
    2. number    a new generation of the sequence `view_generation`
    3. snapshot  next_offset, epoch and watermark: another epoch than expected stops everything
    4. begin     the generation's state, marked as being built: nobody reads it
    5. load      last-seen steps and page views of what is inside the windows
    6. finish    `applied` becomes next_offset
    7. switch    `current` changes from the old generation to the new one, by compare-and-set
    8. drop      the old generation, in small pieces

A crash between any two of them leaves the old generation live and the new one to the next rebuild's drop.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import redis
from psycopg import IsolationLevel

from hotpath.errors import Fenced
from hotpath.events import STEP_S
from hotpath.settings import Settings
from hotpath.sql import QUERIES
from hotpath.views import fold, keys, store
from hotpath.views.build import Build
from hotpath.views.fold import PAIRS_MAX, LogChanges
from hotpath.views.link import run, state_script
from hotpath.views.store import LogState, Outcome

SUMMARIZE_OFFSETS = 5_000
"""A gap from which on it pays to summarise the index first; summarising costs less than 1 µs a row, once."""
GAP_OFFSETS = 50_000
"""Offsets of a gap read at once: 20 to 60 ms of Postgres, and a bounded amount of memory."""
SLACK_S = 300
"""How much older than its own window a rebuilt log reaches when nobody knows how far the others are."""
CURSOR_ROWS = 5_000
LOCK_CLASS = 0x76696577
"""First key of the advisory locks on rebuilds; the second is the log_id."""


@dataclass(frozen=True)
class Request:
    """A log to bring back: fenced by `epoch` (None: whoever owns it), complete until at least that moment."""

    log_id: int
    epoch: int | None
    complete_until_us: int = 0


@dataclass(frozen=True)
class Position:
    """Where Postgres has a log."""

    log_id: int
    next_offset: int
    epoch: int
    watermark_s: int


def connect(dsn: str, name: str) -> psycopg.Connection:
    """A connection for reading snapshots. Raises psycopg.OperationalError."""
    connection = psycopg.connect(dsn, autocommit=True, application_name=name, connect_timeout=5)
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    # A rebuild reads whole windows: longer than any statement of a flush, but not for ever.
    timeouts = {"lock_timeout_ms": "5000", "statement_timeout_ms": "600000", "idle_timeout_ms": "600000"}
    connection.execute(QUERIES["configure_session"], timeouts)
    return connection


def open_logs(connection: psycopg.Connection) -> dict[int, str]:
    """Every log that counts in the views: log_id -> topic/partition."""
    return {row[0]: f"{row[1]}/{row[2]}" for row in connection.execute(QUERIES["open_logs"])}


def positions(connection: psycopg.Connection, requests: Iterable[Request]) -> dict[int, Position]:
    """Where Postgres has the logs. Raises Fenced when one has another epoch than expected, or is gone."""
    expected = {request.log_id: request.epoch for request in requests}
    rows = connection.execute(QUERIES["log_positions"], {"log_ids": list(expected)})
    found = {row[0]: Position(*row) for row in rows}
    for log_id, epoch in expected.items():
        if log_id not in found:
            raise Fenced(f"log {log_id} is no longer in partition_state")
        if epoch is not None and found[log_id].epoch != epoch:
            raise Fenced(
                f"log {log_id} has epoch {found[log_id].epoch} in Postgres, not {epoch}: another worker took it over"
            )
    return found


class Refill:
    """Brings logs back, over one Redis and one Postgres connection that the caller keeps."""

    def __init__(self, settings: Settings, client: redis.Redis, connection: psycopg.Connection) -> None:
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._client = client
        self._connection = connection

    def states(self, log_ids: Iterable[int]) -> dict[int, LogState | None]:
        """What Redis holds of the logs. Raises redis' errors."""
        wanted = list(log_ids)
        replies = run(self._client, [state_script(self._prefix, log_id) for log_id in wanted])
        return {log_id: store.parse_state(reply) for log_id, reply in zip(wanted, replies, strict=True)}

    def can_fill(self, state: LogState | None, position: Position) -> bool:
        """Whether filling the gap does: not when Redis is empty or ahead, or misses a whole window."""
        if state is None or state.applied > position.next_offset:
            return False
        missing_s = position.watermark_s - state.watermark_s
        return state.applied == position.next_offset or missing_s < self._settings.top_pages_window_s

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
        seen_from, counts_from = _first_second(state.seen_step), _first_second(state.base_step)
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
        done: list[int] = []
        with self._locked([request.log_id for request in requests]) as locked:
            wanted = [request for request in requests if request.log_id in locked]
            if wanted:
                builds = self._build(wanted, as_of_us, now_us)
                for log_id, (old, build) in builds.items():
                    build.finish()
                    if store.switch(self._client, self._prefix, log_id, old, build.generation):
                        done.append(log_id)
                        on_live(log_id)
            self._drop(locked)
        return done

    def tidy(self, log_ids: Iterable[int]) -> None:
        """Delete what unfinished rebuilds of the logs have left behind."""
        with self._locked(log_ids) as locked:
            self._drop(locked)

    def _drop(self, log_ids: list[int]) -> None:
        for log_id in log_ids:
            store.drop_others(self._client, self._prefix, log_id)

    @contextmanager
    def _locked(self, log_ids: Iterable[int]) -> Iterator[list[int]]:
        """Those of the logs that nobody else is rebuilding, kept from others meanwhile."""
        execute = self._connection.execute
        keys_of = {log_id: {"class": LOCK_CLASS, "log_id": log_id} for log_id in log_ids}
        locked = [i for i, key in keys_of.items() if execute(QUERIES["try_view_lock"], key).fetchone()[0]]
        try:
            yield locked
        finally:
            if not self._connection.closed and not self._connection.broken:
                for log_id in locked:
                    execute(QUERIES["view_unlock"], keys_of[log_id])

    def _build(
        self, requests: list[Request], as_of_us: int | None, now_us: int
    ) -> dict[int, tuple[str, Build]]:
        """New generations that lack only their last step; by log, with the generation each is to replace."""
        log_ids = [request.log_id for request in requests]
        before = self.states(log_ids)
        old = {log_id: store.live_generation(self._client, self._prefix, log_id) for log_id in log_ids}
        generations = {log_id: self._number(log_id, old[log_id]) for log_id in log_ids}
        with self._connection.transaction():
            found = positions(self._connection, requests)
            starts = self._window_starts(found.values(), as_of_us, now_us)
            builds = {}
            for request in requests:
                log_id = request.log_id
                builds[log_id] = self._begin(
                    request, found[log_id], before[log_id], generations[log_id], starts
                )
            self._load(builds, starts)
        return {log_id: (old[log_id], build) for log_id, build in builds.items()}

    def _window_starts(self, found: Iterable[Position], as_of_us: int | None, now_us: int) -> tuple[int, int]:
        """base_step and seen_step of the new generations: as far back as a reader may ask."""
        settings = self._settings
        if as_of_us is None:
            known = [p.watermark_s for p in found if p.watermark_s] or [0]
            everywhere = self._connection.execute(QUERIES["least_watermark"]).fetchone()[0]
            newest_us = min(max(known) * 1_000_000, now_us)
            as_of_us = min(newest_us, max(everywhere * 1_000_000, newest_us - SLACK_S * 1_000_000))
        seen_window_s = max(settings.active_users_window_s, settings.sessions_window_s)
        return (
            max(0, keys.window_start(as_of_us, settings.top_pages_window_s)),
            max(0, keys.window_start(as_of_us, seen_window_s)),
        )

    def _begin(
        self,
        request: Request,
        position: Position,
        before: LogState | None,
        generation: int,
        starts: tuple[int, int],
    ) -> Build:
        state = LogState(
            generation=generation,
            applied=position.next_offset,
            base_step=starts[0],
            seen_step=starts[1],
            watermark_s=position.watermark_s,
            complete_until_us=max(request.complete_until_us, before.complete_until_us if before else 0),
            log_end=max(position.next_offset, before.log_end if before else 0),
        )
        store.create_generation(self._client, self._prefix, position.log_id, state)
        return Build(self._client, self._prefix, state, position.log_id)

    def _load(self, builds: dict[int, Build], starts: tuple[int, int]) -> None:
        base_step, seen_step = starts
        span = {"log_ids": list(builds), "step_s": STEP_S}
        with self._connection.cursor(name="views_seen") as rows:
            rows.itersize = CURSOR_ROWS
            rows.execute(QUERIES["seen_in_windows"], {**span, "from_s": _first_second(seen_step)})
            for log_id, user, session, step in rows:
                builds[log_id].touch(user, session, step)
        with self._connection.cursor(name="views_pages") as rows:
            rows.itersize = CURSOR_ROWS
            rows.execute(QUERIES["page_views_in_windows"], {**span, "from_s": _first_second(base_step)})
            for log_id, step, page, views in rows:
                builds[log_id].count(step, page, views)

    def _number(self, log_id: int, live: str) -> int:
        """A generation that has no keys: the sequence of a restored database may be behind Redis."""
        taken = store.generations(self._client, self._prefix, log_id) | {live}
        while True:
            number = self._connection.execute(QUERIES["next_view_generation"]).fetchone()[0]
            if str(number) not in taken:
                return number


def _first_second(step: int) -> int:
    """The first second after a step."""
    return (step + 1) * STEP_S
