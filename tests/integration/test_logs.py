"""Who may take a log, and what an operator does about logs that are lost."""

import json

import psycopg
import pytest

from hotpath import logs as command
from hotpath import sql
from hotpath.errors import Fenced, HotpathError, LogLost
from hotpath.logs import LogReport
from hotpath.settings import PipelineSettings
from hotpath.workers import logs
from hotpath.workers.postgres_sink import PostgresSink
from tests.support.pipeline import wait_until
from tests.support.stored import RULES, rows, take


@pytest.fixture
def open_sink(database):
    """Sinks on the test's database, closed at its end."""
    sinks = []

    def made(**settings) -> PostgresSink:
        sinks.append(PostgresSink(PipelineSettings(postgres_dsn=database, **settings), len(sinks)))
        return sinks[-1]

    yield made
    for sink in sinks:
        sink.close()


@pytest.fixture
def operator(database):
    """An operator's connection."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def claim(sink: PostgresSink, owner: str, only_after: str = "") -> list[logs.LogHandle]:
    return sink.take_over("events", "id-1", [0, 1], [0, 0], [100, 100], owner, RULES, only_after)


def reports(operator: psycopg.Connection, low: int, high: int, topic_id: str = "id-1") -> list[LogReport]:
    """What the command would read if Kafka held [low, high) of every log of that incarnation."""
    found = operator.execute(sql.QUERIES["topic_logs"], {"topic": "events"}).fetchall()
    return [LogReport(*row, *((low, high) if row[1] == topic_id else (None, None))) for row in found]


def leave(sink: PostgresSink, operator: psycopg.Connection) -> None:
    """Close it; its server process ends a moment later, and owns the logs until then."""
    sink.close()
    wait_until(lambda: not any(report.held for report in reports(operator, 0, 50)), "nobody holds a log")


def test_a_worker_that_starts_again_takes_its_logs_from_its_own_supervisor_only(database, open_sink):
    claim(open_sink(), "machine/a/1")
    assert [handle.epoch for handle in claim(open_sink(), "machine/a/2", "machine/a/")] == [3, 3]
    claim(open_sink(), "machine/b/3")
    before = rows(database, "select * from partition_state")
    with pytest.raises(Fenced, match="machine/b/3 has taken it over meanwhile"):
        claim(open_sink(), "machine/a/4", "machine/a/")
    assert rows(database, "select * from partition_state") == before


def test_a_loss_is_recorded_where_that_is_set(database, open_sink):
    take(open_sink())
    with pytest.raises(LogLost, match=r"hotpath.logs skip.*--on-loss record"):
        take(open_sink(), low=5)
    (handle,) = take(open_sink(on_loss="record"), low=5)
    assert handle.next_offset == 5
    assert rows(database, "select first_offset, next_offset, received, reason from ledger") == [
        (0, 5, 0, "retention passed")
    ]


def test_skip_enters_what_retention_took_and_leaves_the_other_logs(database, open_sink, operator):
    sink = open_sink()
    first, second = claim(sink, "machine/a/1")
    leave(sink, operator)
    found = reports(operator, 7, 50)
    operator.execute("update partition_state set next_offset = 20 where log_id = %s", [second.log_id])
    found = reports(operator, 7, 50)
    assert [report.state for report in found] == ["retention passed", "ok"]
    assert command.skip(operator, found) == 1
    assert rows(database, "select log_id, first_offset, next_offset from ledger") == [(first.log_id, 0, 7)]
    assert [report.next_offset for report in reports(operator, 7, 50)] == [7, 20]


def test_retire_gives_other_incarnations_up_and_can_be_undone(open_sink, operator):
    sink = open_sink()
    claim(sink, "machine/a/1")
    leave(sink, operator)
    found = reports(operator, 0, 50, "id-2")
    assert {report.state for report in found} == {"other incarnation"}
    assert command.retire(operator, "events", "id-2", found) == 2
    assert {report.state for report in reports(operator, 0, 50, "id-2")} == {"given up"}
    assert command.retire(operator, "events", "id-2", reports(operator, 0, 50, "id-2")) == 0
    assert [handle.next_offset for handle in claim(open_sink(), "machine/a/2")] == [0, 0]
    assert {report.state for report in reports(operator, 0, 50)} == {"ok"}


def test_logs_with_an_owner_are_left_alone(open_sink, operator):
    claim(open_sink(), "machine/a/1")
    for action in (
        lambda: command.skip(operator, reports(operator, 7, 50)),
        lambda: command.retire(operator, "events", "id-2", reports(operator, 0, 50, "id-2")),
    ):
        with pytest.raises(HotpathError, match="has an owner, machine/a/1: stop its supervisor first"):
            action()


def test_the_list_says_where_postgres_and_kafka_stand(topic, kafka, database, open_sink, monkeypatch, capsys):
    topic.produce([(None, b"x")] * 9, partition=0)
    monkeypatch.setenv("HOTPATH_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("HOTPATH_KAFKA_OPTIONS", json.dumps(kafka.client_options))
    monkeypatch.setenv("HOTPATH_TOPIC", topic.name)
    monkeypatch.setenv("HOTPATH_POSTGRES_DSN", database)
    topic_id = str(command.describe_topic(PipelineSettings()).topic_id)
    sink = open_sink()
    sink.take_over(topic.name, topic_id, [0], [0], [9], "machine/a/1", RULES)
    command.run(["list", "--json"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["partition"], shown["state"], shown["lag"], shown["held"]) == (0, "ok", 9, True)
    command.run([])
    assert "machine/a/1" in capsys.readouterr().out
