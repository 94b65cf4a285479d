"""What the table and its index cost a row, and what they give back: `python -m bench.tables [--rows 4000000] [--json]`.

    rows in the order of flushes ► COPY by two writers into each layout ► summarise ► the pipeline's own queries

A flush holds the rows of one writer's logs, sorted by log; one row in a thousand is late. CPU is that of the backends.
The queries are those of `sql/queries.sql`; each runs twice, and the second counts: its plan's time, and the 8 KiB pages
that it looked at.
"""

import argparse
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import psycopg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.harness import machine, servers
from bench.pipeline import above_zero
from bench.raw_copy import joined
from bench.show import show
from hotpath.errors import HotpathError
from hotpath.sql import QUERIES

LOGS, WRITERS = 16, 2
FLUSH_ROWS = 16_384
AS_IF_RATE = 300_000
BEGAN_S = 1_900_000_000
LATE_EVERY = 1_000
COLUMNS = "log_id, kafka_offset, ts, user_id, event_type, page_url, session_id"
DEFINITION = (
    "log_id integer not null, kafka_offset bigint not null, ts timestamptz not null, user_id text not null,"
    " event_type text not null, page_url text not null, session_id text not null"
)
DAY = "for values from ('2030-03-17') to ('2030-03-18')"
MULTI = (
    "brin (ts timestamptz_minmax_multi_ops, log_id int4_minmax_multi_ops, kafka_offset int8_minmax_multi_ops)"
    " with (pages_per_range = 32)"
)
OF_ONE_LOG = "brin (ts timestamptz_minmax_multi_ops, kafka_offset) with (pages_per_range = 32)"

# Row n is of log n % 16, at the time when it would have been produced; rows of a flush stand together, by log.
STAGED = f"""
create table staged as
select n, (n %% {LOGS})::integer as log_id, n / {LOGS} as kafka_offset,
    to_timestamp({BEGAN_S} + n::float8 / {AS_IF_RATE}
        - case when n %% {LATE_EVERY} = 0 then 400 + hashint8(n) & 1023 else 0 end) as ts,
    'user-' || lpad((hashint8(n) & 1048575)::text, 7, '0') as user_id, 'page_view' as event_type,
    '/products/' || (hashint8(-n) & 1023) as page_url,
    'session-' || lpad((hashint8(n) & 1048575)::text, 7, '0') as session_id
from generate_series(0, %s::bigint - 1) as n
"""
FLUSHED = (
    f"copy (select {COLUMNS} from staged where log_id %% {WRITERS} = %s"
    f" order by n / {FLUSH_ROWS * WRITERS}, log_id, n) to stdout (format binary)"
)


@dataclass(frozen=True)
class Layout:
    """A table `events`, in words and in SQL; `indexes` is what stands on each leaf."""

    name: str
    indexes: tuple[str, ...]
    by_log: bool = False
    """Whether each day is split by LIST over the log."""

    def statements(self) -> Iterator[str]:
        """Make it, in the schema of the search path."""
        yield f"create table events ({DEFINITION}) partition by range (ts)"
        day = f"create table events_day partition of events {DAY}"
        yield f"{day} partition by list (log_id)" if self.by_log else day
        for log_id in range(LOGS) if self.by_log else ():
            yield f"create table events_day_{log_id} partition of events_day for values in ({log_id})"
        for index in self.indexes:
            yield f"create index on events using {index}"


LAYOUTS = (
    Layout("no index", ()),
    Layout("one BRIN, multi ranges (as it is)", (MULTI,)),
    Layout("the same, split by LIST over the log", (MULTI,), by_log=True),
    Layout("split, BRIN of seconds and offsets", (OF_ONE_LOG,), by_log=True),
    Layout("BRIN of seconds alone", ("brin (ts timestamptz_minmax_multi_ops) with (pages_per_range = 32)",)),
    Layout("B-tree (log_id, kafka_offset)", ("btree (log_id, kafka_offset)",)),
)


def questions(rows: int) -> dict[str, tuple[str, dict[str, object]]]:
    """What the pipeline asks, by name: a query and its parameters, from the middle of what is there."""
    offset, flush = rows // LOGS // 2, FLUSH_ROWS * WRITERS // LOGS
    second = BEGAN_S + rows // AS_IF_RATE // 2
    gap = {"log_id": 3, "first_offset": offset, "next_offset": offset + flush, "step_s": 10}
    counts = {"log_ids": [3], "seconds": [second], "below": [rows], "first_s": second, "last_s": second}
    return {
        "a flush's gap": ("seen_in_offsets", gap | {"from_s": BEGAN_S - 900}),
        "a second's bot counts": ("bot_counts", counts),
        "a log's windows": ("seen_in_windows", {"log_ids": [3], "from_s": second, "step_s": 10}),
    }


@contextmanager
def _database(dsn: str) -> Iterator[str]:
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        try:
            yield psycopg.conninfo.make_conninfo(dsn, dbname=name)
        finally:
            connection.execute(f"drop database {name} with (force)")


