"""Fixtures: private real servers, started when a test first asks for one. See tests/support/servers.py."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis
from confluent_kafka import KafkaException

from deploy.local.home import Home
from deploy.local.kafka import KafkaServer
from deploy.local.postgres import PostgresServer
from deploy.local.redis_server import RedisServer
from tests.support.pipeline import Topic
from tests.support.servers import (
    Databases,
    make_home,
    remove_abandoned_homes,
    remove_home,
    start_kafka,
    start_redis,
)

_topic_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Home]:
    """The folder of this session's servers, removed at its end."""
    remove_abandoned_homes()
    home = make_home()
    yield home
    remove_home(home)


@pytest.fixture(scope="session")
def postgres(servers_home: Home) -> Iterator[PostgresServer]:
    """The session's Postgres; most tests want `database` instead."""
    server = PostgresServer(servers_home, small=True, leash=True)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def databases(postgres: PostgresServer) -> Databases:
    """Makes databases: for tests that need several, or an empty one."""
    return Databases(postgres)


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """DSN of a new database with the schema, this test's alone."""
    dsn = databases.create()
    yield dsn
    databases.drop(dsn)


@pytest.fixture(scope="session")
def redis_server(servers_home: Home) -> Iterator[RedisServer]:
    """The session's Redis; most tests want `redis_url` instead. Do not stop it: see `another_redis`."""
    server = RedisServer(servers_home, durable=False, leash=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """URL of the session's Redis, empty."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    yield redis_server.url


@pytest.fixture
def another_redis(servers_home: Home) -> Iterator[Callable[..., RedisServer]]:
    """`another_redis(durable=False)`: a running Redis of this test's own, to be killed at will."""
    started: list[RedisServer] = []

    def start(*, durable: bool = False) -> RedisServer:
        started.append(start_redis(servers_home, durable=durable))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def kafka(servers_home: Home) -> Iterator[KafkaServer]:
    """The session's Kafka: `.bootstrap` and `.client_options`. Do not stop it: see `another_kafka`."""
    server = KafkaServer(servers_home, small=True, leash=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def new_topic(kafka: KafkaServer) -> Iterator[Callable[..., str]]:
    """`new_topic(partitions=4, config={})`: the name of a new topic like that of `make up`."""
    made: list[str] = []

    def make(partitions: int = 4, config: dict[str, str] | None = None) -> str:
        made.append(f"events-{next(_topic_numbers)}")
        kafka.create_topic(made[-1], partitions, config)
        return made[-1]

    yield make
    for topic in made:
        with suppress(KafkaException):  # the test may have deleted it
            kafka.delete_topic(topic)


@pytest.fixture
def topic(kafka: KafkaServer, new_topic: Callable[..., str]) -> Topic:
    """A new topic of four partitions, and a producer for it."""
    return Topic(kafka.bootstrap, kafka.client_options, new_topic(4), 4)


@pytest.fixture
def another_kafka(servers_home: Home) -> Iterator[Callable[[], KafkaServer]]:
    """`another_kafka()`: a running Kafka of this test's own, to be killed and started at will."""
    started: list[KafkaServer] = []

    def start() -> KafkaServer:
        started.append(start_kafka(servers_home))
        return started[-1]

    yield start
    for server in started:
        server.kill()
