"""`hotpath verify` on what a real pipeline made of messages of every class: it proves what is right, and names
exactly what is not, whichever row, field, count or key was tampered with."""

import json
from collections.abc import Iterator
from fnmatch import fnmatch

import psycopg
import pytest
import redis

from hotpath.events import EventClass
from hotpath.views import keys, link
from hotpath.views.contents import sessions_of
from tests.support.live_views import put_sessions, stored_sessions
from tests.support.pipeline import Topic
from tests.support.proven import Proven, differences, produce_everything, prove_quietly, running

PREFIX = "proof"


@pytest.fixture(scope="module")
def proven(kafka, databases, redis_server) -> Iterator[Proven]:
    """A topic of four partitions with messages of every class, and a pipeline that has come to its end."""
    kafka.create_topic("proof", 4)
    topic = Topic(kafka.bootstrap, kafka.client_options, "proof", 4)
    database = databases.create()
    with running(topic, database, redis_server.url, redis_prefix=PREFIX, quarantine_rows_max=1_000) as made:
        produce_everything(topic, made.settings)
        made.pipeline.wait_until_applied()
        assert made.pipeline.stop() == 0
        yield made
    databases.drop(database)
    kafka.delete_topic("proof")


TABLES = ("events", "late_events", "quarantine", "bot_activity", "ledger", "history_minutes", "history_pages")


@pytest.fixture
def postgres_restored(proven: Proven) -> Iterator[psycopg.Connection]:
    """A connection to tamper with Postgres by; all is as it was afterwards."""
    with psycopg.connect(proven.settings.postgres_dsn, autocommit=True) as connection:
        connection.execute("create schema saved")
        for table in (*TABLES, "partition_state"):
            connection.execute(f"create table saved.{table} as table {table}")
        yield connection
        with connection.transaction():
            for table in TABLES:
                connection.execute(f"delete from {table}")
                connection.execute(f"insert into {table} select * from saved.{table}")
            connection.execute(
                "update partition_state s set next_offset = o.next_offset, watermark_s = o.watermark_s"
                " from saved.partition_state o where o.log_id = s.log_id"
            )
            connection.execute("drop schema saved cascade")


def test_everything_that_a_pipeline_made_is_proven(proven: Proven):
    findings = prove_quietly(proven.settings)
    assert differences(findings) == []
    assert findings.notes == []
    counted = dict(
        proven.pipeline.query(
            "select 'messages', sum(received)::int from ledger union all select 'events', count(*) from events"
            " union all select 'late_events', count(*) from late_events"
            " union all select 'quarantine', count(*) from quarantine"
            " union all select 'ledger', count(*) from ledger"
            " union all select 'bot_activity', count(*) from bot_activity"
        )
    )
    assert {name: findings.checked[name] for name in counted} == counted
    assert findings.checked["partition_state"] == 4
    assert findings.checked["views"] > 500
    classes = proven.pipeline.query(f"select {', '.join(f'sum({c.label})' for c in EventClass)} from ledger")[
        0
    ]
    assert all(classes), "the log holds every class"


def test_the_plain_reference_agrees_on_every_message(proven: Proven):
    findings = prove_quietly(proven.settings, full=True)
    assert differences(findings) == []
    assert findings.checked["stages"] == findings.checked["messages"] > 3_000


