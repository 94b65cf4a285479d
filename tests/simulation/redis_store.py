"""A Redis in memory: the commands that the views use, over a dict. Scripts run over it by `lua`.

State owned: `data`, key -> string (bytes), hash (dict), set, zset (Zset) or list.
Replies are what a client that keeps bytes gets; errors are raised as ResponseError. Orders that the real one leaves
open (of hashes and sets) are those of insertion here. Nothing expires: no world lasts that long.
tests/integration/test_simulated_stores.py holds all of this against the real one.
"""

import copy
import math
import re
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NO_INTEGER = "ERR value is not an integer or out of range"
NO_FLOAT = "ERR value is not a valid float"
NO_BORDER = "ERR min or max is not a float"
NO_LEX_BORDER = "ERR min or max not valid string range item"
INTEGER_MAX = 2**63 - 1
WRITES = frozenset(
    [
        *(
            "SET",
            "SETRANGE",
            "DEL",
            "UNLINK",
            "EXPIRE",
            "SADD",
            "SREM",
            "HSET",
            "HINCRBY",
            "HDEL",
            "RPUSH",
            "LTRIM",
        ),
        *("ZADD", "ZINCRBY", "ZREM", "ZREMRANGEBYSCORE", "EVALSHA"),
    ]
)


class Zset(dict):
    """member -> score."""

    def ordered(self) -> list[tuple[bytes, float]]:
        return sorted(self.items(), key=lambda entry: (entry[1], entry[0]))


_TYPES = {bytes: b"string", dict: b"hash", set: b"set", Zset: b"zset", list: b"list"}


def to_bytes(value: Any) -> bytes:
    """An argument as it travels."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return score_text(value)
    return str(value).encode()


def score_text(score: float) -> bytes:
    """A number as replies and arguments of scripts have it."""
    return b"%.17g" % score


def _integer(text: bytes, wrong: str = NO_INTEGER) -> int:
    """Raises ResponseError where Python would be content with less."""
    if not re.fullmatch(rb"0|-?[1-9][0-9]*", text) or not -INTEGER_MAX - 1 <= int(text) <= INTEGER_MAX:
        raise ResponseError(wrong)
    return int(text)


def _float(text: bytes, wrong: str = NO_FLOAT) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ResponseError(wrong) from None
    if math.isnan(value) or b"_" in text or text != text.strip():
        raise ResponseError(wrong)
    return value


def _border(text: bytes) -> tuple[float, bool]:
    """A border of a range of scores, and whether it is excluded."""
    return _float(text.removeprefix(b"("), NO_BORDER), text.startswith(b"(")


class RedisStore:
    """See the module's docstring. `changed`: keys written since somebody last took them away."""

    def __init__(self) -> None:
        self.data: dict[bytes, Any] = {}
        self.changed: set[bytes] = set()

    def copy(self) -> dict[bytes, Any]:
        """All that is stored, as a snapshot file would have it."""
        return copy.deepcopy(self.data)

    def call(self, name: str, *arguments: Any) -> Any:
        """One command. Raises ResponseError."""
        command = _COMMANDS.get(name)
        if command is None:
            raise ResponseError(f"ERR unknown command '{name}': the simulated Redis has to learn it")
        arguments = [to_bytes(argument) for argument in arguments]
        if name in WRITES:
            self.changed.add(arguments[0])
        return command(self, *arguments)

    def value(self, key: bytes, kind: type) -> Any:
        """What is stored under a key; None when nothing is. Raises WRONGTYPE."""
        value = self.data.get(key)
        if value is not None and type(value) is not kind:
            raise ResponseError(WRONG_TYPE)
        return value

    def made(self, key: bytes, kind: type) -> Any:
        value = self.value(key, kind)
        if value is None:
            value = self.data[key] = kind()
        return value

    def drop_if_empty(self, key: bytes) -> None:
        if not self.data.get(key, True):
            del self.data[key]


_COMMANDS: dict[str, Callable[..., Any]] = {}


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    _COMMANDS[function.__name__.upper().rstrip("_")] = function
    return function


@command
def type_(store: RedisStore, key: bytes) -> bytes:
    return _TYPES[type(store.data[key])] if key in store.data else b"none"


@command
def get(store: RedisStore, key: bytes) -> bytes | None:
    return store.value(key, bytes)


@command
def set_(store: RedisStore, key: bytes, value: bytes) -> bytes:
    store.data[key] = value
    return b"OK"


@command
def strlen(store: RedisStore, key: bytes) -> int:
    return len(store.value(key, bytes) or b"")


@command
def getrange(store: RedisStore, key: bytes, first: bytes, last: bytes) -> bytes:
    return bytes(_part(store.value(key, bytes) or b"", first, last))


