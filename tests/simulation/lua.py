"""Runs the real scripts, in Redis's own Lua (5.1), over a RedisStore.

`redis.call`, `cmsgpack` and `struct.pack` are what scripts get of Redis; values are converted as Redis does it.
One interpreter serves all worlds: scripts keep nothing between calls.
"""

from typing import Any

import msgpack
from lupa import lua51
from redis.exceptions import ResponseError

from tests.simulation.redis_store import RedisStore, score_text

_STATUS_REPLIES = ("TYPE", "SET", "LTRIM")

_runtime = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False)
_globals = _runtime.globals()
_table_of = _runtime.table_from
_store: RedisStore
_compiled: dict[str, Any] = {}


def _to_lua(value: Any) -> Any:
    """A reply of Redis as Lua sees it."""
    if value is None:
        return False
    if isinstance(value, dict):
        return _table_of([part for entry in value.items() for part in entry])
    if isinstance(value, (list, set)):
        return _table_of([_to_lua(part) for part in value])
    return value


def _from_lua(value: Any) -> Any:
    """What a script returns as Redis replies it."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, (int, float)):
        return int(value)
    if isinstance(value, bytes):
        return value
    found, index = [], 1
    while (part := value[index]) is not None:
        found.append(_from_lua(part))
        index += 1
    return found


def _call(name: bytes, *arguments: Any) -> Any:
    word = name.decode()
    reply = _store.call(word, *arguments)
    if word in _STATUS_REPLIES:
        return _table_of({b"ok": reply})
    return _to_lua(reply)


def _unpacked(value: Any) -> Any:
    return _table_of([_unpacked(part) for part in value]) if isinstance(value, list) else value


def _unpack(blob: bytes) -> Any:
    return _unpacked(msgpack.unpackb(blob, raw=True))


def _pack(shape: bytes, number: float) -> bytes:
    assert shape == b"<I4", "the simulated Redis has to learn it"
    return int(number).to_bytes(4, "little")


def _packed(table: Any) -> bytes:
    return msgpack.packb(_from_lua(table))


_globals[b"struct"] = _table_of({b"pack": _pack})
_globals[b"redis"] = _table_of({b"call": _call})
_globals[b"cmsgpack"] = _table_of({b"unpack": _unpack, b"pack": _packed})


def run(store: RedisStore, text: str, keys: list[bytes], arguments: list[Any]) -> Any:
    """The reply of a script. Raises ResponseError."""
    global _store
    script = _compiled.get(text)
    if script is None:
        script = _compiled[text] = _runtime.compile(text.encode())
    _store = store
    _globals[b"KEYS"] = _table_of(keys)
    _globals[b"ARGV"] = _table_of(
        [
            a if isinstance(a, bytes) else score_text(a) if isinstance(a, float) else str(a).encode()
            for a in arguments
        ]
    )
    try:
        return _from_lua(script())
    except lua51.LuaError as error:
        raise ResponseError(f"ERR {error}") from error
