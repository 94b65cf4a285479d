"""Whether the live views are what Postgres says, log by log, beside live workers.

A log that is behind is given the time to come to where Postgres was when the check began. One that comes nearer but
does not arrive is compared at what it has applied; one that does not move is a difference of its own.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import redis

from hotpath.settings import PipelineSettings
from hotpath.sql import QUERIES
from hotpath.views import keys, postgres
from hotpath.views.compare import compare
from hotpath.views.contents import Difference, Found, read_log
from hotpath.views.expected import expected_of
from hotpath.views.keyspace import keyspace_faults
from hotpath.views.link import run, state_script
from hotpath.views.rebuild import LOCK_CLASS
from hotpath.views.store import LogState, parse_state

STILL_S = 4.0
"""A log that has not moved for so long is not about to: workers look after theirs once a second."""
ARRIVE_S = 20.0
POLL_S = 0.1


@dataclass
class Checked:
    """What was found: log_id -> differences, and how many there are by view; 0 stands for no log in particular."""

    differences: dict[int, list[Difference]] = field(default_factory=dict)
    by_view: dict[str, int] = field(default_factory=dict)
    events_behind: int = 0

    @property
    def total(self) -> int:
        return sum(self.by_view.values())


class Check:
    """Compares all open logs with Postgres, over connections that the caller keeps."""

    def __init__(
        self, settings: PipelineSettings, client: redis.Redis, connection: psycopg.Connection, limit: int
    ) -> None:
        """limit: differences of a log that are kept; the others are only counted."""
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._client = client
        self._connection = connection
        self._limit = limit

    def run(self, on_log: Callable[[str], None] = lambda log: None) -> Checked:
        """Check every log. `on_log` is told each one's name when it is through.

        Raises Unavailable, psycopg's and redis' errors.
        """
        checked = Checked()
        logs = postgres.open_logs(self._connection)
        targets = self._positions(list(logs))
        newest_us = max((target.watermark_s for target in targets.values()), default=0) * 1_000_000
        self._add(checked, 0, self._list_differences(logs))
        for log_id, name in logs.items():
            self._add(
                checked, log_id, self._log_differences(checked, log_id, name, targets[log_id], newest_us)
            )
            on_log(name)
        rows = self._connection.execute(QUERIES["view_locks"], {"class": LOCK_CLASS})
        rebuilding = {log_id for (log_id,) in rows}
        by_name = {name: log_id for log_id, name in logs.items()}
        for difference in keyspace_faults(self._client, self._prefix, logs, rebuilding):
            self._add(checked, by_name.get(difference.log, 0), [difference])
        return checked

    def _add(self, checked: Checked, log_id: int, differences: Iterator[Difference] | list) -> None:
        for difference in differences:
            checked.by_view[difference.view] = checked.by_view.get(difference.view, 0) + 1
            kept = checked.differences.setdefault(log_id, [])
            if len(kept) < self._limit:
                kept.append(difference)

    def _positions(self, log_ids: list[int]) -> dict[int, postgres.Position]:
        return postgres.positions(self._connection, [postgres.Request(log_id, None) for log_id in log_ids])

    def _list_differences(self, logs: dict[int, str]) -> list[Difference]:
        name = keys.logs(self._prefix)
        if self._client.type(name) not in (b"hash", b"none"):
            return [Difference("", "logs", name, "a hash", "another type")]
        listed = {k.decode(errors="replace"): v.decode() for k, v in self._client.hgetall(name).items()}
        wanted = {str(log_id): text for log_id, text in logs.items()}
        return [
            Difference("", "logs", f"log {i}", wanted.get(i, "not listed"), listed.get(i, "not listed"))
            for i in sorted(wanted.keys() | listed.keys())
            if wanted.get(i) != listed.get(i)
        ]

    def _log_differences(
        self, checked: Checked, log_id: int, name: str, target: postgres.Position, newest_us: int
    ) -> Iterator[Difference]:
        moved, state = self._wait_for(log_id, target.next_offset)
        if state is not None and state.applied < target.next_offset:
            checked.events_behind += target.next_offset - state.applied
            if not moved:
                wanted = f"at least {target.next_offset}"
                yield Difference(name, "state", "applied", wanted, str(state.applied))
        found = read_log(self._client, self._prefix, log_id, name)
        yield from compare(found, expected_of(self._connection, found))
        if found.after is not None:
            yield from self._border_differences(found, newest_us)

    def _wait_for(self, log_id: int, target: int) -> tuple[bool, LogState | None]:
        """Wait until the log has applied `target`; whether it moved lately, and its state."""
        deadline = time.monotonic() + ARRIVE_S
        state, still_since = self._state(log_id), time.monotonic()
        while state is not None and state.applied < target:
            if time.monotonic() - still_since > STILL_S:
                return False, state
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
            before, state = state, self._state(log_id)
            if state != before:
                still_since = time.monotonic()
        return True, state

    def _state(self, log_id: int) -> LogState | None:
        (reply,) = run(self._client, [state_script(self._prefix, log_id)])
        return parse_state(reply)

    def _border_differences(self, found: Found, newest_us: int) -> Iterator[Difference]:
        """Borders beyond what readers may ask for: those would wait for windows that were let go."""
        settings, state = self._settings, found.after
        if not state.complete_until_us:
            return
        # What trimming follows (see progress.borders), and the latest that a rebuild begins with.
        reach_us = max(state.complete_until_us, newest_us)
        windows = {
            "base_step": settings.top_pages_window_s,
            "seen_step": max(settings.active_users_window_s, settings.sessions_window_s),
        }
        for name, window_s in windows.items():
            most = keys.window_start(reach_us, window_s)
            if (border := getattr(state, name)) > most:
                yield Difference(found.log, "state", name, f"at most {most}", str(border))