@command
def setrange(store: RedisStore, key: bytes, first: bytes, value: bytes) -> int:
    at = _integer(first)
    if at < 0:
        raise ResponseError("ERR offset is out of range")
    known = store.value(key, bytes)
    if not value:
        return len(known or b"")
    known = (known or b"").ljust(at, b"\0")
    store.data[key] = known[:at] + value + known[at + len(value) :]
    return len(store.data[key])


@command
def rpush(store: RedisStore, key: bytes, *values: bytes) -> int:
    known = store.made(key, list)
    known += values
    return len(known)


@command
def lrange(store: RedisStore, key: bytes, first: bytes, last: bytes) -> list[bytes]:
    return list(_part(store.value(key, list) or [], first, last))


@command
def ltrim(store: RedisStore, key: bytes, first: bytes, last: bytes) -> bytes:
    known = store.value(key, list)
    if known is not None:
        known[:] = _part(known, first, last)
        store.drop_if_empty(key)
    return b"OK"


def _part(values: bytes | list, first: bytes, last: bytes) -> bytes | list:
    """From one place to another, both included; negative ones count from the end."""
    start, stop = (n + len(values) if n < 0 else n for n in (_integer(first), _integer(last)))
    return values[max(0, start) : max(0, stop + 1)]


@command
def exists(store: RedisStore, *keys: bytes) -> int:
    return sum(key in store.data for key in keys)


@command
def unlink(store: RedisStore, *keys: bytes) -> int:
    store.changed.update(keys)
    return sum(store.data.pop(key, None) is not None for key in keys)


_COMMANDS["DEL"] = unlink


@command
def expire(store: RedisStore, key: bytes, seconds: bytes) -> int:
    if _integer(seconds) <= 0:
        return unlink(store, key)
    return int(key in store.data)


@command
def scan(store: RedisStore, cursor: bytes, pattern: bytes) -> list[bytes]:
    if not pattern.endswith(b"*"):
        return [key for key in store.data if key == pattern]
    return [key for key in store.data if key.startswith(pattern[:-1])]


@command
def sadd(store: RedisStore, key: bytes, *members: bytes) -> int:
    known = store.made(key, set)
    new = set(members) - known
    known |= new
    return len(new)


@command
def srem(store: RedisStore, key: bytes, *members: bytes) -> int:
    known = store.value(key, set)
    if known is None:
        return 0
    gone = known & set(members)
    known -= gone
    store.drop_if_empty(key)
    return len(gone)


@command
def smembers(store: RedisStore, key: bytes) -> set[bytes]:
    return set(store.value(key, set) or ())


@command
def hset(store: RedisStore, key: bytes, *pairs: bytes) -> int:
    fields = store.made(key, dict)
    before = len(fields)
    fields.update(zip(pairs[::2], pairs[1::2], strict=True))
    return len(fields) - before


@command
def hget(store: RedisStore, key: bytes, name: bytes) -> bytes | None:
    return (store.value(key, dict) or {}).get(name)


@command
def hmget(store: RedisStore, key: bytes, *names: bytes) -> list[bytes | None]:
    fields = store.value(key, dict) or {}
    return [fields.get(name) for name in names]


@command
def hgetall(store: RedisStore, key: bytes) -> dict[bytes, bytes]:
    return dict(store.value(key, dict) or {})


@command
def hdel(store: RedisStore, key: bytes, *names: bytes) -> int:
    fields = store.value(key, dict) or {}
    gone = sum(fields.pop(name, None) is not None for name in names)
    store.drop_if_empty(key)
    return gone


@command
def hincrby(store: RedisStore, key: bytes, name: bytes, amount: bytes) -> int:
    more = _integer(amount)
    known = store.value(key, dict) or {}
    value = _integer(known.get(name, b"0"), "ERR hash value is not an integer") + more
    if not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
        raise ResponseError("ERR increment or decrement would overflow")
    store.made(key, dict)[name] = b"%d" % value
    return value


@command
def hscan(store: RedisStore, key: bytes, cursor: bytes, word: bytes, count: bytes) -> list:
    fields = sorted((store.value(key, dict) or {}).items())[: int(count)]
    return [b"0", [part for entry in fields for part in entry]]


@command
def hlen(store: RedisStore, key: bytes) -> int:
    return len(store.value(key, dict) or ())


@command
def zscan(store: RedisStore, key: bytes, cursor: bytes, word: bytes, count: bytes) -> list:
    # A small one is given whole, whatever the count, as by the real one.
    return [b"0", _flat((store.value(key, Zset) or Zset()).ordered(), True)]


