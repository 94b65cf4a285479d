"""The endpoints that read Postgres: what they count, page through, refuse, and say when Postgres is away."""

import asyncio
import base64
import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from starlette.testclient import TestClient

from api import history
from api.app import create_app
from api.contract import History, Ledger, Quarantine
from api.errors import NotAvailable
from api.postgres import ANSWERS_MAX, Postgres, Reader
from api.settings import ApiSettings
from api.workers import Seen
from tests.support.api import HERE
from tests.support.pipeline import free_port

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute("insert into rules (rules) values ('{}')")
        for partition in (0, 1):
            opened.execute(
                "insert into partition_state (topic, topic_id, partition, next_offset, epoch, owner, rules_id)"
                " select 'events', 'id', %s, 0, 1, 'test', rules_id from rules",
                (partition,),
            )
        yield opened


@pytest.fixture
def client(database: str, redis_url: str) -> Iterator[TestClient]:
    settings = ApiSettings(redis_url=redis_url, postgres_dsn=database, api_refresh_ms=1)
    with TestClient(create_app(settings), base_url=HERE, raise_server_exceptions=False) as client:
        yield client


def add_ledger(
    connection: psycopg.Connection, first: int, at: datetime, log_id: int = 1, **counts: int
) -> None:
    received = sum(counts.values())
    columns = ", ".join(["log_id", "first_offset", "next_offset", "received", "committed_at", *counts])
    values = [log_id, first, first + max(received, 1), received, at, *counts.values()]
    places = ", ".join(["%s"] * len(values))
    connection.execute(f"insert into ledger ({columns}) values ({places})", values)


def add_minute(connection: psycopg.Connection, at: datetime, pages: dict[str, int], clicks: int = 0) -> None:
    views = sum(pages.values())
    connection.execute(
        "insert into history_minutes (minute, log_id, accepted, page_views, bot, late) values (%s, 1, %s, %s, 0, 0)",
        (at, views + clicks, views),
    )
    connection.execute(
        "insert into history_pages (minute, page_urls, views) values (%s, %s, %s)",
        (at, list(pages), list(pages.values())),
    )


def add_events(connection: psycopg.Connection, at: datetime, users: list[str]) -> None:
    for offset, user in enumerate(users):
        connection.execute(
            "insert into events values (1, %s, %s, %s, 'click', '/', 's')",
            (offset + round(at.timestamp()), at, user),
        )


def test_a_history_counts_each_column_by_its_own_clock(connection, client):
    add_minute(connection, NOON, {"/a": 3, "/b": 1}, clicks=2)
    add_minute(connection, NOON, {"/b": 4})  # another flush of the same minute
    add_minute(connection, NOON + timedelta(minutes=1), {"/c": 5})
    add_minute(connection, NOON + timedelta(minutes=2), {"/outside": 50})
    add_events(connection, NOON, ["u", "u", "v"])
    add_events(connection, NOON + timedelta(seconds=61), ["v"])
    add_ledger(connection, 0, NOON + timedelta(seconds=60), accepted=20, bot=3)
    add_ledger(connection, 0, NOON + timedelta(seconds=119.5), log_id=2, not_json=4)
    reply = client.get("/api/v1/history?from=2024-03-15T12:00:00Z&to=2024-03-15T13:02:00%2B01:00&step=60")
    assert reply.status_code == 200, reply.text
    body = reply.json()
    History.model_validate(body)
    assert (body["from"], body["to"], body["step_s"]) == ("2024-03-15T12:00:00Z", "2024-03-15T12:02:00Z", 60)
    assert body["steps"] == [
        {"at": "2024-03-15T12:00:00Z", "events": 0, "accepted": 10, "page_views": 8, "users": 2},
        {"at": "2024-03-15T12:01:00Z", "events": 27, "accepted": 5, "page_views": 5, "users": 1},
    ]
    # Equal ones by their bytes.
    assert body["top_pages"] == [
        {"page_url": "/b", "views": 5},
        {"page_url": "/c", "views": 5},
        {"page_url": "/a", "views": 3},
    ]
    five = client.get("/api/v1/history?from=2024-03-15T12:00:59Z&to=2024-03-15T12:01:30Z&step=300").json()
    assert (five["from"], five["to"], len(five["steps"])) == (
        "2024-03-15T12:00:00Z",
        "2024-03-15T12:05:00Z",
        1,
    )
    assert five["steps"][0]["users"] == 2, "who is seen in two minutes is one user of five"


