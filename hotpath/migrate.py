"""Brings a database to the schema of this program: `python -m hotpath.migrate`.

Pending files of sql/migrations are applied in order, each in a transaction of its own together with its row in
`schema_migrations`, under an advisory lock, so that two runs at once do the work once. Running it again does
nothing. `check` is what other processes ask at their start.
"""

import sys
from datetime import UTC, datetime

import psycopg

from hotpath import settings, sql
from hotpath.errors import ConfigError, HotpathError, Unavailable
from hotpath.maintenance import make_time_partitions

LOCK_KEY = 0x686F7470_0001
"""Advisory lock of a run: "hotp" and a number of our own."""
CONNECT_TIMEOUT_S = 5


def migrate(connection: psycopg.Connection) -> list[sql.Migration]:
    """Apply what is pending and return it. The connection must be in autocommit mode.

    Raises HotpathError when the database has had other migrations than this program knows.
    """
    connection.execute(sql.QUERIES["lock_migrations"], {"key": LOCK_KEY})
    try:
        if not connection.execute(sql.QUERIES["migrations_table"]).fetchone()[0]:
            with connection.transaction():
                connection.execute(sql.QUERIES["make_migrations_table"])
        pending = _pending(connection)
        for migration in pending:
            with connection.transaction():
                connection.execute(migration.text)
                connection.execute(
                    sql.QUERIES["add_migration"],
                    {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
                )
        # The first events should find their day, even when they come before the first maintenance.
        make_time_partitions(connection, datetime.now(UTC))
    finally:
        if not connection.broken:
            connection.execute(sql.QUERIES["unlock_migrations"], {"key": LOCK_KEY})
    return pending


def check(connection: psycopg.Connection) -> None:
    """Return when the database has exactly this program's schema; else raise Unavailable, saying what to do."""
    where = f"database {connection.info.dbname!r}"
    if not connection.execute(sql.QUERIES["migrations_table"]).fetchone()[0]:
        raise Unavailable(f"{where} has no hotpath schema; run `python -m hotpath.migrate`")
    try:
        pending = _pending(connection)
    except HotpathError as error:
        raise Unavailable(str(error)) from None
    if pending:
        raise Unavailable(
            f"{where} lacks migration {pending[0].version} ({pending[0].name}); run `python -m hotpath.migrate`"
        )


def _pending(connection: psycopg.Connection) -> list[sql.Migration]:
    known = {migration.version: migration for migration in sql.migrations()}
    where = f"database {connection.info.dbname!r}"
    for version, name, checksum in connection.execute(sql.QUERIES["applied_migrations"]):
        migration = known.pop(version, None)
        if migration is None:
            raise HotpathError(
                f"{where} has migration {version} ({name}), which this program does not know; "
                "run a newer hotpath, then `python -m hotpath.migrate`"
            )
        if migration.checksum != checksum:
            raise HotpathError(
                f"migration {version} ({name}) was changed after {where} had it; restore its file, "
                "put the change into a new one, and run `python -m hotpath.migrate`"
            )
    return list(known.values())


def connect(dsn: str) -> psycopg.Connection:
    """A connection in autocommit mode. Raises Unavailable, or ConfigError when `dsn` is none."""
    try:
        return psycopg.connect(
            dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="hotpath migrate"
        )
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"HOTPATH_POSTGRES_DSN is not a DSN: {' '.join(str(error).split())}") from None
    except psycopg.Error as error:
        raise unreachable(error) from None


def unreachable(error: psycopg.Error) -> Unavailable:
    """One line about a Postgres that cannot be reached; libpq's own message may have several."""
    why = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return Unavailable(
        f"Postgres cannot be reached ({why}); is it running, and is HOTPATH_POSTGRES_DSN right?"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code."""
    try:
        loaded = settings.load(
            settings.Settings, sys.argv[1:] if arguments is None else arguments, "hotpath.migrate"
        )
        with connect(loaded.postgres_dsn) as connection:
            applied = migrate(connection)
            where = connection.info.dbname
    except HotpathError as error:
        print(f"hotpath.migrate: {error}", file=sys.stderr)
        return error.exit_code
    except psycopg.Error as error:
        print(f"hotpath.migrate: Postgres refuses: {str(error).strip()}", file=sys.stderr)
        return HotpathError.exit_code
    for migration in applied:
        print(f"applied {migration.version:04d} {migration.name}")
    print(f"database {where!r} is at version {len(sql.migrations())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
