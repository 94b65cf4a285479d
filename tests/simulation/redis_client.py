"""What `views.link.connect` gives in a simulated world: the part of redis-py's client that the views use.

Every exchange is a step before the server gets the commands and one before the client has the replies. Other clients'
commands may come between those of a pipeline, as they do; not between those of a transaction or within a script.
"""

import functools
import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError

from tests.simulation import lua
from tests.simulation.faults import Faults, Lost
from tests.simulation.redis_store import WRITES, RedisStore
from tests.simulation.scheduler import Scheduler

LATE_MAX_S = 6.0
REFUSALS = (
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
)


class RedisServer:
    """The server; `connect` stands in for link.connect."""

    def __init__(self, scheduler: Scheduler, faults: Faults, on_change: Callable[[], None]) -> None:
        self.scheduler = scheduler
        self.faults = faults
        self.on_change = on_change
        self.store = RedisStore()
        self.scripts: dict[str, str] = {}
        self.up_at_us = 0

    def connect(self, url: str, timeout_s: float) -> "Client":
        return Client(self, timeout_s)

    def restart(self, data: dict[bytes, Any], away_s: float) -> None:
        """The server begins anew with `data`; what clients had sent is gone."""
        self.up_at_us = self.scheduler.now_us + int(away_s * 1e6)
        self.scripts = {}
        self.store.changed |= self.store.data.keys() | data.keys()
        self.store.data = data
        self.on_change()

    def run(self, command: tuple) -> Any:
        """One command's reply, an error as an object."""
        name, *arguments = command
        try:
            if name == "EVALSHA":
                reply = self._script(*arguments)
            elif name == "SCRIPT LOAD":
                sha = hashlib.sha1(arguments[0].encode()).hexdigest()
                self.scripts[sha] = arguments[0]
                reply = sha.encode()
            else:
                reply = self.store.call(name, *arguments)
        except ResponseError as error:
            reply = error
        if self.store.changed:
            self.on_change()
        return reply

    def _script(self, sha: str, count: int, *rest: Any) -> Any:
        text = self.scripts.get(sha)
        if text is None:
            raise NoScriptError("NOSCRIPT No matching script.")
        keys = [key if isinstance(key, bytes) else key.encode() for key in rest[:count]]
        return lua.run(self.store, text, keys, list(rest[count:]))


class _Pool:
    """redis.ConnectionPool of one client."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def disconnect(self) -> None:
        pass

    def get_connection(self) -> "Connection":
        return Connection(self._client)

    def release(self, connection: "Connection") -> None:
        pass


class Connection:
    """redis.Connection: commands go out one by one, and their replies are asked for later."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._sent: list[tuple] = []
        self._replies: deque = deque()

    def send_command(self, *command: Any) -> None:
        self._sent.append(command)

    def read_response(self) -> Any:
        if not self._replies:
            sent, self._sent = self._sent, []
            self._replies.extend(self._client.exchange(sent))
        reply = self._replies.popleft()
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def disconnect(self) -> None:
        """What was sent and not answered may have worked or not."""
        if self._sent:
            self._client.give_up(self._sent)


