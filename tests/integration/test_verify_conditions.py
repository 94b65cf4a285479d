"""`hotpath verify` where not everything is simple: a pipeline at work, a log that has lost its beginning, gaps in
offsets, capped quarantine, rules that changed, rows that Postgres refused, topics of other kinds."""

import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from hotpath import verify
from tests.bad_inputs import GOOD, message
from tests.support.pipeline import Topic, wait_until
from tests.support.proven import differences, produce_everything, prove_quietly, running, settings_for


def stamp(second: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


@pytest.fixture
def make_topic(kafka, new_topic) -> Callable[..., Topic]:
    def make(partitions: int = 2, **config: str) -> Topic:
        return Topic(kafka.bootstrap, kafka.client_options, new_topic(partitions, config), partitions)

    return make


def test_a_pipeline_at_work_is_proven(make_topic, database, redis_url):
    topic = make_topic()
    stop = threading.Event()

    def load() -> None:
        user = 0
        while not stop.wait(0.01):
            user += 1
            now = stamp(time.time())
            topic.produce_events(
                [GOOD | {"timestamp": now, "user_id": f"u{(user + i) % 300}"} for i in range(20)]
            )

    with running(topic, database, redis_url) as live:
        loader = threading.Thread(target=load)
        loader.start()
        try:
            wait_until(lambda: live.pipeline.query("select count(*) > 500 from events")[0][0], "events flow")
            proofs = [prove_quietly(live.settings, seed=seed) for seed in range(2)]
            at_work = sum(live.pipeline.positions().values())
        finally:
            stop.set()
            loader.join()
    assert [differences(findings) for findings in proofs] == [[], []]
    messages = [findings.checked["messages"] for findings in proofs]
    assert 500 < messages[0] < messages[1] < at_work
    assert proofs[1].checked["views"] > 100


def produce_transactions(topic: Topic, partition: int) -> None:
    """Messages of which only each second transaction is committed: both leave gaps in the offsets."""
    options = {
        "bootstrap.servers": topic.bootstrap,
        **topic.options,
        "transactional.id": f"gaps-{topic.name}",
    }
    producer = Producer(options)
    producer.init_transactions(30)
    for number in range(4):
        producer.begin_transaction()
        for _ in range(5):
            producer.produce(topic.name, message(timestamp=stamp(time.time())), b"k", partition=partition)
        (producer.commit_transaction if number % 2 else producer.abort_transaction)(30)
    # The mark of the last one is written after its commit returns, and before a successor may begin.
    Producer(options).init_transactions(30)


def test_gaps_caps_refusals_new_rules_and_merged_ledgers_are_understood(make_topic, database, redis_url):
    topic = make_topic()
    flags = {"quarantine_rows_max": 2}
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("alter table events add constraint no_kiosk check (page_url <> '/kiosk')")
    produce_transactions(topic, 0)
    last = message(timestamp=stamp(time.time()), user_id="last")
    topic.produce([(b"last", last)], partition=0)  # so that the log does not end in a mark of a transaction
    now = int(time.time())
    faults = [(b"k", b"{}")] * 9 + [(b"k", b"[]")] * 7
    views = [(b"k", message(timestamp=stamp(now)))] * 8
    with running(topic, database, redis_url, **flags) as first:
        topic.produce([*faults, *views], partition=1)
        topic.produce([(b"k", message(timestamp=stamp(now), page_url="/kiosk"))], partition=1)
        first.pipeline.wait_until_committed()
        assert first.pipeline.stop() == 0
    with running(topic, database, redis_url, **flags, bot_page_views_max=9, late_max_s=100) as second:
        topic.produce([*views, (b"k", message(timestamp=stamp(now - 200)))], partition=1)
        second.pipeline.wait_until_applied()
        assert second.pipeline.stop() == 0
    second.pipeline.query("select merge_ledger('2100-01-01')")
    counts = second.pipeline.query(
        "select sum(received)::int, sum(bot)::int, sum(late)::int, sum(bad_value)::int from ledger"
    )[0]
    kept = second.pipeline.query(
        "select count(*) from quarantine where class in ('missing_field', 'not_object')"
    )
    # The view that Postgres refused counts for nobody after the restart.
    assert counts == (11 + 9 + 7 + 8 + 1 + 8 + 1, 7, 1, 1) and kept[0][0] < 16

    findings = prove_quietly(second.settings)
    assert differences(findings) == []
    assert findings.notes == ["Postgres itself refused 1 events (see quarantine): taken as it says"]

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "delete from quarantine where class = 'not_object' and kafka_offset ="
            " (select min(kafka_offset) from quarantine where class = 'not_object')"
        )
        connection.execute("update quarantine set payload = '' where detail like 'Postgres refused%'")
    found = differences(prove_quietly(second.settings))
    assert len(found) == 2 and all("quarantine" in text for text in found)