def test_a_range_holds_what_lies_within_a_second_of_its_ends(client, connection):
    path = "/api/v1/history?from=2024-03-15T12:00:00.2Z"
    body = client.get(f"{path}&to=2024-03-15T12:00:00.9Z").json()
    assert (body["from"], body["to"]) == ("2024-03-15T12:00:00Z", "2024-03-15T12:01:00Z")
    body = client.get(f"{path}&to=2024-03-15T12:01:00.5Z").json()
    assert (body["from"], body["to"]) == ("2024-03-15T12:00:00Z", "2024-03-15T12:02:00Z")


def test_every_answer_says_as_of_when_and_what_is_not_in_it(client, connection, monkeypatch):
    for seen, lag in (
        (Seen(0, None, [{"lag_events": 2}, {"lag_events": 5}]), 7),
        (Seen(0, None, [{"lag_events": 2}, {"state": "waiting to restart"}]), None),
        (Seen(0, "away"), None),
    ):

        async def answer(workers: object, seen: Seen = seen) -> Seen:
            return seen

        monkeypatch.setattr("api.workers.Workers.seen", answer)
        for name in ("history", "ledger", "quarantine"):
            before = datetime.now(UTC)
            body = client.get(f"/api/v1/{name}").json()
            table = client.get(f"/api/v1/{name}?format=csv")
            # Postgres is on this machine: it has the same clock.
            assert before - timedelta(seconds=1) < datetime.fromisoformat(body["as_of"]) < datetime.now(UTC)
            assert body["lag_events"] == lag
            assert datetime.fromisoformat(table.headers["x-as-of"]) < datetime.now(UTC)
            assert table.headers.get("x-lag-events") == (None if lag is None else str(lag))


def test_what_many_ask_at_once_is_asked_of_postgres_once(database, redis_url):
    settings = ApiSettings(redis_url=redis_url, postgres_dsn=database, api_postgres_connections_max=1)
    asked = []

    async def scenario() -> None:
        postgres = Postgres(settings)
        await postgres.open()

        async def ask(reader: Reader) -> int:
            asked.append(reader)
            await asyncio.sleep(0.01)
            return len(asked)

        try:
            answers = await asyncio.gather(*(postgres.answer("the same", ask) for _ in range(200)))
            assert len(asked) == 1 and {answer.value for answer in answers} == {1}
            assert (await postgres.answer("another", ask)).value == 2
            for question in range(3 * ANSWERS_MAX):
                await postgres.answer(question, ask)
            assert len(postgres._answers) == ANSWERS_MAX
        finally:
            await postgres.close()

    asyncio.run(scenario())


def test_a_question_that_waits_too_long_for_others_is_told_that_they_are_many(database, redis_url):
    settings = ApiSettings(
        redis_url=redis_url,
        postgres_dsn=database,
        api_postgres_connections_max=1,
        api_postgres_timeout_s=0.4,
    )

    async def scenario() -> None:
        postgres = Postgres(settings)
        await postgres.open()
        try:
            async with postgres.reader():
                with pytest.raises(NotAvailable) as refused:
                    async with postgres.reader():
                        pass
            assert refused.value.code == "busy"
        finally:
            await postgres.close()

    asyncio.run(scenario())


def test_a_history_from_before_it_was_kept_is_read_from_the_events(connection, client):
    add_events(connection, NOON, ["u", "v"])
    connection.execute("update events set event_type = 'page_view', page_url = '/a' where user_id = 'u'")
    minute = NOON + timedelta(minutes=3)
    add_minute(connection, minute, {"/b": 1})
    add_events(connection, minute, ["w"])
    path = "/api/v1/history?step=60&to=2024-03-15T12:04:00Z"
    body = client.get(f"{path}&from=2024-03-15T12:00:00Z").json()
    assert [(step["accepted"], step["page_views"]) for step in body["steps"]] == [
        (2, 1),
        (0, 0),
        (0, 0),
        (1, 0),
    ]
    assert body["top_pages"] == [{"page_url": "/a", "views": 1}]
    kept = client.get(f"{path}&from=2024-03-15T12:03:00Z").json()
    assert [(step["accepted"], step["page_views"]) for step in kept["steps"]] == [(1, 1)]
    assert kept["top_pages"] == [{"page_url": "/b", "views": 1}]


def test_a_history_is_of_the_last_hour_by_minute_unless_told(client, connection):
    body = client.get("/api/v1/history").json()
    assert (body["step_s"], len(body["steps"]) in (60, 61)) == (60, True)
    age = datetime.now(UTC) - datetime.fromisoformat(body["to"])
    assert timedelta(minutes=-1) <= age < timedelta(minutes=1)
    week = client.get("/api/v1/history?from=2024-03-01T00:00:00Z&to=2024-03-08T00:00:00Z").json()
    assert (week["step_s"], len(week["steps"])) == (3_600, 168)