def streams_of(dsn: str, rows: int) -> list[list[bytes]]:
    """Binary COPY streams, as a list of buffers for each writer."""
    found = []
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(STAGED, (rows,))
        for writer in range(WRITERS):
            with cursor.copy(FLUSHED, (writer,)) as copy:
                found.append(joined(bytes(piece) for piece in copy))
        connection.rollback()
    return found


def measure(dsn: str, layout: Layout, streams: list[list[bytes]], rows: int) -> dict[str, object]:
    """One layout in a schema of its own, which is gone afterwards."""
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("create schema layout")
        connection.execute("set search_path = layout")
        for statement in layout.statements():
            connection.execute(statement)
        try:
            copied = _copy(dsn, streams)
            before = _cpu_s(connection)
            connection.execute(
                "select brin_summarize_new_values(c.oid) from pg_class c join pg_am a on a.oid = c.relam"
                " where a.amname = 'brin' and c.relkind = 'i' and c.relnamespace = 'layout'::regnamespace"
            )
            summarised_us = (_cpu_s(connection) - before) / rows * 1e6
            index_bytes = connection.execute(
                "select coalesce(sum(pg_relation_size(oid)), 0)::bigint from pg_class"
                " where relkind = 'i' and relnamespace = 'layout'::regnamespace"
            ).fetchone()[0]
            connection.execute("vacuum analyze events")
            asked = {name: _explain(connection, *question) for name, question in questions(rows).items()}
        finally:
            connection.execute("drop schema layout cascade")
    return {
        "layout": layout.name,
        "copy_us": round(sum(copied.values()) / rows * 1e6, 3),
        "summarise_us": round(summarised_us, 3),
        "index_mib": round(index_bytes / 2**20, 1),
        "queries": asked,
    }


def _copy(dsn: str, streams: list[list[bytes]]) -> dict[int, float]:
    """CPU of each backend, seconds, all of them at once; raises what a writer raised."""
    used: dict[int, float] = {}
    errors: list[BaseException] = []

    def write(buffers: list[bytes]) -> None:
        try:
            with psycopg.connect(dsn, options="-c search_path=layout") as connection:
                before = _cpu_s(connection)
                with connection.cursor().copy(f"copy events ({COLUMNS}) from stdin (format binary)") as copy:
                    for buffer in buffers:
                        copy.write(buffer)
                connection.commit()
                used[connection.info.backend_pid] = _cpu_s(connection) - before
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(buffers,)) for buffers in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return used


def _cpu_s(connection: psycopg.Connection) -> float:
    times = psutil.Process(connection.info.backend_pid).cpu_times()
    return times.user + times.system


def _explain(connection: psycopg.Connection, name: str, parameters: dict[str, object]) -> dict[str, object]:
    query = f"explain (analyze, buffers, format json) {QUERIES[name].strip().rstrip(';')}"
    for _ in range(2):
        told = connection.execute(query, parameters).fetchone()[0][0]
    plan = told["Plan"]
    return {
        "ms": round(told["Execution Time"], 2),
        "pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        "by": sorted(set(_scans(plan))),
    }


def _scans(plan: dict) -> Iterator[str]:
    if "Scan" in plan["Node Type"] and plan["Node Type"] != "Function Scan":
        yield plan["Node Type"]
    for part in plan.get("Plans", ()):
        yield from _scans(part)


def table(result: dict[str, object]) -> Table:
    """For people."""
    shown = Table(box=None, pad_edge=False, title=f"{result['rows']:,} rows", title_justify="left")
    asked = list(result["layouts"][0]["queries"])
    for name in ("", "COPY µs/row", "summarise", "index MiB", *(f"{name}: ms (pages)" for name in asked)):
        shown.add_column(name)
    for row in result["layouts"]:
        answers = (f"{told['ms']:,} ({told['pages']:,})" for told in row["queries"].values())
        numbers = (str(row[name]) for name in ("copy_us", "summarise_us", "index_mib"))
        shown.add_row(row["layout"], *numbers, *answers)
    return shown


def main(arguments: list[str]) -> int:
    """Measure and print; exit code 0, or that of an explained error."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tables",
        description="Layouts of the table of events. On private servers, or on those of HOTPATH_* when set.",
    )
    parser.add_argument("--rows", type=above_zero, default=4_000_000, help="of each layout (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        with (
            servers() as environment,
            _database(environment["HOTPATH_POSTGRES_DSN"]) as dsn,
            Progress(console=console, transient=True) as progress,
        ):
            task = progress.add_task("rows", total=len(LAYOUTS) + 1)
            streams = streams_of(dsn, given.rows)
            found = []
            for layout in LAYOUTS:
                progress.update(task, advance=1, description=layout.name)
                found.append(measure(dsn, layout, streams, given.rows))
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    show({"machine": machine(), "rows": given.rows, "layouts": found}, table, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
