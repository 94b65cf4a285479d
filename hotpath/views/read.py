"""Every read of the live views, asynchronous, merged over the logs.

What belongs together is read by one script per log: the answer of a log is of one moment. Between the first look
(which tells as_of, and with it where windows begin) and the read of a view, a log may be rebuilt or trimmed
further; its script then says so and the reader looks again. What is newer than as_of counts as well.

A listed log without a live generation makes every view unavailable: a sum without it would be wrong.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import redis
import redis.asyncio
from redis.exceptions import ResponseError

from hotpath.errors import Unavailable
from hotpath.settings import Settings
from hotpath.views import keys
from hotpath.views.link import Command, Reply, run_async, script, state_script
from hotpath.views.store import LogState, parse_state

Value = TypeVar("Value")

ATTEMPTS = 4
"""Looks before a log that moves each time is called incomplete; trimming moves it once in ten seconds."""
TOP_MIN = 50
TOP_FACTOR = 4
"""Pages fetched from each log for a limit of n: max(TOP_MIN, TOP_FACTOR * n), and as many times more in each round
in which they do not prove the answer. With Zipf's law over 1,000 pages and 16 logs the first round does."""
VIEWS_PAGES_MAX = 500
"""Pages of one script: under 1 ms."""
USERS_MAX = 2_000
"""Users that one script looks at when it tells who is active: 2 ms."""
MEMBERS_USERS_MAX = 500
"""Users of one script that reads their sessions: about 1 ms."""
COMMANDS_MAX = 64
"""Commands of one pipeline where their number grows with the users."""

Counts = list[tuple[bytes, int]]
"""Names with how much each has, in order of rank."""