def test_a_column_that_would_take_too_long_is_null(client, connection, monkeypatch):
    add_minute(connection, NOON, {"/a": 9})
    add_events(connection, NOON, ["u"])
    add_ledger(connection, 0, NOON, accepted=1)
    monkeypatch.setattr("api.live.SLOW_FACTOR", 0)  # nothing is kept: the same is asked of other queries
    monkeypatch.setattr(history, "USERS_EVENTS_MAX", 8)
    path = "/api/v1/history?from=2024-03-15T12:00:00Z&to=2024-03-15T12:01:00Z"
    step = client.get(path).json()["steps"][0]
    assert step == {"at": "2024-03-15T12:00:00Z", "events": 1, "accepted": 9, "page_views": 9, "users": None}
    monkeypatch.setattr(history, "USERS_EVENTS_MAX", 9)
    slow = "select 0 as at_s, count(*) from generate_series(1, 1000000000)"
    monkeypatch.setitem(history_queries(), "history_received", slow)
    monkeypatch.setattr(history, "OPTIONAL_SHARE", 0.04)
    body = client.get(path).json()
    assert body["steps"][0]["events"] is None
    assert body["steps"][0]["users"] == 1 and body["top_pages"] == [{"page_url": "/a", "views": 9}]
    monkeypatch.setitem(history_queries(), "history_counts", slow)
    monkeypatch.setattr(client.app.state.postgres, "_timeout_s", 0.2)
    reply = client.get(path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "too_costly")


def history_queries() -> dict[str, str]:
    from api.postgres import QUERIES

    return QUERIES


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("from=2024-03-15T12:00:00Z&to=2024-03-15T12:00:00Z", "from"),
        ("to=2024-03-15T12:00:00Z&from=2024-03-16T12:00:00Z", "from"),
        ("from=2024-03-15T12:00:00.9Z&to=2024-03-15T12:00:00.1Z", "from"),
        ("from=2010-01-01T00:00:00Z", "from"),
        ("from=yesterday", "from"),
        ("from=2024-03-15", "from"),
        ("from=2024-03-15T12:00:00", "from"),
        ("from=2024-02-30T12:00:00Z", "from"),
        ("to=2024-03-15T24:00:00Z", "to"),
        ("to=1999-12-31T23:59:59Z", "to"),
        ("to=0001-01-01T00:00:00%2B23:59", "to"),
        ("to=", "to"),
        ("step=0", "step"),
        ("step=61", "step"),
        ("step=90000", "step"),
        ("step=60&step=60", "step"),
        ("from=2024-03-01T00:00:00Z&to=2024-03-08T00:00:00Z&step=60", "step"),
        ("format=xml", "format"),
        ("limit=5", "limit"),
    ],
)
def test_a_history_that_cannot_be_is_refused(client, query, parameter):
    reply = client.get(f"/api/v1/history?{query}")
    assert (reply.status_code, reply.json()["error"]["parameter"]) == (422, parameter)


def test_the_ledger_shows_received_as_the_sum_of_its_classes_and_losses_apart(client, connection):
    add_ledger(connection, 0, NOON, accepted=5, bot=1, late=1)
    add_ledger(connection, 7, NOON + timedelta(seconds=59), accepted=1, empty=2)
    add_ledger(connection, 10, NOON + timedelta(seconds=121), too_large=1)
    connection.execute(
        "insert into ledger (log_id, first_offset, next_offset, received, reason, committed_at)"
        " values (2, 0, 50, 0, 'retention', %s)",
        (NOON,),
    )
    path = "/api/v1/ledger?from=2024-03-15T12:00:00Z&to=2024-03-15T12:10:00Z"
    body = client.get(path).json()
    Ledger.model_validate(body)
    sums = [(minute["at"], minute["received"]) for minute in body["minutes"]]
    assert sums == [("2024-03-15T12:00:00Z", 10), ("2024-03-15T12:02:00Z", 1)]
    for minute in body["minutes"]:
        assert minute["received"] == sum(minute[name] for name in history.CLASSES)
    assert body["minutes"][0] | {"accepted": 6, "bot": 1, "late": 1, "empty": 2} == body["minutes"][0]
    assert body["losses"] == [
        {
            "at": "2024-03-15T12:00:00Z",
            "topic": "events",
            "partition": 1,
            "first_offset": 0,
            "next_offset": 50,
            "reason": "retention",
        }
    ]
    rows = table(client.get(f"{path}&format=csv"))
    assert rows[0][:4] == ["at", "received", "accepted", "too_large"]
    assert [row[1] for row in rows[1:]] == ["10", "1"]
    reply = client.get("/api/v1/ledger?from=2024-03-01T00:00:00Z&to=2024-03-03T00:00:00Z")
    assert (reply.status_code, reply.json()["error"]["parameter"]) == (422, "from")


