"""Connections to Redis, and the scripts by name.

A script is the text of `prelude.lua` followed by its own file, addressed by its SHA-1. All calls of one batch
travel in one pipeline; a server that does not know the scripts (it was restarted) gets them, and the whole
batch again: every script may be repeated.

redis-py repeats commands after a lost reply unless told not to; here nothing is repeated behind one's back.
"""

import hashlib
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry

from hotpath.views import keys, packed

Command = tuple[Any, ...]
Reply = Any
"""What Redis answers to a command; ResponseError where it answered with an error."""

STREAM_BATCH = 16
"""Scripts of a few milliseconds each: one by one, a busy machine took longer to wake each side than for the work."""

_FOLDER = Path(__file__).parent
_PRELUDE = (_FOLDER / "prelude.lua").read_text()
_TEXTS = {path.stem: _PRELUDE + path.read_text() for path in _FOLDER.glob("*.lua") if path.stem != "prelude"}
_SHAS = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in _TEXTS.items()}


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client for one thread; connects with its first command. Replies are bytes."""
    return redis.Redis.from_url(
        url,
        protocol=2,
        decode_responses=False,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
    )


def connect_async(url: str, timeout_s: float, connections_max: int) -> redis.asyncio.Redis:
    """The same for an event loop, with at most `connections_max` connections; more callers wait for one."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=connections_max,
        timeout=timeout_s,
        protocol=2,
        decode_responses=False,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
    )
    return redis.asyncio.Redis.from_pool(pool)


def script(
    name: str, prefix: str, log_id: int, generation: int, payload: list | bytes, *more: str
) -> Command:
    """The command that runs script `name` on one generation of a log; a payload of bytes is packed already."""
    blob = payload if isinstance(payload, bytes) else packed.pack(payload)
    return ("EVALSHA", _SHAS[name], 1, keys.current(prefix, log_id), generation, blob, *more)


def state_script(prefix: str, log_id: int) -> Command:
    """The command that reads what is stored of a log: see `state.lua`."""
    return ("EVALSHA", _SHAS["state"], 1, keys.current(prefix, log_id))


def raw_script(name: str, script_keys: list[bytes], payload: list) -> Command:
    """The command that runs a script with keys of its own."""
    return (
        "EVALSHA",
        _SHAS[name],
        len(script_keys),
        *script_keys,
        packed.pack(payload),
    )


def run(client: redis.Redis, commands: list[Command]) -> list[Reply]:
    """Replies of `commands` in order, sent as one pipeline. Raises redis' ConnectionError, TimeoutError."""
    replies = _run_once(client, commands)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        _run_once(client, _load_commands())
        replies = _run_once(client, commands)
    return replies


class Stream:
    """Sends commands in batches of `STREAM_BATCH`, so that a server far off or busy is not waited for after each."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._commands: list[Command] = []

    def send(self, command: Command) -> None:
        """Send a command, now or with later ones. Raises redis' errors; ResponseError for a reply that is not OK."""
        self._commands.append(command)
        if len(self._commands) >= STREAM_BATCH:
            self.drain()

    def drain(self) -> None:
        """Send what is left; all replies are OK then."""
        commands, self._commands = self._commands, []
        for reply in run(self._client, commands):
            if isinstance(reply, ResponseError):
                raise reply
            if reply[0] != b"OK":
                raise ResponseError(f"a script was refused: {reply}")


async def run_async(client: redis.asyncio.Redis, commands: list[Command]) -> list[Reply]:
    """`run`, for an event loop."""
    replies = await _run_once_async(client, commands)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        await _run_once_async(client, _load_commands())
        replies = await _run_once_async(client, commands)
    return replies


def error_of(replies: list[Reply]) -> ResponseError | None:
    """The first error among replies."""
    return next((reply for reply in replies if isinstance(reply, ResponseError)), None)


def _load_commands() -> list[Command]:
    return [("SCRIPT LOAD", text) for text in _TEXTS.values()]


def _run_once(client: redis.Redis, commands: list[Command]) -> list[Reply]:
    if not commands:
        return []
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)


async def _run_once_async(client: redis.asyncio.Redis, commands: list[Command]) -> list[Reply]:
    if not commands:
        return []
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)