@command
def zadd(store: RedisStore, key: bytes, *arguments: bytes) -> int:
    flag = arguments[0] if arguments[0] in (b"GT", b"LT") else b""
    pairs = arguments[1:] if flag else arguments
    scores = [_float(text) for text in pairs[::2]]
    zset = store.made(key, Zset)
    added = 0
    for score, member in zip(scores, pairs[1::2], strict=True):
        known = zset.get(member)
        if known is None:
            added += 1
        if known is None or (score > known and flag != b"LT") or (score < known and flag != b"GT"):
            zset[member] = score
    return added


@command
def zincrby(store: RedisStore, key: bytes, amount: bytes, member: bytes) -> bytes:
    more = _float(amount)
    known = (store.value(key, Zset) or {}).get(member)
    score = more if known is None else known + more
    if math.isnan(score):
        raise ResponseError("ERR resulting score is not a number (NaN)")
    if score != known:
        store.made(key, Zset)[member] = score
    return score_text(score)


@command
def zrem(store: RedisStore, key: bytes, *members: bytes) -> int:
    zset = store.value(key, Zset)
    if zset is None:
        return 0
    gone = sum(zset.pop(member, None) is not None for member in members)
    store.drop_if_empty(key)
    return gone


@command
def zcard(store: RedisStore, key: bytes) -> int:
    return len(store.value(key, Zset) or ())


@command
def zscore(store: RedisStore, key: bytes, member: bytes) -> bytes | None:
    score = (store.value(key, Zset) or {}).get(member)
    return None if score is None else score_text(score)


@command
def zmscore(store: RedisStore, key: bytes, *members: bytes) -> list[bytes | None]:
    return [zscore(store, key, member) for member in members]


def _flat(entries: list[tuple[bytes, float]], scores: bool) -> list[bytes]:
    if not scores:
        return [member for member, _ in entries]
    return [part for member, score in entries for part in (member, score_text(score))]


def _by_index(entries: list, first: bytes, last: bytes) -> list:
    start, stop = int(first), int(last)
    return entries[start:] if stop == -1 else entries[start : stop + 1]


@command
def zrange(store: RedisStore, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
    entries = (store.value(key, Zset) or Zset()).ordered()
    return _flat(_by_index(entries, first, last), b"WITHSCORES" in options)


@command
def zrevrange(store: RedisStore, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
    entries = (store.value(key, Zset) or Zset()).ordered()[::-1]
    return _flat(_by_index(entries, first, last), b"WITHSCORES" in options)


def _between(store: RedisStore, key: bytes, least: bytes, most: bytes) -> list[tuple[bytes, float]]:
    (low, low_out), (high, high_out) = _border(least), _border(most)
    return [
        (member, score)
        for member, score in (store.value(key, Zset) or Zset()).ordered()
        if (score > low if low_out else score >= low) and (score < high if high_out else score <= high)
    ]


@command
def zrangebyscore(store: RedisStore, key: bytes, least: bytes, most: bytes, *options: bytes) -> list[bytes]:
    entries = _limited(_between(store, key, least, most), options)
    return _flat(entries, b"WITHSCORES" in options)


def _limited(entries: list, options: tuple[bytes, ...]) -> list:
    """What LIMIT leaves, if there is one."""
    if b"LIMIT" not in options:
        return entries
    at = options.index(b"LIMIT")
    skip, count = int(options[at + 1]), int(options[at + 2])
    if skip < 0:
        return []
    return entries[skip:] if count < 0 else entries[skip : skip + count]


@command
def zrangebylex(store: RedisStore, key: bytes, least: bytes, most: bytes, *limit: bytes) -> list[bytes]:
    assert most == b"+", "the simulated Redis has to learn it"
    if least != b"-" and least[:1] not in (b"(", b"["):
        raise ResponseError(NO_LEX_BORDER)
    members = [member for member, _ in (store.value(key, Zset) or Zset()).ordered()]

    def after(member: bytes) -> bool:
        return least == b"-" or member > least[1:] or (member == least[1:] and least[:1] == b"[")

    # Where scores differ, as they do after damage, the real one trusts the order all the same.
    if not members or not after(members[-1]):
        return []
    first = next(at for at, member in enumerate(members) if after(member))
    return _limited(members[first:], limit)


@command
def zcount(store: RedisStore, key: bytes, least: bytes, most: bytes) -> int:
    return len(_between(store, key, least, most))


@command
def zremrangebyscore(store: RedisStore, key: bytes, least: bytes, most: bytes) -> int:
    gone = _between(store, key, least, most)
    return zrem(store, key, *(member for member, _ in gone)) if gone else 0
