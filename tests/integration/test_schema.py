"""The schema: migrations and schema.sql agree, impossible rows are impossible, and databases are brought up to date."""

import os
import re
import subprocess
import sys

import psycopg
import pytest

from hotpath import migrate, sql
from hotpath.errors import HotpathError, Unavailable
from hotpath.events import QUARANTINED, EventClass
from tests.support.servers import REPOSITORY

CATALOG = {
    "relations": """
        select c.relname, c.relkind, c.relispartition, c.reloptions, pg_get_partkeydef(c.oid),
            pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class')
        from pg_class c where c.relnamespace = 'public'::regnamespace and c.relname !~ '_[0-9]{8}'""",
    "columns": """
        select c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
            pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0
            and not a.attisdropped and c.relname !~ '_[0-9]{8}'""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
        where connamespace = 'public'::regnamespace and conrelid::regclass::text !~ '_[0-9]{8}'""",
    "indexes": "select indexname, indexdef from pg_indexes where schemaname = 'public' and indexname !~ '_[0-9]{8}'",
    "functions": """
        select proname, pg_get_functiondef(oid), obj_description(oid, 'pg_proc') from pg_proc
        where pronamespace = 'public'::regnamespace""",
}


def catalog(dsn: str) -> dict[str, list[tuple]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return {name: sorted(connection.execute(query), key=repr) for name, query in CATALOG.items()}


@pytest.fixture
def empty_database(databases):
    dsn = databases.create(schema=False)
    yield dsn
    databases.drop(dsn)


@pytest.fixture
def connection(database):
    with psycopg.connect(database, autocommit=True) as opened:
        yield opened


def run_migrate(dsn: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "hotpath.migrate"],
        cwd=REPOSITORY,
        env={**os.environ, "HOTPATH_POSTGRES_DSN": dsn},
        capture_output=True,
        text=True,
        check=False,
    )


def test_schema_file_and_migrations_make_the_same_catalog(database, empty_database):
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute((sql.SQL_DIR / "schema.sql").read_text())
    by_file, by_migrations = catalog(empty_database), catalog(database)
    for name in CATALOG:
        assert by_file[name] == by_migrations[name], name
        assert by_file[name]


def test_every_table_column_and_function_is_commented(database):
    found = catalog(database)
    tables = [
        row for row in found["relations"] if row[1] in ("r", "p", "S") and not row[0].endswith("_id_seq")
    ]
    assert [row[0] for row in tables if not row[-1]] == []
    columns = [row for row in found["columns"] if not row[0].endswith("_default")]
    assert [row[:2] for row in columns if not row[-1]] == []
    assert [row[0] for row in found["functions"] if not row[-1]] == []


def test_migrating_again_does_nothing(empty_database):
    first, second = run_migrate(empty_database), run_migrate(empty_database)
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.count("applied") == len(sql.migrations())
    assert "applied" not in second.stdout
    assert f"at version {len(sql.migrations())}" in second.stdout


