"""Maintenance: days are there before their events, old rows go, and nothing goes that is still needed."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from hotpath.maintenance import DAYS_AHEAD, LOCK_KEY, NEEDED_MARGIN_S, Maintenance
from hotpath.settings import PipelineSettings

NOW = datetime(2040, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def connection(database):
    with psycopg.connect(database, autocommit=True) as opened:
        yield opened


def new_maintenance(dsn: str, **settings: int) -> Maintenance:
    return Maintenance(dsn, PipelineSettings(postgres_dsn=dsn, **settings))


def add_log(connection: psycopg.Connection, watermark: datetime | None = None, next_offset: int = 0) -> int:
    connection.execute("insert into rules (rules) values ('{}') on conflict do nothing")
    return connection.execute(
        "insert into partition_state (topic, topic_id, partition, next_offset, epoch, watermark_s, owner, rules_id) "
        "values ('t', 'i', (select count(*) from partition_state), %s, 1, %s, 'o', 1) returning log_id",
        [next_offset, int(watermark.timestamp()) if watermark else 0],
    ).fetchone()[0]


def add_event(connection: psycopg.Connection, ts: datetime, log_id: int = 1, offset: int = 0) -> None:
    connection.execute(
        "insert into events values (%s, %s, %s, 'u', 'page_view', '/', 's')", [log_id, offset, ts]
    )


def age_partitions(connection: psycopg.Connection, made_at: datetime) -> None:
    connection.execute("update time_partitions set made_at = %s", [made_at])


def days_of(connection: psycopg.Connection, parent: str = "events") -> list[str]:
    found = connection.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent = %s::regclass order by 1", [parent]
    )
    return [name.removeprefix(f"{parent}_") for (name,) in found]


def place_of(connection: psycopg.Connection) -> list[tuple[str, datetime]]:
    return connection.execute("select tableoid::regclass::text, ts from events order by ts").fetchall()


@pytest.mark.parametrize("parent", ["events", "late_events", "quarantine"])
def test_days_exist_from_yesterday_to_a_week_ahead(database, connection, parent):
    report = new_maintenance(database).run_once(NOW)
    wanted = {f"{NOW + n * DAY:%Y%m%d}" for n in range(-1, DAYS_AHEAD + 1)}
    assert wanted <= set(days_of(connection, parent))
    assert (report.ran, report.failed) == (True, [])
    assert report.made == 3 * len(wanted)


def test_running_again_makes_nothing(database):
    maintenance = new_maintenance(database)
    maintenance.run_once(NOW)
    again = maintenance.run_once(NOW)
    assert (again.made, again.dropped, again.summarized, again.failed) == (0, [], 0, [])


def test_rows_of_a_day_move_there_from_the_default_partition(database, connection):
    midnight = NOW.replace(hour=0)
    times = [midnight - timedelta(microseconds=1), midnight, midnight + DAY - timedelta(microseconds=1)]
    stray = datetime(2033, 1, 1, tzinfo=UTC)
    for ts in (stray, *times):
        add_event(connection, ts)
    assert {place for place, _ in place_of(connection)} == {"events_default"}
    report = new_maintenance(database).run_once(NOW)
    assert report.failed == []
    assert place_of(connection) == [
        ("events_default", stray),
        ("events_20400614", times[0]),
        ("events_20400615", times[1]),
        ("events_20400615", times[2]),
    ]


def test_days_are_made_where_an_old_log_is_replayed(database, connection):
    replayed = datetime(2024, 3, 15, 12, tzinfo=UTC)
    add_log(connection, replayed)
    add_event(connection, replayed)
    new_maintenance(database).run_once(NOW)
    assert place_of(connection) == [("events_20240315", replayed)]


def test_a_day_ends_at_midnight_utc_whatever_the_sessions_zone(database, connection):
    connection.execute("set timezone to 'Pacific/Kiritimati'")
    connection.execute("select make_time_partition('events', '2041-01-01')")
    bounds = connection.execute(
        "select from_time, to_time from time_partitions where name = 'events_20410101'"
    ).fetchone()
    assert bounds == (datetime(2041, 1, 1, tzinfo=UTC), datetime(2041, 1, 2, tzinfo=UTC))
    add_event(connection, datetime(2041, 1, 1, tzinfo=UTC))
    assert place_of(connection)[0][0] == "events_20410101"


def test_days_past_their_retention_are_dropped(database, connection):
    maintenance = new_maintenance(database, retention_events_days=3, retention_late_days=30)
    maintenance.run_once(NOW - 5 * DAY)
    age_partitions(connection, NOW - 5 * DAY)
    report = new_maintenance(database, retention_events_days=3).run_once(NOW)
    # Days of the server's own date are there, too: migrate made them. They are older than NOW and go as well.
    assert {"events_20400609", "events_20400610", "events_20400611"} <= set(report.dropped)
    assert [day for day in days_of(connection) if day < "20400612"] == []
    assert "20400612" in days_of(connection)
    assert "20400609" in days_of(connection, "late_events")


def test_a_day_made_recently_stays_however_old_it_is(database, connection):
    replayed = datetime(2024, 3, 15, 12, tzinfo=UTC)
    log_id = add_log(connection, replayed)
    maintenance = new_maintenance(database)
    maintenance.run_once(NOW)
    connection.execute(
        "update partition_state set watermark_s = %s where log_id = %s", [int(NOW.timestamp()), log_id]
    )
    age_partitions(connection, NOW - 29 * DAY)
    assert new_maintenance(database).run_once(NOW).dropped == []
    age_partitions(connection, NOW - 31 * DAY)
    assert "events_20240315" in new_maintenance(database).run_once(NOW).dropped


def test_a_day_near_a_logs_watermark_is_never_dropped(database, connection):
    quiet_since = datetime(2039, 1, 10, 0, 0, 1, tzinfo=UTC)
    log_id = add_log(connection, quiet_since)
    for day in ("2039-01-07", "2039-01-08", "2039-01-09", "2039-01-10", "2039-01-11"):
        connection.execute("select make_time_partition('events', %s)", [day])
    age_partitions(connection, NOW - 60 * DAY)
    new_maintenance(database).run_once(NOW)
    # A day and the widest window behind the watermark: that reaches into the 8th.
    assert NEEDED_MARGIN_S == 86_400
    assert [day for day in days_of(connection) if day.startswith("2039")] == [
        "20390108",
        "20390109",
        "20390110",
    ]
    connection.execute("update partition_state set retired_at = now() where log_id = %s", [log_id])
    new_maintenance(database).run_once(NOW)
    assert [day for day in days_of(connection) if day.startswith("2039")] == []


def test_rows_without_a_day_go_when_they_are_old_and_were_stored_long_ago(database, connection):
    log_id = add_log(connection, NOW, next_offset=20)
    ledger = """insert into ledger (log_id, first_offset, next_offset, received, accepted, committed_at)
        values (%s, %s, %s, 1, 1, %s)"""
    connection.execute(ledger, [log_id, 0, 10, NOW - 31 * DAY])
    connection.execute(ledger, [log_id, 10, 20, NOW - 29 * DAY])
    old = datetime(2033, 1, 1, tzinfo=UTC)
    add_event(connection, old, log_id, 9)
    add_event(connection, old, log_id, 10)
    report = new_maintenance(database).run_once(NOW)
    assert report.removed["default_events"] == 1
    assert connection.execute("select kafka_offset from events").fetchall() == [(10,)]


def test_bot_activity_goes_by_the_time_it_was_stored(database, connection):
    for user, stored_at in (("old", NOW - 31 * DAY), ("new", NOW - 29 * DAY)):
        connection.execute("insert into bot_activity values (1, %s, '2024-03-15', 1, %s)", [user, stored_at])
    new_maintenance(database).run_once(NOW)
    assert connection.execute("select user_id from bot_activity").fetchall() == [("new",)]


def test_retention_is_looked_at_every_ten_minutes_only(database, connection):
    maintenance = new_maintenance(database)
    assert "bot_activity" in maintenance.run_once(NOW).removed
    assert maintenance.run_once(NOW + timedelta(seconds=10)).removed == {}
    assert "bot_activity" in maintenance.run_once(NOW + timedelta(minutes=10)).removed


def test_old_ledger_rows_are_merged_by_the_hour(database, connection):
    log_id = add_log(connection, next_offset=110)
    old = (NOW - 10 * DAY).replace(minute=0)
    insert = (
        "insert into ledger "
        "(log_id, first_offset, next_offset, received, accepted, bot, reason, rules_id, committed_at) "
        "values (%s, %s, %s, %s, %s, %s, %s, 1, %s)"
    )
    minute = timedelta(minutes=1)
    for first, end, accepted, bot, reason, at in [
        (0, 10, 8, 2, None, old),
        (10, 20, 9, 1, None, old + minute),
        (20, 30, 10, 0, None, old + 59 * minute),
        (30, 40, 0, 0, "retention passed", old + 59 * minute),  # a loss stays by itself
        (40, 50, 7, 0, None, old + 59 * minute),
        (50, 60, 1, 0, None, old + 60 * minute),  # another hour
        (60, 70, 2, 0, None, old + 61 * minute),
        (70, 80, 3, 0, None, NOW - DAY),  # too young
        (80, 90, 4, 0, None, NOW - DAY),
    ]:
        connection.execute(insert, [log_id, first, end, accepted + bot, accepted, bot, reason, at])
    connection.execute("update partition_state set next_offset = 90")
    for _ in range(2):
        new_maintenance(database).run_once(NOW)
        merged = connection.execute(
            "select first_offset, next_offset, received, accepted, bot, reason from ledger order by 1"
        ).fetchall()
        assert merged == [
            (0, 30, 30, 27, 3, None),
            (30, 40, 0, 0, 0, "retention passed"),
            (40, 50, 7, 7, 0, None),
            (50, 70, 3, 3, 0, None),
            (70, 80, 3, 3, 0, None),
            (80, 90, 4, 4, 0, None),
        ]


def test_new_rows_are_summarised_for_the_index(database, connection):
    maintenance = new_maintenance(database)
    maintenance.run_once(NOW)
    connection.execute(
        "insert into events select 1, n, %s + n * interval '1 ms', 'u', 'page_view', '/', 's' "
        "from generate_series(1, 20000) n",
        [NOW],
    )
    assert maintenance.run_once(NOW).summarized > 0
    assert maintenance.run_once(NOW).summarized == 0
    plan = "\n".join(
        line
        for (line,) in connection.execute(
            "explain (analyze, costs off) select count(*) from events where ts = %s and log_id = 1",
            [NOW + DAY / 2],
        )
    )
    assert "Never executed" in plan or "events_20400616" in plan


def test_a_table_that_is_being_vacuumed_is_summarised_later_and_the_others_now(
    database, connection, monkeypatch
):
    monkeypatch.setattr("hotpath.maintenance.LOCK_TIMEOUT_MS", 50)
    maintenance = new_maintenance(database)
    maintenance.run_once(NOW)
    for day in (NOW, NOW + DAY):
        connection.execute(
            "insert into events select 1, n, %s + n * interval '1 ms', 'u', 'page_view', '/', 's' "
            "from generate_series(1, 20000) n",
            [day],
        )
    with psycopg.connect(database) as vacuum:
        vacuum.execute("lock table only events_20400615 in share update exclusive mode")
        others = maintenance.run_once(NOW)
    assert others.failed == []
    assert others.summarized > 0
    assert maintenance.run_once(NOW).summarized > 0
    assert maintenance.run_once(NOW).summarized == 0


def test_days_are_not_vacuumed_after_inserts(database, connection):
    new_maintenance(database).run_once(NOW)
    options = connection.execute(
        "select distinct c.reloptions from pg_class c join time_partitions p on p.name = c.relname"
    )
    assert options.fetchall() == [(["autovacuum_vacuum_insert_threshold=-1"],)]


def test_one_runner_works_at_a_time(database, connection):
    connection.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
    assert not new_maintenance(database).run_once(NOW).ran
    connection.execute("select pg_advisory_unlock(%s)", [LOCK_KEY])
    assert new_maintenance(database).run_once(NOW).ran


def test_a_task_that_fails_is_named_and_the_others_are_done(database, connection):
    connection.execute("drop function make_time_partition")
    add_log(connection)
    connection.execute("insert into bot_activity values (1, 'old', '2024-03-15', 1, '2024-03-15')")
    maintenance = new_maintenance(database)
    report = maintenance.run_once(NOW)
    assert report.failed == ["make_days"]
    assert report.removed["bot_activity"] == 1
    assert maintenance.run_once(NOW).removed  # retention is not put off after a failure


def test_postgres_being_away_is_not_fatal():
    report = new_maintenance("postgresql://127.0.0.1:1/hotpath").run_once(NOW)
    assert (report.ran, report.failed) == (False, ["connection"])


def test_writers_do_not_wait_while_a_day_is_made(database, connection):
    with psycopg.connect(database) as writer:
        add_event(writer, datetime.now(UTC))  # its transaction stays open
        connection.execute("set lock_timeout = '1s'")
        made = connection.execute("select make_time_partition('events', '2041-02-01')").fetchone()
        assert made == (True,)


def test_a_reader_holding_an_old_day_puts_its_drop_off(database, connection, monkeypatch):
    monkeypatch.setattr("hotpath.maintenance.LOCK_TIMEOUT_MS", 50)
    new_maintenance(database).run_once(NOW - 60 * DAY)
    age_partitions(connection, NOW - 60 * DAY)
    maintenance = new_maintenance(database)
    with psycopg.connect(database) as reader:
        reader.execute("select count(*) from events")
        report = maintenance.run_once(NOW)
        assert "drop_days" in report.failed
    assert "events_20400415" in maintenance.run_once(NOW).dropped
