"""Brings logs back from Postgres beside the Redis sink, so that blocks never wait for a rebuild.

It owns a Postgres and a Redis connection and, unless told to work in its caller, a thread. Others only talk to it by
`ask`, `healed`, `open_logs` and `check`. Each round it reads the list of open logs, makes it the list in Redis,
and serves the requests: filling gaps first, as they are quick, then one rebuild for all that need one, because
they share the scan of the windows. In its first round, and whenever that list was another one, it deletes the keys of
logs that were given up: nobody reads, trims or scrubs them any more.

A round that fails because a server is away is tried again; being fenced is not, and is raised by `check`.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable

import psycopg
import redis

from hotpath import clock
from hotpath.errors import Fenced
from hotpath.settings import PipelineSettings
from hotpath.views import link, postgres, store
from hotpath.views.postgres import Position, Request
from hotpath.views.refill import Refill
from hotpath.views.store import LogState, Outcome

log = logging.getLogger(__name__)

ROUND_INTERVAL_S = 1.0
"""How often the list of logs is read, and how soon a failed round is tried again."""
LOG_INTERVAL_S = 30.0


class Healer:
    """See the module's docstring. `background=False`: rounds run in `ask` and `look`, in the caller's thread."""

    def __init__(
        self,
        settings: PipelineSettings,
        log_ids: list[int],
        background: bool = True,
        clock_us: Callable[[], int] = clock.now_us,
    ) -> None:
        """log_ids: the logs it may be asked for; what earlier rebuilds of them left behind it deletes first."""
        self._clock_us = clock_us
        self._log_ids = log_ids
        self._tidy = False
        self._retired_dropped = False
        self._settings = settings
        self._background = background
        self._client = link.connect(settings.redis_url, settings.redis_timeout_s)
        self._connection: psycopg.Connection | None = None
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[Request, bool]] = {}
        self._as_of_us: int | None = None
        self._healed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._closed = False
        self._error: BaseException | None = None
        self._warned_at = -LOG_INTERVAL_S
        self._thread: threading.Thread | None = None
        self.open_logs: dict[int, str] = {}
        """log_id -> topic/partition of every log that counts, as last read; empty before the first time."""
        self.rebuilding = False
        """Whether a rebuild runs: what is asked now may have to wait for long."""

    def ask(self, requests: list[Request], rebuild: bool, as_of_us: int | None) -> None:
        """Have logs brought back; `rebuild` when filling their gaps would not do.

        as_of_us: what the views' as_of is known to be at least.
        """
        with self._lock:
            for request in requests:
                known = self._requests.get(request.log_id)
                self._requests[request.log_id] = (request, rebuild or (known is not None and known[1]))
            self._as_of_us = as_of_us
        self.look()

    def look(self) -> None:
        """Start a round now (in the background: the next one at once)."""
        if not self._background:
            self._round()
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="views-healer", daemon=True)
            self._thread.start()
        self._wake.set()

    def healed(self, timeout_s: float = 0.0) -> list[int]:
        """Logs brought back since the last call; waits up to `timeout_s` for a first one."""
        found = []
        try:
            found.append(self._healed.get(timeout=timeout_s) if timeout_s else self._healed.get_nowait())
            while True:
                found.append(self._healed.get_nowait())
        except queue.Empty:
            return found

    def check(self) -> None:
        """Raise what ended the healer, if something did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop after the current step. A rebuild that is cut short is dropped by the next one."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * ROUND_INTERVAL_S)
        if self._thread is None or not self._thread.is_alive():
            self._disconnect()
            self._client.close()

    def _run(self) -> None:
        while not self._closed and self._error is None:
            self._wake.wait(ROUND_INTERVAL_S)
            self._wake.clear()
            if not self._closed:
                self._round()

    def _round(self) -> None:
        try:
            self._serve()
        except Fenced as error:
            self._error = error
        except (psycopg.Error, redis.RedisError, OSError) as error:
            self._disconnect()
            if time.monotonic() - self._warned_at > LOG_INTERVAL_S:
                self._warned_at = time.monotonic()
                log.warning("cannot bring the live views back yet: %s", str(error).strip())
        except BaseException as error:
            self._error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.rebuilding = False

    def _serve(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = postgres.connect(self._settings.postgres_dsn, "hotpath views")
            postgres.limit_idle(self._connection)
        views = Refill(self._settings, self._client, self._connection)
        self.open_logs = postgres.open_logs(self._connection)
        if store.write_logs(self._client, self._settings.redis_prefix, self.open_logs):
            self._retired_dropped = False
        if not self._tidy:
            views.tidy(self._log_ids)
            self._tidy = True
        if not self._retired_dropped:
            self._retired_dropped = views.drop_retired()
        with self._lock:
            wanted, as_of_us = dict(self._requests), self._as_of_us
        if not wanted:
            return
        # In this order: what is applied meanwhile, by an operator's command, must not look as if it were ahead.
        states = views.states(wanted)
        positions = postgres.positions(self._connection, [request for request, _ in wanted.values()])
        to_rebuild = []
        for log_id, (request, rebuild) in wanted.items():
            state = states[log_id]
            if (
                rebuild
                or not views.can_fill(state, positions[log_id])
                or self._fill(views, state, positions[log_id])
            ):
                to_rebuild.append(request)
            else:
                self._done(log_id)
        if to_rebuild:
            self.rebuilding = True
            log.info("rebuilding the live views of logs %s", ", ".join(str(r.log_id) for r in to_rebuild))
            views.rebuild(to_rebuild, as_of_us, self._clock_us(), on_live=self._done)

    def _fill(self, views: Refill, state: LogState, position: Position) -> bool:
        """Fill a gap; whether the log must be rebuilt instead."""
        outcome = views.fill(state, position)
        if outcome is Outcome.REFUSED:
            raise redis.exceptions.ResponseError("Redis takes no writes")
        if outcome is Outcome.ELSEWHERE:
            raise redis.exceptions.ResponseError(f"the views of log {position.log_id} moved meanwhile")
        return outcome is Outcome.BROKEN

    def _done(self, log_id: int) -> None:
        with self._lock:
            self._requests.pop(log_id, None)
        self._healed.put(log_id)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._client.connection_pool.disconnect()