# What is changed in Postgres: a query that picks a log_id and an offset, the change, and all that verify must say, as
# patterns in which {p} and {o} stand for the partition and the offset. A minute of the history is the newest: those of
# years ago, which the log has too, are past their retention, and nothing is asked of them.
TAMPERED = {
    "a row deleted": (
        "select log_id, kafka_offset from events order by kafka_offset desc, log_id limit 1",
        "delete from events where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: events: expected a row, found none"],
    ),
    "a field changed": (
        "select log_id, kafka_offset from events where kafka_offset = 100 order by log_id limit 1",
        "update events set session_id = 'other' where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: events.session_id: expected '*', found 'other'"],
    ),
    "a time changed": (
        "select log_id, kafka_offset from events where kafka_offset = 100 order by log_id limit 1",
        "update events set ts = ts + interval '1 microsecond' where log_id = %(log_id)s"
        " and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: events.timestamp: expected *, found *000001+00:00"],
    ),
    "a row stored twice": (
        "select log_id, kafka_offset from events where kafka_offset = 50 order by log_id desc limit 1",
        "insert into events select * from events where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: events: expected one row, found one more"],
    ),
    "a bot among the events": (
        "select log_id, kafka_offset from quarantine where class = 'bot' limit 1",
        "insert into events select %(log_id)s, %(offset)s, now(), 'u', 'page_view', '/', 's'",
        ["partition {p}, offset {o}: events: expected none, the message is bot, found a row"],
    ),
    "a row beyond the end": (
        "select log_id, next_offset + 7 from partition_state order by log_id limit 1",
        "insert into events select %(log_id)s, %(offset)s, now(), 'u', 'page_view', '/', 's'",
        ["partition {p}, offset {o}: events: expected none, the log has not been read there, found a row"],
    ),
    "a late row deleted": (
        "select log_id, kafka_offset from late_events limit 1",
        "delete from late_events where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: late_events: expected a row, found none"],
    ),
    "a late page changed": (
        "select log_id, kafka_offset from late_events where page_url <> '/never' limit 1",
        "update late_events set page_url = '/never' where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: late_events.page_url: expected '*', found '/never'"],
    ),
    "a payload changed": (
        "select log_id, kafka_offset from quarantine where class = 'missing_field' limit 1",
        "update quarantine set payload = '\\x00' where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: quarantine.payload: expected '*', found '\\x00'"],
    ),
    "a payload's size changed": (
        "select log_id, kafka_offset from quarantine where class = 'too_large' limit 1",
        "update quarantine set payload_size = 70001 where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: quarantine.payload_size: expected *, found 70001"],
    ),
    "a class changed": (
        "select log_id, kafka_offset from quarantine where class = 'empty' limit 1",
        "update quarantine set class = 'not_json' where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: quarantine.class: expected empty, found not_json"],
    ),
    "a detail changed": (
        "select log_id, kafka_offset from quarantine where class = 'not_json' limit 1",
        "update quarantine set detail = 'why not' where log_id = %(log_id)s and kafka_offset = %(offset)s",
        ["partition {p}, offset {o}: quarantine.detail: expected 'the value is *', found 'why not'"],
    ),
    "an event in quarantine": (
        "select log_id, kafka_offset from events where kafka_offset = 100 order by log_id limit 1",
        "insert into quarantine (log_id, kafka_offset, class, detail, payload, payload_size)"
        " values (%(log_id)s, %(offset)s, 'bot', '', '', 0)",
        [
            "partition {p}, offset {o}: quarantine: expected none, the message is accepted, found a row of class bot"
        ],
    ),
    "a quarantine row deleted": (
        "select log_id, kafka_offset from quarantine where class = 'future' limit 1",
        "delete from quarantine where log_id = %(log_id)s and kafka_offset = %(offset)s",
        [
            "partition {p}, offset {o}: quarantine: expected a row of class future, found none; the flush stored *"
        ],
    ),
    "a count of the ledger shifted": (
        "select log_id, first_offset from ledger where accepted > 0 and reason is null limit 1",
        "update ledger set accepted = accepted - 1, late = late + 1"
        " where log_id = %(log_id)s and first_offset = %(offset)s",
        [
            "partition {p}, offset {o}: ledger.accepted: expected *, found *",
            "partition {p}, offset {o}: ledger.late: expected *, found *",
        ],
    ),
    "a row of the ledger lost": (
        "select l.log_id, l.first_offset from ledger l join ledger f on f.log_id = l.log_id"
        " and f.first_offset = l.next_offset where l.first_offset > 0 limit 1",
        "delete from ledger where log_id = %(log_id)s and first_offset = %(offset)s",
        ["partition {p}, offset *: ledger.first_offset: expected {o}, found *"],
    ),
    "the first row of the ledger lost": (
        "select log_id, first_offset from ledger where first_offset = 0 limit 1",
        "delete from ledger where log_id = %(log_id)s and first_offset = %(offset)s",
        ["partition {p}, offset {o}: ledger: expected a row that counts it (* messages on end), found none"],
    ),
    "a loss that was none": (
        "select log_id, first_offset from ledger where accepted > 0 limit 1",
        "update ledger set reason = 'retention', received = 0, accepted = 0, too_large = 0, empty = 0, not_json = 0,"
        " not_object = 0, missing_field = 0, wrong_type = 0, bad_value = 0, bad_timestamp = 0, future = 0, late = 0,"
        " bot = 0 where log_id = %(log_id)s and first_offset = %(offset)s",
        [
            "partition {p}, offset {o}: ledger.reason: expected none: Kafka still has * messages of the range, "
            "found 'retention'"
        ],
    ),
    "fewer bots in a second": (
        "select log_id, 0 from bot_activity where dropped > 1 limit 1",
        "update bot_activity set dropped = dropped - 1 where (log_id, user_id, second) ="
        " (select log_id, user_id, second from bot_activity where dropped > 1 and log_id = %(log_id)s limit 1)",
        ["partition {p}: bot_activity.dropped of user 'bot-{p}' in second *: expected *, found *"],
    ),
    "a bot forgotten": (
        "select log_id, 0 from bot_activity limit 1",
        "delete from bot_activity where (log_id, user_id, second) ="
        " (select log_id, user_id, second from bot_activity where log_id = %(log_id)s limit 1)",
        ["partition {p}: bot_activity.dropped of user '*' in second *: expected *, found no row"],
    ),
    "a bot invented": (
        "select log_id, 0 from partition_state limit 1",
        "insert into bot_activity values (%(log_id)s, 'nobody', '2024-03-15T14:30:00Z', 3)",
        [
            "partition {p}: bot_activity.dropped of user 'nobody' in second 1710513000: expected no row, found 3"
        ],
    ),
    "a minute's history off by one": (
        "select log_id, 0 from history_minutes where accepted > 0 order by minute desc limit 1",
        "update history_minutes set accepted = accepted + 1 where ctid ="
        " (select ctid from history_minutes where accepted > 0 and log_id = %(log_id)s order by minute desc limit 1)",
        ["partition {p}: history_minutes.accepted of *Z: expected *, found *"],
    ),
    "late events left out of the history": (
        "select log_id, 0 from history_minutes where late > 0 order by minute desc limit 1",
        "update history_minutes set late = 0 where ctid ="
        " (select ctid from history_minutes where late > 0 and log_id = %(log_id)s order by minute desc limit 1)",
        ["partition {p}: history_minutes.late of *Z: expected *, found *"],
    ),
    "a page's history off by one": (
        "select 0, 0 from partition_state limit 1",
        "update history_pages set other_views = other_views + 1 where ctid ="
        " (select ctid from history_pages order by minute desc limit 1)",
        ["history_pages.views of *Z: expected *, found *"],
    ),
    "a watermark moved": (
        "select log_id, 0 from partition_state limit 1",
        "update partition_state set watermark_s = watermark_s + 1 where log_id = %(log_id)s",
        ["partition {p}: partition_state.watermark_s: expected *, found *"],
    ),
    "next_offset moved on": (
        "select log_id, next_offset from partition_state limit 1",
        "update partition_state set next_offset = next_offset + 1 where log_id = %(log_id)s",
        [
            "partition {p}: partition_state.next_offset: expected at most {o}, where Kafka ends, found *",
            "partition {p}: partition_state.next_offset: expected {o}, where the ledger ends, found *",
        ],
    ),
    "next_offset moved back": (
        "select log_id, next_offset from partition_state limit 1",
        "update partition_state set next_offset = next_offset - 1 where log_id = %(log_id)s",
        [
            "partition {p}: partition_state.next_offset: expected {o}, where the ledger ends, found *",
            "partition {p}, offset *: quarantine: expected none, the log has not been read there, found a row",
            "partition {p}: views.state of applied: expected at most *, found {o}",
        ],
    ),
    "rows of a log that is not there": (
        "select log_id, 0 from partition_state limit 1",
        "insert into late_events values (999, 1, now(), 'u', 'page_view', '/', 's')",
        ["late_events.log 999: expected no rows, there is no such log, found 1 rows"],
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_is_changed_in_postgres_is_named(
    name: str, proven: Proven, postgres_restored: psycopg.Connection
):
    pick, tamper, expected = TAMPERED[name]
    log_id, offset = postgres_restored.execute(pick).fetchone()
    assert postgres_restored.execute(tamper, {"log_id": log_id, "offset": offset}).rowcount == 1
    partitions = dict(proven.pipeline.query("select log_id, partition from partition_state"))
    partition = partitions.get(log_id)
    assert_named(
        differences(prove_quietly(proven.settings)),
        [text.replace("{p}", str(partition)).replace("{o}", str(offset)) for text in expected],
    )


def assert_named(found: list[str], patterns: list[str]) -> None:
    """Exactly these differences, in any order."""
    left = list(found)
    for pattern in patterns:
        hit = next((text for text in left if fnmatch(text, pattern)), None)
        assert hit is not None, f"{pattern!r} is not among {found}"
        left.remove(hit)
    assert left == []


class Views:
    """The views of one log in Redis."""

    def __init__(self, proven: Proven) -> None:
        self.client = redis.Redis.from_url(proven.settings.redis_url)
        self.log_id, self.partition = proven.pipeline.query(
            "select log_id, partition from partition_state order by log_id limit 1"
        )[0]
        self.generation = int(self.client.get(keys.current(PREFIX, self.log_id)))

    def key(self, part: str) -> str:
        return keys.part(PREFIX, self.log_id, self.generation, part)

    def member(self, part: str) -> str:
        return self.client.zrevrange(self.key(part), 0, 0)[0].decode()

    def page_count_off_by_one(self) -> list[str]:
        page = self.member("pages")
        self.client.zincrby(self.key("pages"), 1, page)
        return [f"views.pages of {page}: expected *, the sum of its steps, found *"]

    def page_count_of_a_step_off_by_one(self) -> list[str]:
        page, step = self.member("pages"), self.member("steps")
        self.client.zincrby(self.key("pages"), 1, page)
        self.client.hincrby(self.key(f"pages:{step}"), page, 1)
        return [f"views.pages of {page} in step {step}: expected *, found *"]

    def sessions(self, user: str) -> dict[bytes, int]:
        return stored_sessions(self.client, self.key, user)

    def user_missing(self) -> list[str]:
        self.client.zrem(self.key("users"), user := self.member("users"))
        return [f"views.users of {user}: expected a member with score 0, found none"]

    def user_without_record(self) -> list[str]:
        # One with a single session: of others the ranking tells as well.
        records = self.client.hgetall(self.key("seen"))
        user = next(user.decode() for user, record in records.items() if len(sessions_of(record)) == 1)
        ((session, step),) = self.sessions(user).items()
        self.client.hdel(self.key("seen"), user)
        return [
            f"views.seen of {user}: expected a record of sessions, found none",
            f"views.newest of users last seen in step {step} or later: expected *, as in `seen`, found *",
            f"views.users of {user}: expected {step}, found none",
            f"views.sessions of {user} {session.decode()}: expected {step}, found none",
        ]

    def record_that_is_none(self) -> list[str]:
        self.client.hset(self.key("seen"), user := self.member("users"), "no such thing")
        self.client.zrem(self.key("ranked"), user)
        return [f"views.seen of {user}: expected a record of sessions, found 'no such thing'"]

    def user_invented(self) -> list[str]:
        step = max(map(int, self.client.hkeys(self.key("newest"))))
        put_sessions(self.client, self.key, "nobody", {b"s": step})
        return [
            f"views.users of nobody: expected none, found {step}",
            f"views.sessions of nobody s: expected none, found {step}",
        ]

    def session_seen_too_late(self) -> list[str]:
        sessions = self.sessions(user := self.member("users"))
        session = max(sessions, key=sessions.get)
        put_sessions(self.client, self.key, user, sessions | {session: sessions[session] + 1})
        return [
            f"views.users of {user}: expected *, found *",
            f"views.sessions of {user} {session.decode()}: expected *, found *",
        ]

    def one_user_more_in_a_step(self) -> list[str]:
        step = max(map(int, self.client.hkeys(self.key("newest"))))
        self.client.hincrby(self.key("newest"), step, 1)
        return [f"views.newest of users last seen in step {step} or later: expected *, as in `seen`, found *"]

    def rank_off_by_one(self) -> list[str]:
        user = self.member("ranked")
        self.client.zincrby(self.key("ranked"), 1, user)
        return [f"views.ranked of {user}: expected -*, found *"]

    def applied_too_far(self) -> list[str]:
        self.client.hincrby(self.key("state"), "applied", 1)
        return ["views.state of applied: expected at most *, found *"]

    def log_not_listed(self) -> list[str]:
        self.client.hdel(keys.logs(PREFIX), self.log_id)
        return [f"views.list of logs, log {self.log_id}: expected */*, found none"]

    def no_generation(self) -> list[str]:
        self.client.delete(keys.current(PREFIX, self.log_id))
        return ["views.state of *: expected a live generation, found none"]


@pytest.fixture
def views(proven: Proven) -> Iterator[Views]:
    """Views to be tampered with, which are as they were afterwards."""
    views = Views(proven)
    names = list(views.client.scan_iter(f"{PREFIX}:*"))
    saved = {name: views.client.dump(name) for name in names}
    yield views
    for name in views.client.scan_iter(f"{PREFIX}:*"):
        views.client.delete(name)
    for name, data in saved.items():
        views.client.restore(name, 0, data)
    views.client.close()


@pytest.mark.parametrize(
    "tamper",
    [
        Views.page_count_off_by_one,
        Views.page_count_of_a_step_off_by_one,
        Views.user_missing,
        Views.user_without_record,
        Views.record_that_is_none,
        Views.one_user_more_in_a_step,
        Views.rank_off_by_one,
        Views.user_invented,
        Views.session_seen_too_late,
        Views.applied_too_far,
        Views.log_not_listed,
        Views.no_generation,
    ],
    ids=lambda tamper: tamper.__name__,
)
def test_what_is_changed_in_redis_is_named(tamper, proven: Proven, views: Views):
    patterns = tamper(views)
    found = differences(prove_quietly(proven.settings))
    where = f"partition {views.partition}: "
    assert_named(found, [pattern if "list of" in pattern else where + pattern for pattern in patterns])


def test_users_whom_trimming_has_not_come_to_are_no_difference(proven: Proven, views: Views):
    """Before a sweep, and when it has gone through half of the users."""
    step = min(map(int, views.client.hkeys(views.key("newest"))))
    borders = link.script("trim", PREFIX, views.log_id, views.generation, [0, step, 1, 1, step, "ticket"])
    assert link.run(views.client, [borders]) == [[b"OK", b"0"]]
    assert differences(prove_quietly(proven.settings)) == []
    some = views.client.zcard(views.key("users")) // 2
    begin = link.script("trim", PREFIX, views.log_id, views.generation, [0, step, 1, some, 0, "another"])
    stored = views.client.hlen(views.key("seen"))
    ((done, how, left, *_),) = link.run(views.client, [begin])
    assert (done, how) == (b"OK", b"SWEEP") and left <= stored
    assert differences(prove_quietly(proven.settings)) == []


def test_the_command_prints_a_table_or_json(
    proven: Proven, postgres_restored: psycopg.Connection, verify_command
):
    settings, chosen = proven.settings, ("--partitions", "1", "--to", "300")
    code, out, _ = verify_command(settings, *chosen)
    assert code == 0 and "proven: 300 messages" in out
    code, out, _ = verify_command(settings, "--json", "--full", *chosen)
    result = json.loads(out)
    assert code == 0 and result["proven"] and result["differences"] == []
    assert result["checked"]["messages"] == result["checked"]["stages"] == 300
    before = postgres_restored.execute(
        "update events set page_url = '/x' where kafka_offset = (select min(kafka_offset) from events e"
        " where e.log_id = events.log_id) and log_id = (select log_id from partition_state where partition = 1)"
        " returning kafka_offset"
    ).fetchone()
    code, out, _ = verify_command(settings, *chosen)
    assert code == 1 and f"partition 1, offset {before[0]}: events.page_url: expected '/" in out
    code, out, _ = verify_command(settings, "--json", *chosen)
    first = json.loads(out)["differences"][0]
    assert code == 1 and first.pop("expected").startswith("'/")
    assert first == {
        "what": "events",
        "partition": 1,
        "offset": before[0],
        "field": "page_url",
        "found": "'/x'",
    }
