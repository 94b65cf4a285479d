"""Brings the live views in Redis in step with Postgres, or tells how they differ: `python -m hotpath.consolidate`.

(nothing)  fill the gaps of all logs, rebuild what filling cannot help, compare all with Postgres, rebuild what differs
--check    compare every view with Postgres and list the differences: exit 1 when there are any. Changes nothing.
--rebuild  rebuild all logs into new generations, which go live when they have caught up

All of it works beside live workers, which heal by the same code unasked, and without them. Readers see the old numbers
until the new ones stand. Postgres must be the primary: rebuilds take numbers from a sequence, and locks.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import psycopg
import redis
from pydantic import Field
from pydantic_settings import CliImplicitFlag
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hotpath import clock
from hotpath.console import configure_logging, exit_code_of
from hotpath.errors import ConfigError, HotpathError, Unavailable
from hotpath.preflight import check_postgres, check_redis
from hotpath.settings import PipelineSettings, load
from hotpath.sql import QUERIES
from hotpath.views import claims, link, postgres, store
from hotpath.views.check import Check, Checked
from hotpath.views.postgres import Request
from hotpath.views.rebuild import LOCK_CLASS, Rebuilder
from hotpath.views.refill import Refill
from hotpath.views.store import Outcome
from hotpath.views.sweep import logs_with_keys, sweep

log = logging.getLogger(__name__)

PROGRAM = "python -m hotpath.consolidate"
REDIS_TIMEOUT_S = 10.0
"""A person waits, and no block does: longer than a worker's."""
LOCK_POLL_S = 0.3
ATTEMPTS = 5
"""Looks at a log whose views move while they are filled: a worker is at it as well."""


class ConsolidateSettings(PipelineSettings):
    """What is done about the live views, and how it is told."""

    check: CliImplicitFlag[bool] = Field(False, description="only compare; exit 1 when something differs")
    rebuild: CliImplicitFlag[bool] = Field(False, description="rebuild all logs, whatever they are like")
    json_: CliImplicitFlag[bool] = Field(False, alias="json", description="print JSON instead of a table")
    limit: int = Field(50, ge=0, description="differences of a log that are listed; all are counted")


class Drift(HotpathError):
    """Redis and Postgres differ."""