def test_migrations_at_the_same_time_are_applied_once(empty_database):
    command = [sys.executable, "-m", "hotpath.migrate"]
    environment = {**os.environ, "HOTPATH_POSTGRES_DSN": empty_database}
    runs = [
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert "".join(outputs).count("applied") == len(sql.migrations())


def test_a_failed_migration_leaves_nothing_behind(empty_database, monkeypatch):
    broken = sql.Migration(4, "broken", "create table half (a int); select 1 / 0;")
    known = sql.migrations()
    monkeypatch.setattr(sql, "migrations", lambda: [*known, broken])
    with psycopg.connect(empty_database, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate.migrate(connection)
        assert connection.execute("select to_regclass('half'), to_regclass('events')").fetchone() == (
            None,
            "events",
        )
        with pytest.raises(Unavailable, match=r"lacks migration 4 \(broken\).*python -m hotpath.migrate"):
            migrate.check(connection)


def test_a_postgres_that_cannot_be_reached_is_told_in_one_line():
    run = run_migrate("postgresql://127.0.0.1:1/hotpath")
    assert run.returncode == Unavailable.exit_code
    assert run.stderr.count("\n") == 1
    assert "HOTPATH_POSTGRES_DSN" in run.stderr


def test_check_accepts_the_schema_of_this_program(connection):
    migrate.check(connection)


def test_check_names_the_command_when_there_is_no_schema(empty_database):
    with (
        psycopg.connect(empty_database, autocommit=True) as connection,
        pytest.raises(Unavailable, match=r"no hotpath schema; run `python -m hotpath.migrate`"),
    ):
        migrate.check(connection)


def test_check_notices_a_schema_of_another_version(connection):
    connection.execute("insert into schema_migrations values (99, 'tomorrow', '', now())")
    with pytest.raises(Unavailable, match=r"migration 99 \(tomorrow\)"):
        migrate.check(connection)
    with pytest.raises(HotpathError, match="does not know"):
        migrate.migrate(connection)


def test_check_notices_a_migration_changed_after_it_was_applied(connection):
    connection.execute("update schema_migrations set checksum = 'other' where version = 1")
    with pytest.raises(Unavailable, match="was changed"):
        migrate.check(connection)


GOOD_EVENT = {
    "log_id": 1, "kafka_offset": 0, "ts": "2024-03-15 12:00Z", "user_id": "u", "event_type": "e", "page_url": "/",
    "session_id": "s",
}  # fmt: skip
IMPOSSIBLE = [
    {"ts": "1999-12-31 23:59:59.999999Z"}, {"ts": "2100-01-01Z"}, {"ts": "-infinity"}, {"ts": "infinity"},
    {"ts": None}, {"kafka_offset": -1}, {"log_id": None}, {"user_id": ""}, {"user_id": "é" * 65},
    {"session_id": "s" * 129}, {"event_type": "e" * 65}, {"page_url": "/" + "p" * 2_048},
]  # fmt: skip


@pytest.mark.parametrize("table", ["events", "late_events"])
@pytest.mark.parametrize("fault", IMPOSSIBLE, ids=str)
def test_impossible_events_are_refused(connection, table, fault):
    insert = f"insert into {table} ({', '.join(GOOD_EVENT)}) values ({', '.join(['%s'] * len(GOOD_EVENT))})"
    connection.execute(insert, list(GOOD_EVENT.values()))
    with pytest.raises(psycopg.IntegrityError):
        connection.execute(insert, list((GOOD_EVENT | fault).values()))


def test_quarantine_takes_exactly_the_classes_that_are_quarantined(connection):
    for event_class in EventClass:
        insert = "insert into quarantine values (1, 1, %s, '', '', 0)"
        if event_class in QUARANTINED:
            connection.execute(insert, [event_class.label])
        else:
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(insert, [event_class.label])


def test_a_ledger_row_holds_received_as_the_sum_of_its_classes(connection):
    connection.execute("insert into rules (rules) values ('{}')")
    connection.execute(
        "insert into partition_state (topic, topic_id, partition, next_offset, epoch, owner, rules_id) "
        "values ('t', 'i', 0, 0, 1, 'o', 1)"
    )
    insert = """insert into ledger (log_id, first_offset, next_offset, received, accepted, bot)
        values (1, %s, %s, %s, %s, %s)"""
    connection.execute(insert, [0, 10, 5, 3, 2])
    for wrong in (
        [10, 20, 5, 3, 1],
        [10, 20, 5, 6, -1],
        [10, 10, 0, 0, 0],
        [10, 12, 3, 3, 0],
        [0, 10, 5, 3, 2],
    ):
        with pytest.raises(psycopg.IntegrityError):
            connection.execute(insert, wrong)


def test_generations_are_numbered(connection):
    numbers = [connection.execute("select nextval('view_generation')").fetchone()[0] for _ in range(2)]
    assert numbers == [1, 2]


def test_every_query_is_valid_for_the_schema(connection):
    """Prepares each query; parameters become untyped ones, as psycopg sends them."""
    for name, text in sql.QUERIES.items():
        body = "\n".join(line for line in text.splitlines() if not line.startswith("--")).rstrip().rstrip(";")
        if name == "make_migrations_table" or body.startswith(("copy ", "set ")):
            continue  # cannot be prepared
        parameters: list[str] = []

        def numbered(match, seen=parameters) -> str:
            if match[1] not in seen:
                seen.append(match[1])
            return f"${seen.index(match[1]) + 1}"

        statement = re.sub(r"%\((\w+)\)s", numbered, body)
        connection.execute(f"prepare {name} as {statement}".encode())
