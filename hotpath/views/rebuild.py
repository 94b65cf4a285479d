"""Logs rebuilt from Postgres into new generations, while writers write and readers read the old ones.

The order of a rebuild:

    1. lock      one rebuilder of a log at a time (advisory lock), whoever it is
    2. number    a new generation of the sequence `view_generation`
    3. snapshot  next_offset, epoch and watermark: another epoch than expected stops everything
    4. begin     the generation's state, marked as being built: nobody reads it
    5. load      last-seen steps and page views of what is inside the windows
    6. finish    `applied` becomes next_offset
    7. catch up  what was committed meanwhile, until the old generation is not ahead
    8. switch    `current` changes from the old generation to the new one, by compare-and-set
    9. drop      the old generation, in small pieces

A crash between any two of them leaves the old generation live and the new one to the next rebuild's drop.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import redis

from hotpath.events import STEP_S
from hotpath.settings import Settings
from hotpath.sql import QUERIES
from hotpath.views import keys, store
from hotpath.views.build import Build
from hotpath.views.link import Stream, run, state_script
from hotpath.views.postgres import Position, Request, positions
from hotpath.views.store import LogState, Switch

SLACK_S = 300
"""How much older than its own window a rebuilt log reaches when nobody knows how far the others are."""
CURSOR_ROWS = 5_000
CATCH_UP_S = 10.0
"""Longest a finished generation runs after the old one; then it goes live behind it, and its as_of waits for it."""
LOCK_CLASS = 0x76696577
"""First key of the advisory locks on rebuilds; the second is the log_id."""


@dataclass
class Progress:
    """How far a rebuild is: rows read from Postgres so far, logs live anew."""

    rows: int = 0
    live: int = 0


@dataclass
class _Rebuilding:
    """A log on its way: the generation that is to be replaced, and the new one."""

    request: Request
    old: str
    build: Build


class Rebuilder:
    """Rebuilds logs, over one Redis and one Postgres connection that the caller keeps."""

    def __init__(self, settings: Settings, client: redis.Redis, connection: psycopg.Connection) -> None:
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._client = client
        self._connection = connection
        self.progress = Progress()

    def rebuild(
        self, requests: list[Request], as_of_us: int | None, now_us: int, on_live: Callable[[int], None]
    ) -> list[int]:
        """See `Refill.rebuild`."""
        done: list[int] = []
        with self.locked([request.log_id for request in requests]) as locked:
            wanted = [request for request in requests if request.log_id in locked]
            if wanted:
                stream = Stream(self._client)
                starts, started = self._load_all(stream, wanted, as_of_us, now_us)
                for log_id in self._go_live(stream, starts, started):
                    self.progress.live += 1
                    done.append(log_id)
                    on_live(log_id)
            self.drop(locked)
        return done

    def drop(self, log_ids: Iterable[int]) -> None:
        """Delete every generation of the logs that is not live. Their locks must be held."""
        for log_id in log_ids:
            store.drop_others(self._client, self._prefix, log_id)

    @contextmanager
    def locked(self, log_ids: Iterable[int]) -> Iterator[list[int]]:
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

    def _load_all(
        self, stream: Stream, requests: list[Request], as_of_us: int | None, now_us: int
    ) -> tuple[tuple[int, int], list[_Rebuilding]]:
        """Steps 2 to 6, with where the windows begin (base_step, seen_step)."""
        log_ids = [request.log_id for request in requests]
        replies = run(self._client, [state_script(self._prefix, log_id) for log_id in log_ids])
        before = {log_id: store.parse_state(reply) for log_id, reply in zip(log_ids, replies, strict=True)}
        old = {log_id: store.live_generation(self._client, self._prefix, log_id) for log_id in log_ids}
        generations = {log_id: self._number(log_id, old[log_id]) for log_id in log_ids}
        with self._connection.transaction():
            found = positions(self._connection, requests)
            starts = self._window_starts(found.values(), as_of_us, now_us)
            builds = {}
            for request in requests:
                log_id = request.log_id
                state = self._first_state(request, found[log_id], before[log_id], generations[log_id], starts)
                store.create_generation(self._client, self._prefix, log_id, state)
                builds[log_id] = Build(stream, self._prefix, state, log_id)
            self._load(builds, starts)
        for log_id, build in builds.items():
            build.finish(found[log_id].next_offset, found[log_id].watermark_s)
        stream.drain()
        return starts, [_Rebuilding(r, old[r.log_id], builds[r.log_id]) for r in requests]

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

    @staticmethod
    def _first_state(
        request: Request,
        position: Position,
        before: LogState | None,
        generation: int,
        starts: tuple[int, int],
    ) -> LogState:
        # What was published of more than Postgres has now (it was restored) is not known to be complete.
        published = before if before and before.applied <= position.next_offset else None
        return LogState(
            generation=generation,
            applied=position.next_offset,
            base_step=starts[0],
            seen_step=starts[1],
            watermark_s=position.watermark_s,
            complete_until_us=max(request.complete_until_us, published.complete_until_us if published else 0),
            log_end=max(position.next_offset, before.log_end if before else 0),
        )

    def _load(self, builds: dict[int, Build], starts: tuple[int, int]) -> None:
        base_step, seen_step = starts
        span = {"log_ids": list(builds), "step_s": STEP_S}
        seen = {**span, "from_s": first_second(seen_step)}
        for log_id, user, session, step in self._rows("seen_in_windows", seen):
            builds[log_id].touch(user, session, step)
        counts = {**span, "from_s": first_second(base_step)}
        for log_id, step, page, views in self._rows("page_views_in_windows", counts):
            builds[log_id].count(step, page, views)

    def _rows(self, query: str, parameters: dict[str, object]) -> Iterator[tuple]:
        with self._connection.cursor(name=query) as cursor:
            cursor.itersize = CURSOR_ROWS
            cursor.execute(QUERIES[query], parameters)
            for row in cursor:
                self.progress.rows += 1
                yield row

    def _go_live(self, stream: Stream, starts: tuple[int, int], started: list[_Rebuilding]) -> Iterator[int]:
        """Steps 7 and 8; the log_ids that are live anew."""
        deadline = time.monotonic() + CATCH_UP_S
        left = started
        while left:
            found = self._catch_up(stream, starts, left)
            behind = []
            for log in left:
                log_id, build = log.request.log_id, log.build
                late = time.monotonic() > deadline
                outcome = store.switch(
                    self._client, self._prefix, log_id, log.old, build.generation, force=late
                )
                if outcome is Switch.BEHIND and self._is_ahead(log, found[log_id]):
                    outcome = store.switch(
                        self._client, self._prefix, log_id, log.old, build.generation, force=True
                    )
                if outcome is Switch.BEHIND:
                    behind.append(log)
                elif outcome is Switch.LIVE:
                    yield log_id
            left = behind

    def _is_ahead(self, log: _Rebuilding, position: Position) -> bool:
        """Whether the old generation has more than Postgres: then there is nothing to catch up with."""
        (reply,) = run(self._client, [state_script(self._prefix, log.request.log_id)])
        state = store.parse_state(reply)
        if state is None or state.applied <= position.next_offset:
            return False
        now = positions(self._connection, [log.request])[position.log_id]
        return state.applied > now.next_offset

    def _catch_up(
        self, stream: Stream, starts: tuple[int, int], logs: list[_Rebuilding]
    ) -> dict[int, Position]:
        """Bring the builds to where Postgres is now, and where that is."""
        builds = {log.request.log_id: log.build for log in logs}
        with self._connection.transaction():
            found = positions(self._connection, [log.request for log in logs])
            gaps = {i: (b.applied, found[i].next_offset) for i, b in builds.items()}
            gaps = {i: (first, after) for i, (first, after) in gaps.items() if first < after}
            if not gaps:
                return found
            span = {
                "log_ids": list(gaps),
                "first_offsets": [first for first, _ in gaps.values()],
                "next_offsets": [after for _, after in gaps.values()],
                "least_offset": min(first for first, _ in gaps.values()),
                "greatest_offset": max(after for _, after in gaps.values()),
                "step_s": STEP_S,
            }
            seen = {**span, "from_s": first_second(starts[1])}
            for log_id, user, session, step in self._rows("seen_in_gaps", seen):
                builds[log_id].touch(user, session, step)
            counts = {**span, "from_s": first_second(starts[0])}
            for log_id, step, page, views in self._rows("page_views_in_gaps", counts):
                builds[log_id].count(step, page, views)
        for log_id in gaps:
            builds[log_id].finish(found[log_id].next_offset, found[log_id].watermark_s)
        stream.drain()
        return found

    def _number(self, log_id: int, live: str) -> int:
        """A generation that has no keys: the sequence of a restored database may be behind Redis."""
        taken = store.generations(self._client, self._prefix, log_id) | {live}
        while True:
            number = self._connection.execute(QUERIES["next_view_generation"]).fetchone()[0]
            if str(number) not in taken:
                return number


def first_second(step: int) -> int:
    """The first second after a step."""
    return (step + 1) * STEP_S