class ViewsUnavailable(Unavailable):
    """The live views cannot be read now; `code` says why, for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Head:
    """The logs as of one look: their states by log_id, as_of in microseconds since 1970, events not yet applied."""

    as_of_us: int
    lag_events: int
    states: dict[int, LogState]


@dataclass(frozen=True)
class Reading(Generic[Value]):
    """A view and the head it belongs to."""

    head: Head
    value: Value


@dataclass(frozen=True)
class Overview:
    """The views together, each as its own read gives it."""

    active_users: int
    top_pages: Counts
    top_users: Counts


class _Moved(Exception):
    """A log is not where the head says any more."""


class ViewReader:
    """Reads the views of all logs. One per event loop; it remembers the greatest as_of it has given out."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._prefix = settings.redis_prefix
        # Logs that are not keyed by user may share users; then only the union of members counts right.
        self._union = settings.bot_counters == "redis"
        self._as_of_us = 0

    async def head(self) -> Head:
        """A look at all logs. Raises ViewsUnavailable."""
        try:
            listed = await self._client.hgetall(keys.logs(self._prefix))
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise _unavailable(error) from error
            listed = {}
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        if not listed:
            raise ViewsUnavailable("views_rebuilding", "no worker has listed the logs yet")
        log_ids = [int(log_id) for log_id in listed]
        replies = await self._run([state_script(self._prefix, log_id) for log_id in log_ids])
        states = {log_id: parse_state(reply) for log_id, reply in zip(log_ids, replies, strict=True)}
        missing = [listed[str(log_id).encode()].decode() for log_id, state in states.items() if state is None]
        if missing:
            raise ViewsUnavailable("views_rebuilding", f"being rebuilt: {', '.join(missing)}")
        as_of_us = min(state.complete_until_us for state in states.values())
        if as_of_us <= 0 or as_of_us < self._as_of_us:
            # Rather no answer than one whose as_of moves back.
            raise ViewsUnavailable("views_incomplete", "not every log has been read up to the present yet")
        self._as_of_us = as_of_us
        lag_events = sum(max(0, state.log_end - state.applied) for state in states.values())
        return Head(as_of_us, lag_events, states)

    async def active_users(self, head: Head | None = None) -> Reading[int]:
        """Distinct users in the window. `head`: a recent one, to save a round trip. Raises ViewsUnavailable."""

        return await self._settled(head, self._active_users)

    async def top_pages(self, limit: int, head: Head | None = None) -> Reading[Counts]:
        """(page_url, views), the most viewed first, then by page_url's bytes. Raises ViewsUnavailable."""
        return await self._settled(head, lambda head: self._top_pages(head, limit))

    async def top_users(self, limit: int, head: Head | None = None) -> Reading[Counts]:
        """(user_id, active sessions), who has most first, then by user_id's bytes. Raises ViewsUnavailable."""
        return await self._settled(head, lambda head: self._top_users(head, limit))

    async def overview(self, limit: int, head: Head | None = None) -> Reading[Overview]:
        """All of these under one head. Raises ViewsUnavailable."""

        async def read(head: Head) -> Overview:
            return Overview(
                await self._active_users(head),
                await self._top_pages(head, limit),
                await self._top_users(head, limit),
            )

        return await self._settled(head, read)

    async def _active_users(self, head: Head) -> int:
        start = keys.window_start(head.as_of_us, self._settings.active_users_window_s)
        if self._union:
            return len(set().union(*(await self._users(head, start)).values()))
        answers = await self._ask(head, "read_users", [[start]])
        return sum(answer[0] for (answer,) in answers.values())

    async def _users(self, head: Head, start: int) -> dict[int, list[bytes]]:
        """The users of each log that were seen after step `start`, read in pieces: each is of a moment of its own."""
        users: dict[int, list[bytes]] = {log_id: [] for log_id in head.states}
        ends = dict.fromkeys(head.states, b"")
        while ends:
            states = {log_id: head.states[log_id] for log_id in ends}
            payloads = {log_id: [[start, last, USERS_MAX]] for log_id, last in ends.items()}
            answers = await self._ask(replace(head, states=states), "read_users", payloads)
            for log_id, ((last, *found),) in answers.items():
                users[log_id] += found
                ends[log_id] = last
            ends = {log_id: last for log_id, last in ends.items() if last}
        return users

    async def _top_pages(self, head: Head, limit: int) -> Counts:
        """Exact without reading every page, as in Fagin's threshold algorithm: a page outside every log's top n has
        at most the sum of the logs' n-th counts. If the last page asked for has more, no other can displace it.
        """
        start = keys.window_start(head.as_of_us, self._settings.top_pages_window_s)
        fetched = max(TOP_MIN, TOP_FACTOR * limit)
        while True:
            tops = await self._ask(head, "read_top", [[start, fetched]])
            bound = sum(top[0] for (top,) in tops.values())
            pages = list(dict.fromkeys(page for (top,) in tops.values() for page in top[1:]))
            ranked = await self._ranked_pages(head, start, pages)
            if bound == 0 or (len(ranked) >= limit and ranked[limit - 1][1] > bound):
                return ranked[:limit]
            fetched *= TOP_FACTOR

    async def _ranked_pages(self, head: Head, start: int, pages: list[bytes]) -> Counts:
        chunks = [pages[at : at + VIEWS_PAGES_MAX] for at in range(0, len(pages), VIEWS_PAGES_MAX)]
        answers = await self._ask(head, "read_views", [[start, chunk] for chunk in chunks])
        sums = [0] * len(pages)
        for of_log in answers.values():
            for index, views in enumerate(count for answer in of_log for count in answer):
                sums[index] += views
        return _ranked({page: views for page, views in zip(pages, sums, strict=True) if views > 0})

    async def _top_users(self, head: Head, limit: int) -> Counts:
        """All of a user's sessions are in one log, so the first of all are among the first of each."""
        start = keys.window_start(head.as_of_us, self._settings.sessions_window_s)
        if self._union:
            return await self._top_users_by_union(head, start, limit)
        found: dict[bytes, int] = {}
        for (flat,) in (await self._ask(head, "read_ranked", [[start, limit]])).values():
            of_log: dict[bytes, int] = {}
            for user, sessions in zip(flat[::2], flat[1::2], strict=True):
                of_log.setdefault(user, sessions)
            for user, sessions in of_log.items():
                found[user] = found.get(user, 0) + sessions
        return _ranked(found)[:limit]

    async def _top_users_by_union(self, head: Head, start: int, limit: int) -> Counts:
        """Logs that share users bound nothing for each other: every active user's sessions are read."""
        sessions: dict[bytes, set[bytes]] = {}
        for log_id, users in (await self._users(head, start)).items():
            chunks = [users[at : at + MEMBERS_USERS_MAX] for at in range(0, len(users), MEMBERS_USERS_MAX)]
            only = replace(head, states={log_id: head.states[log_id]})
            for at in range(0, len(chunks), COMMANDS_MAX):
                some = chunks[at : at + COMMANDS_MAX]
                answers = await self._ask(only, "read_members", [[start, chunk] for chunk in some])
                for chunk, answer in zip(some, answers[log_id], strict=True):
                    for user, members in zip(chunk, answer, strict=True):
                        sessions.setdefault(user, set()).update(members)
        return _ranked({user: len(members) for user, members in sessions.items() if members})[:limit]

    async def user_sessions(self, user_id: str, head: Head | None = None) -> Reading[Counts]:
        """(session_id, last-seen step) of a user's sessions in the window, the latest first, then by id."""

        async def read(head: Head) -> Counts:
            start = keys.window_start(head.as_of_us, self._settings.sessions_window_s)
            answers = await self._ask(head, "read_sessions", [[start, user_id.encode()]])
            newest: dict[bytes, int] = {}
            for (flat,) in answers.values():
                for session, step in zip(flat[::2], flat[1::2], strict=True):
                    newest[session] = max(newest.get(session, 0), int(step))
            return _ranked(newest)

        return await self._settled(head, read)

    async def _settled(self, head: Head | None, read: Callable[[Head], Awaitable[Value]]) -> Reading[Value]:
        """What `read` gives for a head that still holds when it is done."""
        for _ in range(ATTEMPTS):
            head = head or await self.head()
            try:
                return Reading(head, await read(head))
            except _Moved:
                head = None
        raise ViewsUnavailable(
            "views_incomplete", "some log lies so far behind the others that its window is no longer kept"
        )

    async def _ask(
        self, head: Head, name: str, payloads: list[list] | dict[int, list[list]]
    ) -> dict[int, list[list]]:
        """Answers of script `name` by log, one for each payload (of all logs, or by log). Raises _Moved."""
        by_log = payloads if isinstance(payloads, dict) else dict.fromkeys(head.states, payloads)
        commands: list[Command] = [
            script(name, self._prefix, log_id, state.generation, payload)
            for log_id, state in head.states.items()
            for payload in by_log[log_id]
        ]
        replies = await self._run(commands)
        for reply in replies:
            error = isinstance(reply, ResponseError)
            if "WRONGTYPE" in str(reply) if error else reply[0] == b"BROKEN":
                raise ViewsUnavailable("views_rebuilding", "a key of the views is not what it must be")
            if error:
                raise _unavailable(reply)
            if reply[0] == b"BEHIND":
                raise ViewsUnavailable(
                    "views_incomplete", "what has left the windows is still being taken away"
                )
            if reply[0] != b"OK":
                raise _Moved
        answers = iter(replies)
        return {log_id: [next(answers)[1:] for _ in by_log[log_id]] for log_id in head.states}

    async def _run(self, commands: Iterable[Command]) -> list[Reply]:
        try:
            return await run_async(self._client, list(commands))
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error


def _ranked(found: dict[bytes, int]) -> Counts:
    return sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))


def _unavailable(error: Exception) -> ViewsUnavailable:
    return ViewsUnavailable("redis_unavailable", f"Redis does not answer: {type(error).__name__}")
