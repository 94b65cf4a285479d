"""Commands of Redis as strategies: all that the simulated one knows, over few keys, few members and all types."""

from typing import Any

import redis
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from hotpath.views.store import is_broken
from tests.simulation.redis_store import RedisStore, Zset

Command = tuple[Any, ...]

KEYS = st.sampled_from([b"a", b"b", b"c", b"ab"])
MEMBERS = st.sampled_from([b"", b"k", b"m", b"\xff", b"m\0"])
COUNTS = st.sampled_from(
    [b"1", b"2", b"-3", b"0", b"12", b"9223372036854775807", b"-0", b"+1", b"1.5", b" 1", b"x", b""]
)
# Without the negative zero, which Redis writes as -0 and Valkey as 0.
SCORES = st.sampled_from([b"0", b"1", b"-2", b"2.5", b"1e3", b"inf", b"-inf", b"1", b"2", b"x"])
BORDERS = st.sampled_from([b"0", b"(0", b"1", b"(1", b"-2", b"(2.5", b"-inf", b"+inf", b"inf", b"(inf", b"x"])
PLACES = st.integers(-4, 4)


def _of(*parts: st.SearchStrategy) -> st.SearchStrategy[tuple]:
    """Arguments one after the other; a part that is a list stands for its elements."""
    flat = st.tuples(*parts)
    return flat.map(lambda found: tuple(x for p in found for x in (p if isinstance(p, list) else [p])))


def _some(*parts: st.SearchStrategy) -> st.SearchStrategy[list]:
    """Each of `parts` one to three times, in turn: members, pairs ..."""
    rounds = st.lists(st.tuples(*parts), min_size=1, max_size=3)
    return rounds.map(lambda found: [part for round_ in found for part in round_])


def _either(*lists: list) -> st.SearchStrategy[list]:
    return st.sampled_from(lists)


_LIMIT = st.tuples(st.just(b"LIMIT"), st.integers(-1, 2), st.integers(-1, 3)).map(list)
_SCORED = _either([], [b"WITHSCORES"])
_RANGED = st.one_of(_SCORED, _LIMIT, _LIMIT.map(lambda limit: [b"WITHSCORES", *limit]))

COMMANDS: dict[str, st.SearchStrategy[tuple]] = {
    "TYPE": _of(KEYS),
    "GET": _of(KEYS),
    "SET": _of(KEYS, MEMBERS),
    "STRLEN": _of(KEYS),
    "GETRANGE": _of(KEYS, st.integers(0, 4), st.integers(0, 4)),  # 6.2 takes -2 of one byte for 0
    "SETRANGE": _of(KEYS, PLACES, MEMBERS),
    "RPUSH": _of(KEYS, _some(MEMBERS)),
    "LRANGE": _of(KEYS, PLACES, PLACES),
    "LTRIM": _of(KEYS, PLACES, PLACES),
    "EXISTS": _of(_some(KEYS)),
    "UNLINK": _of(_some(KEYS)),
    "DEL": _of(KEYS),
    "EXPIRE": _of(KEYS, st.sampled_from([1_000, 0, -1])),
    "SCAN": _of(st.just(0), st.sampled_from([b"*", b"a*", b"c*", b"a"])),
    "SADD": _of(KEYS, _some(MEMBERS)),
    "SREM": _of(KEYS, _some(MEMBERS)),
    "SMEMBERS": _of(KEYS),
    "HSET": _of(KEYS, _some(MEMBERS, COUNTS)),
    "HGET": _of(KEYS, MEMBERS),
    "HMGET": _of(KEYS, _some(MEMBERS)),
    "HGETALL": _of(KEYS),
    "HDEL": _of(KEYS, _some(MEMBERS)),
    "HINCRBY": _of(KEYS, MEMBERS, COUNTS),
    "HLEN": _of(KEYS),
    "HSCAN": _of(KEYS, st.just(0), st.just(b"COUNT"), st.integers(1, 9)),
    "ZSCAN": _of(KEYS, st.just(0), st.just(b"COUNT"), st.integers(1, 9)),
    "ZADD": _of(KEYS, _either([], [], [b"GT"], [b"LT"]), _some(SCORES, MEMBERS)),
    "ZINCRBY": _of(KEYS, SCORES, MEMBERS),
    "ZREM": _of(KEYS, _some(MEMBERS)),
    "ZCARD": _of(KEYS),
    "ZSCORE": _of(KEYS, MEMBERS),
    "ZMSCORE": _of(KEYS, _some(MEMBERS)),
    "ZRANGE": _of(KEYS, PLACES, PLACES, _SCORED),
    "ZREVRANGE": _of(KEYS, PLACES, PLACES, _SCORED),
    "ZRANGEBYSCORE": _of(KEYS, BORDERS, BORDERS, _RANGED),
    "ZRANGEBYLEX": _of(KEYS, st.sampled_from([b"-", b"(k", b"[k", b"(m", b"[", b"k"]), st.just(b"+"), _LIMIT),
    "ZCOUNT": _of(KEYS, BORDERS, BORDERS),
    "ZREMRANGEBYSCORE": _of(KEYS, BORDERS, BORDERS),
}