class Client:
    """redis.Redis with one connection, no retries and replies in bytes."""

    def __init__(self, server: RedisServer, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self.connection_pool = _Pool(self)

    def exchange(self, commands: list[tuple], atomic: bool = False) -> list[Any]:
        """Replies in order. Raises ConnectionError and TimeoutError."""
        server = self._server
        scheduler, faults, chance = server.scheduler, server.faults, server.scheduler.random
        scheduler.step(_describe(commands) if scheduler.trace else "")
        if scheduler.now_us < server.up_at_us:
            raise redis.ConnectionError("connection refused")
        if faults.redis_slow():
            scheduler.sleep(chance.random() * self._timeout_s)
        lost, began_us = faults.redis_lost(), server.up_at_us
        refusal = chance.choice(REFUSALS) if faults.redis_error() else ""
        if lost is not None:
            scheduler.note(f"lost {lost.value}")
        if lost is Lost.BEFORE:
            raise redis.ConnectionError("lost before")
        if lost is Lost.LATER:
            scheduler.spawn(
                "Redis",
                lambda: self._late(commands, atomic, began_us),
                None,
                LATE_MAX_S * chance.random() ** 2,
            )
            raise redis.TimeoutError("Timeout reading from socket")
        upto = int(chance.random() * len(commands)) if lost is Lost.MIDWAY and not atomic else len(commands)
        replies = self._work(commands[:upto], atomic, refusal, began_us)
        if scheduler.trace and not lost:
            scheduler.note(f"-> {' '.join(_short(reply) for reply in replies)}")
        scheduler.step()
        if lost is not None or server.up_at_us != began_us:
            raise redis.ConnectionError("lost after")
        return replies

    def _work(self, commands: list[tuple], atomic: bool, refusal: str, began_us: int) -> list[Any]:
        server = self._server
        replies = []
        for number, command in enumerate(commands):
            if number and not atomic and server.scheduler.random.random() < 0.15:
                server.scheduler.step()
                if server.up_at_us != began_us:
                    break  # it restarted
            if refusal and command[0] in WRITES:
                replies.append(ResponseError(refusal))
            else:
                replies.append(server.run(command))
        return replies

    def _late(self, commands: list[tuple], atomic: bool, began_us: int) -> None:
        """Commands whose client gave up are read from their socket all the same."""
        if self._server.up_at_us == began_us:
            self._server.scheduler.note(f"late: {_describe(commands)}")
            self._work(commands, atomic, "", began_us)

    def give_up(self, commands: list[tuple]) -> None:
        """The server may get to commands whose client has gone."""
        server, chance = self._server, self._server.scheduler.random
        began_us = server.up_at_us
        if chance.random() < 0.5:
            late = functools.partial(self._late, commands, False, began_us)
            server.scheduler.spawn("Redis", late, None, LATE_MAX_S * chance.random() ** 2)

    # redis-py's

    def _one(self, *command: Any) -> Any:
        (reply,) = self.exchange([command])
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def close(self) -> None:
        pass

    def pipeline(self, transaction: bool = True) -> "Pipeline":
        return Pipeline(self, transaction)

    def get(self, key: str) -> bytes | None:
        return self._one("GET", key)

    def type(self, key: str) -> bytes:
        return self._one("TYPE", key)

    def unlink(self, *keys: Any) -> int:
        return self._one("UNLINK", *keys)

    def smembers(self, key: str) -> set[bytes]:
        return self._one("SMEMBERS", key)

    def srem(self, key: str, *members: Any) -> int:
        return self._one("SREM", key, *members)

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return self._one("HGETALL", key)

    def scan(self, cursor: int, match: str, count: int) -> tuple[int, list[bytes]]:
        return 0, self._one("SCAN", cursor, match)


class Pipeline:
    """redis.client.Pipeline: with `transaction` MULTI ... EXEC, else commands sent together."""

    def __init__(self, client: Client, transaction: bool) -> None:
        self._client = client
        self._transaction = transaction
        self._commands: list[tuple] = []

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute_command(self, *command: Any) -> None:
        self._commands.append(command)

    def sadd(self, key: str, *members: Any) -> None:
        self._commands.append(("SADD", key, *members))

    def hset(self, key: str, mapping: dict[Any, Any]) -> None:
        self._commands.append(("HSET", key, *(part for entry in mapping.items() for part in entry)))

    def delete(self, *keys: str) -> None:
        self._commands.append(("DEL", *keys))

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        replies = self._client.exchange(self._commands, self._transaction)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, ResponseError):
                    raise reply
        return replies


def _describe(commands: list[tuple]) -> str:
    from hotpath.views import link

    names = {sha: name for name, sha in link._SHAS.items()}
    words = []
    for name, *arguments in commands:
        if name == "EVALSHA":
            words.append(f"{names[arguments[0]]}{tuple(_short(a) for a in arguments[2:])}")
        else:
            words.append(f"{name} {_short(arguments[0])}")
    return f"Redis: {'; '.join(words)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(_short, value)) + "]"
    if isinstance(value, bytes):
        import msgpack

        if value[:1] >= b"\x80":
            try:
                return str(msgpack.unpackb(value, raw=False))[:150]
            except Exception:
                return "?"
        return value.decode()[:60]
    return str(value)[:60]