def table(reply) -> list[list[str]]:
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.headers["content-disposition"].startswith("attachment; filename=")
    return list(csv.reader(io.StringIO(reply.text)))


def add_quarantined(
    connection: psycopg.Connection,
    offset: int,
    name: str,
    payload: bytes,
    at: datetime = NOON,
    size: int | None = None,
) -> None:
    connection.execute(
        "insert into quarantine values (%s, %s, %s, 'because', %s, %s, %s)",
        (1 + offset % 2, offset, name, payload, size or len(payload), at),
    )


def test_quarantine_shows_what_came_and_where(client, connection):
    add_quarantined(connection, 4, "not_json", "{ü".encode())
    add_quarantined(connection, 6, "not_json", b"\xff\x00", NOON + timedelta(microseconds=1))
    add_quarantined(connection, 9, "too_large", "xü".encode()[:2], NOON + timedelta(days=400), size=70_000)
    body = client.get("/api/v1/quarantine").json()
    Quarantine.model_validate(body)
    assert body["next_cursor"] is None
    assert body["rows"][0] == {
        "stored_at": "2025-04-19T12:00:00Z",
        "topic": "events",
        "partition": 1,
        "offset": 9,
        "class": "too_large",
        "detail": "because",
        "payload_size": 70_000,
        "payload": base64.b64encode(b"x\xc3").decode(),
        "payload_text": "x",
    }
    assert [row["payload_text"] for row in body["rows"][1:]] == [None, "{ü"]
    only = client.get("/api/v1/quarantine?class=too_large").json()["rows"]
    assert [row["offset"] for row in only] == [9]


@pytest.mark.parametrize("of_class", ["", "&class=bot"])
def test_quarantine_pages_meet_each_row_once_while_rows_are_added(client, connection, of_class):
    for offset in range(25):  # ten share a moment, as the rows of a flush do
        moment = NOON + timedelta(seconds=offset // 10)
        add_quarantined(connection, offset, "bot", b"x", moment)
        add_quarantined(connection, offset + 100, "empty", b"", moment)
    wanted = "&class=bot" if of_class else ""
    seen, cursor = [], ""
    for _ in range(20):
        body = client.get(f"/api/v1/quarantine?limit=7{wanted}{cursor}").json()
        seen += [(row["class"], row["offset"]) for row in body["rows"]]
        if body["next_cursor"] is None:
            break
        cursor = f"&cursor={body['next_cursor']}"
        add_quarantined(connection, 1_000 + len(seen), "bot", b"new", NOON + timedelta(days=1))
    bots = [offset for name, offset in seen if name == "bot"]
    assert sorted(bots) == list(range(25))
    assert bots[:5] != sorted(bots[:5]), "the latest come first"
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "MS4yLjM", "MS4yLjMuNA", "LTEuMi4z", "a" * 101, "*"])
def test_a_cursor_that_was_not_given_out_is_refused(client, cursor):
    reply = client.get("/api/v1/quarantine", params={"cursor": cursor})
    if cursor == "MS4yLjM":  # 1.2.3: microsecond 1 of 1970, which is a cursor
        assert reply.json()["rows"] == []
    else:
        assert (reply.status_code, reply.json()["error"]["parameter"]) == (422, "cursor")


def test_tables_hold_no_formulas(client, connection):
    for offset, payload in enumerate((b"=1+1", b"+x", b"-x", b"@x", b"\tx", b"\rx", b'ok, "y"\n=z')):
        add_quarantined(connection, offset, "bot", payload, NOON + timedelta(seconds=offset))
    reply = client.get("/api/v1/quarantine?format=csv&limit=6")
    rows = table(reply)
    texts = [row[rows[0].index("payload_text")] for row in rows[1:]]
    assert texts == ['ok, "y"\n=z', "'\rx", "'\tx", "'@x", "'-x", "'+x"]
    rest = client.get("/api/v1/quarantine", params={"cursor": reply.headers["x-next-cursor"]}).json()["rows"]
    assert [row["payload_text"] for row in rest] == ["=1+1"]


def test_postgres_away_is_said_and_takes_nothing_else_along(redis_url):
    settings = ApiSettings(
        redis_url=redis_url,
        postgres_dsn=f"postgresql://127.0.0.1:{free_port()}/none",
        api_postgres_timeout_s=1,
    )
    with TestClient(create_app(settings), base_url=HERE, raise_server_exceptions=False) as client:
        for name in ("history", "ledger", "quarantine"):
            reply = client.get(f"/api/v1/{name}")
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "postgres_unavailable")
            assert reply.headers["retry-after"]
        assert client.get("/healthz").status_code == 200
        assert client.get("/api/v1/pipeline").status_code == 200
