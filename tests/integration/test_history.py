"""The history by minute in Postgres: stored with its events, merged without a change of its sums, removed in time."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from hotpath.events import EventClass
from hotpath.maintenance import Maintenance
from hotpath.settings import PipelineSettings
from hotpath.workers.copy_format import seal_rows
from tests.support import stored
from tests.support.blocks import NOON_US, Event, append_events, new_block

MINUTE_US = 60_000_000
SUMS = {
    "minutes": "select minute, log_id, sum(accepted), sum(page_views), sum(bot), sum(late) from history_minutes"
    " group by 1, 2 order by 1, 2",
    "pages": "select minute, page, sum(n) from history_pages, unnest(page_urls, views) as p (page, n)"
    " group by 1, 2 order by 1, 2",
}
FROM_EVENTS = {
    "minutes": "select date_trunc('minute', ts), log_id, count(*) filter (where kind = 'a'),"
    " count(*) filter (where kind = 'a' and event_type = 'page_view'), 0, count(*) filter (where kind = 'l')"
    " from (select 'a' as kind, log_id, ts, event_type from events"
    " union all select 'l', log_id, ts, event_type from late_events) as both_kinds group by 1, 2 order by 1, 2",
    "pages": "select date_trunc('minute', ts), page_url, count(*) from events where event_type = 'page_view'"
    " group by 1, 2 order by 1, 2",
}


def flush(database: str, flushes: int = 3, broken: str = "") -> None:
    sink = stored.new_sink(database)
    handles = stored.take(sink, (0, 1))
    offsets = [0, 0]
    for number in range(flushes):
        block = new_block([h.log_id for h in handles], offsets, [h.epoch for h in handles])
        events = []
        for i in range(60):
            log_index = i % 2
            events.append(
                Event(
                    offsets[log_index],
                    log_index,
                    EventClass.LATE if i % 10 == 9 else EventClass.ACCEPTED,
                    NOON_US + (number * 7 + i) * 5_000_000,
                    event_type="click" if i % 4 == 3 else "page_view",
                    page_url=broken if broken and i == 8 else f"/p/{i % 7}",
                )
            )
            offsets[log_index] += 1
        seal_rows(block, append_events(block, events))
        sink.flush(block)
    sink.close()


def sums(database: str, queries: dict[str, str] = SUMS) -> dict[str, list[tuple]]:
    return {name: stored.rows(database, query) for name, query in queries.items()}


def test_history_agrees_with_the_events_of_every_flush(database):
    flush(database)
    assert sums(database) == sums(database, FROM_EVENTS)
    assert len(sums(database)["pages"]) > 7


def test_a_row_that_postgres_refuses_is_not_in_the_history(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("alter table events add check (page_url <> '/refused')")
    flush(database, flushes=1, broken="/refused")
    assert stored.rows(database, "select class from quarantine") == [("bad_value",)]
    assert sums(database) == sums(database, FROM_EVENTS)


def test_merging_keeps_the_sums_and_waits_for_quiet_minutes(database):
    flush(database)
    before, now = sums(database), datetime.now(UTC)
    maintenance = Maintenance(database, PipelineSettings(postgres_dsn=database))
    assert maintenance.run_once(now).merged == 0
    report = maintenance.run_once(now + timedelta(minutes=3))
    assert report.failed == []
    assert report.merged > 0
    assert sums(database) == before
    for table, key in (("history_minutes", "minute, log_id"), ("history_pages", "minute")):
        assert stored.rows(database, f"select 1 from {table} group by {key} having count(*) > 1") == []
    assert maintenance.run_once(now + timedelta(minutes=6)).merged == 0


def test_merging_keeps_the_most_viewed_pages_and_counts_the_others(database):
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(
                "insert into history_pages (minute, page_urls, views, stored_at) select '2024-03-15 12:00Z',"
                " array_agg('/' || n order by n), array_agg(n order by n), '2024-03-15 12:01Z'"
                " from generate_series(1, 10005) as n"
            )
        connection.execute("select merge_history(now())")
        cardinality, other, least, top = connection.execute(
            "select cardinality(page_urls), other_views, views[10000], page_urls[1] from history_pages"
        ).fetchone()
    assert (cardinality, other, least, top) == (10_000, 2 * (1 + 2 + 3 + 4 + 5), 12, "/10005")


@pytest.mark.parametrize("table", ["history_minutes", "history_pages"])
def test_history_past_its_retention_is_removed(database, table):
    flush(database)
    now = datetime.now(UTC)
    kept = Maintenance(database, PipelineSettings(postgres_dsn=database, retention_history_days=1))
    assert kept.run_once(now).removed[table] == 0, "old minutes that were stored lately stay"
    later = Maintenance(database, PipelineSettings(postgres_dsn=database, retention_history_days=1))
    assert later.run_once(now + timedelta(days=2)).removed[table] > 0
    assert stored.rows(database, f"select count(*) from {table}") == [(0,)]
