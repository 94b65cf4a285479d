"""`hotpath quarantine`: what was refused is listed, shown whole, and sent again once, by those who may."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from hotpath import quarantine
from hotpath.kafka import describe_topic
from hotpath.settings import Settings
from tests.support.pipeline import Topic

MESSAGES = [
    (b"u-1", b'{"user_id": "u-1"}', "missing_field", "timestamp is absent or null"),
    (b"u-2", b"\xff\x00" + bytes(range(64)), "not_json", "the value is not one JSON text in UTF-8"),
    (None, None, "empty", "the value is null"),
    (b"u-3", b'{"big": "' + b"x" * 3_000 + b'"}', "missing_field", "timestamp is absent or null"),
]


@dataclass
class Desk:
    """The command over one topic whose messages stand in quarantine, all of partition 1."""

    topic: Topic
    database: str
    offsets: list[int]
    command: Callable[..., int]

    def place(self, index: int) -> str:
        return f"1/{self.offsets[index]}"

    def query(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(statement).fetchall()

    def sent_again(self) -> list:
        """Messages of the topic behind those in quarantine."""
        consumer = Consumer(
            {"bootstrap.servers": self.topic.bootstrap, "group.id": "t", **self.topic.options}
        )
        found = []
        for partition, end in self.topic.ends().items():
            first = self.offsets[-1] + 1 if partition == 1 else 0
            consumer.assign([TopicPartition(self.topic.name, partition, first)])
            while len([m for m in found if m.partition() == partition]) < end - first:
                found += consumer.consume(1, 10)
        consumer.close()
        return found


@pytest.fixture
def desk(topic: Topic, database: str, monkeypatch) -> Iterator[Desk]:
    offsets = topic.produce([(key, value) for key, value, _, _ in MESSAGES], partition=1)
    settings = Settings(
        kafka_bootstrap=topic.bootstrap,
        kafka_options=topic.options,
        topic=topic.name,
        postgres_dsn=database,
    )
    with psycopg.connect(database) as connection:
        rules_id = connection.execute(
            "insert into rules (rules) values (%s) returning rules_id", [json.dumps(settings.rules())]
        ).fetchone()[0]
        log_id = connection.execute(
            "insert into partition_state (topic, topic_id, partition, next_offset, epoch, owner, rules_id)"
            " values (%s, %s, 1, %s, 1, 'test', %s) returning log_id",
            [topic.name, describe_topic(settings).topic_id, offsets[-1] + 1, rules_id],
        ).fetchone()[0]
        connection.execute(
            "insert into ledger (log_id, first_offset, next_offset, received, missing_field, not_json, empty, rules_id)"
            " values (%s, 0, %s, 4, 2, 1, 1, %s)",
            [log_id, offsets[-1] + 1, rules_id],
        )
        for offset, (_, value, event_class, detail) in zip(offsets, MESSAGES, strict=True):
            value = value or b""
            connection.execute(
                "insert into quarantine (log_id, kafka_offset, class, detail, payload, payload_size)"
                " values (%s, %s, %s, %s, %s, %s)",
                [log_id, offset, event_class, detail, value[:1_024], len(value)],
            )
    for name, value in (
        ("KAFKA_BOOTSTRAP", topic.bootstrap),
        ("KAFKA_OPTIONS", json.dumps(topic.options)),
        ("TOPIC", topic.name),
        ("POSTGRES_DSN", database),
    ):
        monkeypatch.setenv(f"HOTPATH_{name}", value)

    def command(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["quarantine", *arguments])
        return quarantine.main()

    yield Desk(topic, database, offsets, command)


def test_messages_are_listed_by_class_partition_and_time(desk: Desk, capsys):
    def listed(*flags: str) -> list[dict]:
        assert desk.command("list", "--json", *flags) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    rows = listed()
    assert {(row["partition"], row["offset"]) for row in rows} == {(1, offset) for offset in desk.offsets}
    assert [row["detail"] for row in listed("--class", "not_json")] == [
        "the value is not one JSON text in UTF-8"
    ]
    assert len(listed("--class", "missing_field")) == 2
    assert listed("--partition", "0") == []
    assert len(listed("--limit", "3")) == 3
    assert listed("--until", "2020-01-01T00:00:00Z") == []
    assert len(listed("--since", "2020-01-01T00:00:00Z")) == 4
    assert desk.command("list") == 0
    table = capsys.readouterr().out
    assert desk.place(0) in table and "missing_field" in table and "3,011" in table


def test_a_message_is_shown_whole_as_text_or_as_bytes(desk: Desk, capsys):
    assert desk.command("show", desk.place(3)) == 0
    assert "x" * 3_000 in capsys.readouterr().out, "Kafka has more of it than quarantine"
    assert desk.command("show", desk.place(1)) == 0
    shown = capsys.readouterr().out
    assert "00000000  ff 00 00 01 02" in shown and "key:          u-2" in shown
    assert desk.command("show", desk.place(2)) == 0
    shown = capsys.readouterr().out
    assert "(null)" in shown and "key:          none" in shown


def test_what_is_asked_for_wrongly_is_told_in_one_line(desk: Desk, capsys):
    for arguments, code, words in (
        (("show", "1/9999"), 1, "no message 1/9999"),
        (("show", "1-2"), 2, "1-2"),
        (("show",), 2, "PARTITION/OFFSET"),
        (("list", "--class", "odd"), 2, "odd"),
        (("list", "--since", "soon"), 2, "soon"),
        (("erase",), 2, "erase"),
    ):
        assert desk.command(*arguments) == code
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and words in told


def test_nothing_is_replayed_under_the_same_rules(desk: Desk, capsys):
    assert desk.command("replay") == 1
    told = capsys.readouterr()
    assert told.err.count("the rules are still those that refused it") == len(MESSAGES)
    assert desk.sent_again() == []


def test_messages_are_replayed_whole_once_the_rules_have_changed(desk: Desk, capsys):
    changed = ("--late-max-s", "600")
    assert desk.command("replay", "--dry-run", *changed) == 0
    assert desk.sent_again() == []
    assert desk.command("replay", *changed) == 0
    assert "4 sent again, 0 not" in capsys.readouterr().out
    sent = {
        dict(message.headers())["hotpath-replayed-from"].decode(): message for message in desk.sent_again()
    }
    assert set(sent) == {desk.place(index) for index in range(len(MESSAGES))}
    for index, (key, value, _, _) in enumerate(MESSAGES):
        message = sent[desk.place(index)]
        assert (message.key(), message.value()) == (key, value)
        assert key is not None or message.partition() == 1

    assert desk.command("replay", *changed) == 1, "not a second time"
    assert "already" in capsys.readouterr().err
    assert len(desk.sent_again()) == len(MESSAGES)
    assert desk.command("replay", desk.place(0), "--force") == 0
    assert len(desk.sent_again()) == len(MESSAGES) + 1


def test_a_replay_that_another_process_has_claimed_is_left_to_it(desk: Desk, capsys, monkeypatch):
    found = quarantine.find

    def find_then_lose(connection, *rest):
        rows = found(connection, *rest)
        connection.execute("update quarantine set replayed_at = now()")
        return rows

    monkeypatch.setattr(quarantine, "find", find_then_lose)
    assert desk.command("replay", desk.place(0), "--late-max-s", "600") == 1
    assert "somebody else" in capsys.readouterr().err
    assert desk.sent_again() == []


def test_what_kafka_has_no_more_is_shown_as_far_as_it_was_kept_and_not_replayed(desk: Desk, capsys):
    with psycopg.connect(desk.database) as connection:
        connection.execute("update partition_state set topic_id = 'an earlier one'")
    assert desk.command("show", desk.place(3)) == 0
    shown = capsys.readouterr().out
    assert "the first 1,024 bytes" in shown and "x" * 1_000 in shown
    assert desk.command("replay", desk.place(3), "--force") == 1
    assert "an earlier incarnation" in capsys.readouterr().err