class Consolidation:
    """The three things that can be done, over a Redis and a Postgres connection that it owns."""

    def __init__(self, settings: ConsolidateSettings) -> None:
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._client = link.connect(settings.redis_url, REDIS_TIMEOUT_S)
        self._connection = postgres.connect(settings.postgres_dsn, "hotpath consolidate")
        self._refill = Refill(settings, self._client, self._connection)
        self.filled = 0
        self.rebuilt: set[int] = set()
        self.swept = 0

    def close(self) -> None:
        self._connection.close()
        self._client.close()

    def check(self) -> Checked:
        """Compare all logs with Postgres."""
        settings = self._settings
        check = Check(settings, self._client, self._connection, settings.limit)
        with self._shown("comparing") as step:
            return check.run(step)

    def repair(self) -> Checked:
        """Fill, rebuild where that does not do, compare, and rebuild what differs; what is left after that."""
        logs = self._list_logs()
        self._rebuild(self._fill(list(logs)))
        self._publish(list(logs))
        checked = self.check()
        if not checked.total:
            return checked
        if differing := [log_id for log_id in checked.differences if log_id in logs]:
            log.info("rebuilding what differs: %s", ", ".join(logs[log_id] for log_id in differing))
            self._rebuild(differing)
            self._publish(differing)
        if "keys" in checked.by_view:
            self._sweep()
        return self.check()

    def rebuild(self) -> None:
        """Rebuild all logs."""
        logs = self._list_logs()
        self._rebuild(list(logs))
        self._publish(list(logs))

    def _list_logs(self) -> dict[int, str]:
        logs = postgres.open_logs(self._connection)
        store.write_logs(self._client, self._prefix, logs)
        self._refill.drop_retired()
        return logs

    def _fill(self, log_ids: list[int]) -> list[int]:
        """Fill the gaps of logs; those that must be rebuilt instead."""
        positions = postgres.positions(self._connection, [Request(log_id, None) for log_id in log_ids])
        to_rebuild = []
        with self._shown("filling gaps") as step:
            for log_id in log_ids:
                if not self._fill_log(positions[log_id]):
                    to_rebuild.append(log_id)
                step(str(log_id))
        return to_rebuild

    def _fill_log(self, position: postgres.Position) -> bool:
        """Whether the log has applied all up to `position` now."""
        for _ in range(ATTEMPTS):
            state = self._refill.states([position.log_id])[position.log_id]
            now = postgres.positions(self._connection, [Request(position.log_id, None)])[position.log_id]
            if not self._refill.can_fill(state, now):
                return False
            if state.applied >= position.next_offset:
                return True
            outcome = self._refill.fill(state, position)
            if outcome is Outcome.APPLIED:
                self.filled += position.next_offset - state.applied
                return True
            if outcome is Outcome.REFUSED:
                raise Unavailable("Redis takes no writes now: out of memory, read-only, or loading its data")
            if outcome is Outcome.BROKEN:
                return False
        return False

    def _rebuild(self, log_ids: list[int]) -> None:
        """Rebuild logs, after whoever else rebuilds them now."""
        pending = list(log_ids)
        told = None
        with self._shown("rebuilding", len(pending)) as step:
            while pending:
                requests = [Request(log_id, None) for log_id in pending]
                done = self._refill.rebuild(
                    requests, self._as_of_us(), clock.now_us(), lambda log_id: step(str(log_id))
                )
                self.rebuilt |= set(done)
                pending = [log_id for log_id in pending if log_id not in done]
                if pending:
                    told = self._tell_who_rebuilds(pending, told)
                    time.sleep(LOCK_POLL_S)

    def _tell_who_rebuilds(self, log_ids: list[int], told: list | None) -> list:
        holders = self._connection.execute(
            QUERIES["view_lock_holders"], {"class": LOCK_CLASS, "log_ids": log_ids}
        ).fetchall()
        if holders != told:
            for name, pid, logs in holders:
                held = ", ".join(map(str, logs))
                log.info("waiting: logs %s are being rebuilt by %r (Postgres's process %d)", held, name, pid)
        return holders

    def _as_of_us(self) -> int | None:
        """as_of over all logs, as far as it is known."""
        states = self._refill.states(postgres.open_logs(self._connection)).values()
        if not states or any(state is None for state in states):
            return None
        return min(state.complete_until_us for state in states) or None

    def _publish(self, log_ids: list[int]) -> None:
        """Publish how far logs reach that no worker publishes."""
        owned = {log_id for (log_id,) in self._connection.execute(QUERIES["owned_logs"])}
        if left := [log_id for log_id in log_ids if log_id not in owned]:
            claims.publish(self._settings, self._client, self._connection, left, clock.now_us)

    def _sweep(self) -> None:
        found = logs_with_keys(self._client, self._prefix)
        with Rebuilder(self._settings, self._client, self._connection).locked(sorted(found)) as locked:
            # Read under the locks: nobody can begin to build views of a new log now.
            counts = postgres.open_logs(self._connection)
            self.swept += sweep(self._client, self._prefix, {log_id: log_id in counts for log_id in locked})

    @contextmanager
    def _shown(self, what: str, total: int | None = None) -> Iterator:
        """A progress line on a terminal; the function to call after each log."""
        console = Console(stderr=True)
        total = total if total is not None else len(postgres.open_logs(self._connection))
        columns = (
            TextColumn("{task.description} {task.completed:.0f} of {task.total:.0f} logs"),
            _RowsColumn(self._refill),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
            task = shown.add_task(what, total=total)
            yield lambda log: shown.advance(task)


class _RowsColumn(TextColumn):
    """Rows that rebuilds have read: what moves while no log is through yet."""

    def __init__(self, refill: Refill) -> None:
        super().__init__("")
        self._refill = refill

    def render(self, task: object) -> object:
        rows = self._refill.progress.rows
        return Console().render_str(f"· {rows:,} rows read" if rows else "")


def _report(settings: ConsolidateSettings, job: Consolidation, checked: Checked | None) -> None:
    """Print what was done and found; differences as a table or JSON."""
    done = {"filled": job.filled, "rebuilt": sorted(job.rebuilt), "swept": job.swept}
    listed = [d for of_log in (checked.differences.values() if checked else ()) for d in of_log]
    if settings.json_:
        document = done | {"differences": [vars(difference) for difference in listed]}
        if checked:
            document |= {"total": checked.total, "by_view": checked.by_view, "behind": checked.events_behind}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    if not settings.check:
        print(f"{job.filled:,} offsets filled in, {len(job.rebuilt)} logs rebuilt, {job.swept:,} keys swept")
    if listed:
        table = Table("log", "view", "key", "expected", "found")
        for difference in listed:
            table.add_row(*map(_plain, vars(difference).values()))
        Console(width=None if sys.stdout.isatty() else 200).print(table)
    if checked and not checked.total:
        behind = f"; {checked.events_behind:,} events behind" if checked.events_behind else ""
        print(f"the live views are what Postgres says{behind}")


def _plain(value: str) -> str:
    """A cell without markup and control characters: keys are made of what users sent."""
    return "".join(c if c.isprintable() else "\ufffd" for c in value).replace("[", "\\[")


def run(arguments: list[str]) -> None:
    """The command. Raises HotpathError."""
    settings = load(ConsolidateSettings, arguments, PROGRAM)
    configure_logging(settings, "consolidate")
    if settings.check and settings.rebuild:
        raise ConfigError(
            f"--check changes nothing and --rebuild does: give one of them; see {PROGRAM} --help"
        )
    check_postgres(settings)
    check_redis(settings)
    try:
        job = Consolidation(settings)
        try:
            checked = None
            if settings.check:
                checked = job.check()
            elif settings.rebuild:
                job.rebuild()
            else:
                checked = job.repair()
        finally:
            job.close()
    except psycopg.Error as error:
        raise Unavailable(f"Postgres: {' '.join(str(error).split())}") from error
    except (redis.RedisError, OSError) as error:
        raise Unavailable(f"Redis: {error}") from error
    _report(settings, job, checked)
    if checked and checked.total:
        views = ", ".join(f"{count:,} in {view}" for view, count in sorted(checked.by_view.items()))
        raise Drift(f"the live views differ from Postgres: {views}")


def main() -> int:
    return exit_code_of(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