def test_a_log_that_has_lost_its_beginning_is_proven_from_there_on(make_topic, database, redis_url):
    topic = make_topic()
    with running(topic, database, redis_url) as made:
        produce_everything(topic, made.settings, 2_000)
        made.pipeline.wait_until_applied()
        assert made.pipeline.stop() == 0
    whole = prove_quietly(made.settings).checked["messages"]
    admin = AdminClient({"bootstrap.servers": topic.bootstrap, **topic.options})
    for future in admin.delete_records([TopicPartition(topic.name, 0, 400)]).values():
        future.result(30)
    findings = prove_quietly(made.settings)
    assert differences(findings) == []
    assert findings.checked["messages"] == whole - 400
    notes = " ".join(findings.notes)
    assert "partition 0: offsets 0 to 399 are no longer in Kafka and not proven" in notes
    assert "partition 0: proven from offset 400 on; late events and bots near there were told with" in notes

    middle = prove_quietly(made.settings, partitions="1", bounds=verify.Bounds(100, 700), full=True)
    assert differences(middle) == []
    assert middle.checked["messages"] == 600
    with psycopg.connect(database, autocommit=True) as connection:
        log_id = connection.execute("select log_id from partition_state where partition = 1").fetchone()[0]
        for offset in (50, 600):
            connection.execute(
                "delete from events where log_id = %s and kafka_offset = (select min(kafka_offset) from events"
                " where log_id = %s and kafka_offset >= %s)",
                [log_id, log_id, offset],
            )
    found = differences(prove_quietly(made.settings, partitions="1", bounds=verify.Bounds(100, 700)))
    assert len(found) == 1 and "events: expected a row, found none" in found[0]


def test_what_another_kind_of_topic_cannot_prove_is_said(make_topic, database, redis_url):
    """Without append times, and with bot counts that workers share: both are taken from Postgres, and said to be."""
    topic = make_topic(**{"message.timestamp.type": "CreateTime"})
    now = int(time.time())
    with running(topic, database, redis_url, bot_counters="redis") as made:
        for partition in range(2):
            views = [(b"k", message(timestamp=stamp(now), user_id="bot"))] * 30
            topic.produce([*views, (b"k", message(timestamp=stamp(now + 900)))], partition=partition)
        made.pipeline.wait_until_applied()
        assert made.pipeline.stop() == 0
    assert made.pipeline.query("select sum(bot)::int, sum(future)::int from ledger") == [(50, 2)]
    findings = prove_quietly(made.settings)
    assert differences(findings) == []
    assert any("bots are not exact" in note for note in findings.notes)
    assert any("the class future is not proven" in note for note in findings.notes)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "delete from events where (log_id, kafka_offset) = (select log_id, kafka_offset from events limit 1)"
        )
    found = differences(prove_quietly(made.settings))
    assert any("ledger.accepted" in text for text in found) and any("bot_activity" in text for text in found)


def test_the_command_says_in_one_line_what_is_wrong_with_it(make_topic, database, redis_url, verify_command):
    topic = make_topic()
    settings = settings_for(topic, database, redis_url)
    for arguments, code, words in (
        (("--partitions", "0-9"), 2, "no partition 2"),
        (("--partitions", "one"), 2, "'one'"),
        (("--from", "yesterday"), 2, "'yesterday'"),
        (("--seed", "dice"), 2, "dice"),
        ((), 2, "Postgres has no log of topic"),
        (("--topic", "nothing-here"), 3, "nothing-here"),
        (("--redis-url", "redis://127.0.0.1:1/0"), 3, "Redis"),
        (("--postgres-dsn", "postgresql://127.0.0.1:1/x"), 3, "Postgres"),
    ):
        found, _, told = verify_command(settings, *arguments)
        lines = [line for line in told.splitlines() if line.startswith("hotpath:")]
        assert found == code and len(lines) == 1 and words in lines[0], (arguments, told)