def commands() -> st.SearchStrategy[list[Command]]:
    """Sequences of commands, each (name, argument ...)."""
    drawn = [arguments.map(lambda found, name=name: (name, *found)) for name, arguments in COMMANDS.items()]
    return many(st.one_of(drawn), 50)


def many(drawn: st.SearchStrategy, most: int) -> st.SearchStrategy[list]:
    """Up to `most`, any number of them as likely as another: hypothesis of itself draws few, and little happens."""
    return st.integers(0, most).flatmap(lambda size: st.lists(drawn, min_size=size, max_size=size))


def on_simulated(store: RedisStore, command: Command) -> Any:
    """The reply, an error as an object."""
    name, *arguments = command
    try:
        return store.call(name, *arguments)
    except ResponseError as error:
        return error


def on_real(connection: redis.Connection, command: Command) -> Any:
    """The same in the shapes of the simulated one: what is a pile of entries comes as a set or dict."""
    name, *arguments = command
    try:
        if name == "SCAN":
            return _scanned(connection, arguments[1])
        reply = ask(connection, name, *arguments)
    except ResponseError as error:
        return error
    if name == "SMEMBERS":
        return set(reply)
    if name == "HGETALL":
        return dict(zip(reply[::2], reply[1::2], strict=True))
    return reply


def ask(connection: redis.Connection, *command: Any) -> Any:
    """A reply as it came, without redis-py's conversions. Raises ResponseError."""
    connection.send_command(*command)
    return connection.read_response()


def _scanned(connection: redis.Connection, pattern: bytes) -> list[bytes]:
    cursor, keys = b"0", []
    while True:
        cursor, found = ask(connection, "SCAN", cursor, "MATCH", pattern)
        keys += found
        if cursor == b"0":
            return keys


def comparable(command: Command, reply: Any) -> Any:
    """A reply without what Redis leaves open: the order in which it scans, and the words of errors."""
    if isinstance(reply, ResponseError):
        return "WRONGTYPE" in str(reply), is_broken(reply)
    if command[0] == "SCAN":
        return sorted(reply)
    if command[0] in ("HSCAN", "ZSCAN"):
        cursor, flat = reply
        return cursor, dict(zip(flat[::2], flat[1::2], strict=True))
    return reply


def contents(connection: redis.Connection) -> dict[bytes, Any]:
    """All that the real server holds, as RedisStore keeps it."""
    return {key: _value(connection, key) for key in _scanned(connection, b"*")}


def _value(connection: redis.Connection, key: bytes) -> Any:
    kind = ask(connection, "TYPE", key)
    if kind == b"string":
        return ask(connection, "GET", key)
    if kind == b"set":
        return set(ask(connection, "SMEMBERS", key))
    if kind == b"list":
        return ask(connection, "LRANGE", key, 0, -1)
    if kind == b"hash":
        flat = ask(connection, "HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))
    flat = ask(connection, "ZRANGE", key, 0, -1, "WITHSCORES")
    return Zset(zip(flat[::2], map(float, flat[1::2]), strict=True))
