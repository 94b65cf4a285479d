"""The private servers themselves: what the tests and `make up` rely on."""

import time

import psycopg
import pytest
import redis
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.kafka import KafkaServer
from deploy.local.postgres import VERSION_MIN
from deploy.local.redis_server import RedisServer


def test_psycopg_runs_its_c_implementation():
    assert psycopg.pq.__impl__ in {"c", "binary"}


def test_postgres_is_new_enough_and_asks_for_the_password(database: str):
    with psycopg.connect(database) as connection:
        assert connection.info.server_version >= VERSION_MIN * 10_000
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(psycopg.conninfo.make_conninfo(database, password="wrong"))


def test_a_test_gets_a_database_without_the_rows_of_another(databases):
    first, second = databases.create(), databases.create()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE only_here (x int)")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
    databases.drop(first)
    databases.drop(second)


def test_redis_asks_for_the_password_and_never_evicts(redis_server: RedisServer, redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with (
        redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.get("x")


@pytest.mark.parametrize("durable", [True, False])
def test_redis_restarts_after_kill_with_its_data_only_when_durable(another_redis, durable: bool):
    server = another_redis(durable=durable)
    with redis.Redis.from_url(server.url) as client:
        client.set("x", "1")
        if durable:
            client.waitaof(1, 0, 5000) if client.info()["redis_version"] >= "7.2" else time.sleep(1.5)
    port = server.port
    server.kill()
    server.start()
    assert server.port == port
    with redis.Redis.from_url(server.url) as client:
        assert client.get("x") == (b"1" if durable else None)


def produce(kafka: KafkaServer, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **kafka.client_options})
    refused = []
    for number in range(count):
        producer.produce(
            topic,
            key=str(number),
            value=b"{}",
            timestamp=1,  # the client's clock, half a century behind
            on_delivery=lambda error, _message: refused.append(error) if error else None,
        )
    assert producer.flush(20) == 0
    assert refused == []


def consume(kafka: KafkaServer, topic: str, partitions: int, count: int) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "test", **kafka.client_options})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    deadline = time.monotonic() + 20
    messages: list[Message] = []
    while len(messages) < count and time.monotonic() < deadline:
        messages += consumer.consume(count - len(messages), 0.2)
    consumer.close()
    assert [message.error() for message in messages] == [None] * count
    return messages


def test_kafka_keeps_messages_under_its_own_append_time(kafka: KafkaServer, new_topic):
    topic = new_topic(partitions=3)
    before_ms = time.time() * 1000
    produce(kafka, topic, 100)
    messages = consume(kafka, topic, 3, 100)
    assert {message.key() for message in messages} == {str(number).encode() for number in range(100)}
    assert {message.partition() for message in messages} == {0, 1, 2}
    for message in messages:
        kind, append_ms = message.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert before_ms - 1000 <= append_ms <= time.time() * 1000 + 1000


def test_kafka_asks_for_the_password_and_makes_no_topic_by_itself(kafka: KafkaServer):
    stranger = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    with pytest.raises(KafkaException):
        stranger.list_topics(timeout=2)
    admin = kafka.admin()
    assert admin.list_topics("mistyped", timeout=10).topics["mistyped"].error is not None
    assert "mistyped" not in admin.list_topics(timeout=10).topics


def test_kafka_has_its_messages_again_after_kill(another_kafka):
    server = another_kafka()
    server.create_topic("kept", 1)
    produce(server, "kept", 10)
    server.kill()
    server.start()
    assert len(consume(server, "kept", 1, 10)) == 10
