"""The endpoints of live numbers and of the workers: parameters in, numbers out. They only raise; see errors.py.

A docstring is what the OpenAPI document says of the endpoint: the first paragraph is its title.
"""

from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.live import LiveNumbers, Served
from api.parameters import Limited, LimitedUsers, NoParameters, Table, user_id
from api.replies import CsvReply, JsonReply, conditions, utc
from api.settings import ApiSettings
from api.stream import EventStream
from api.workers import Seen, Workers
from hotpath.views.keys import STEP_US
from hotpath.views.read import Counts, Overview


def _live(request: Request) -> LiveNumbers:
    return request.app.state.live


def _settings(request: Request) -> ApiSettings:
    return request.app.state.settings


def _workers(request: Request) -> Workers:
    return request.app.state.workers


async def summary(request: Request, given: NoParameters) -> Response:
    """All live numbers in one reply

    They are of one look at the views. The stream sends the same once a second.
    """
    live = _live(request)
    served = await live.overview()
    return JsonReply(await summary_body(served, live, _workers(request), _settings(request)))


async def summary_body(
    served: Served[Overview], live: LiveNumbers, workers: Workers, settings: ApiSettings
) -> bytes:
    """The summary as JSON, made once for each reading."""
    if "summary" not in served.bodies:
        seen = await workers.seen()
        served.bodies["summary"] = orjson.dumps(_summary(served, seen, live, settings))
    return served.bodies["summary"]


def _summary(
    served: Served[Overview], seen: Seen, live: LiveNumbers, settings: ApiSettings
) -> dict[str, Any]:
    overview = served.reading.value
    line = [{"at": utc(at_us), "value": users} for at_us, users in live.line.points()]
    away = seen.away is not None
    return {
        **conditions(served),
        "age_s": served.age_s,
        "read_at": utc(served.read_at_us),
        "active_users": {
            "window_s": settings.active_users_window_s,
            "value": overview.active_users,
            "line": line,
        },
        "top_pages": {"window_s": settings.top_pages_window_s, "pages": _pages(overview.top_pages)},
        "top_users": {"window_s": settings.sessions_window_s, "users": _users(overview.top_users)},
        "events_per_s": live.applied.per_s() if away else seen.events_per_s,
        "accepted_per_s": seen.accepted_per_s,
        "workers": None if away else {"up": seen.up, "total": len(seen.workers)},
    }


def _pages(counts: Counts) -> list[dict[str, object]]:
    return [{"page_url": page.decode(), "views": views} for page, views in counts]


def _users(counts: Counts) -> list[dict[str, object]]:
    return [{"user_id": user.decode(), "active_sessions": sessions} for user, sessions in counts]


async def active_users(request: Request, given: NoParameters) -> Response:
    """Distinct users with an event in the window"""
    served = await _live(request).overview()

    def make() -> bytes:
        window = {"window_s": _settings(request).active_users_window_s}
        return orjson.dumps(
            {"active_users": served.reading.value.active_users, **window, **conditions(served)}
        )

    return JsonReply(served.body("active_users", make))


async def top_pages(request: Request, given: Limited) -> Response:
    """The most viewed pages of the window

    Equal ones are in the order of page_url's bytes.
    """
    served = await _live(request).top_pages(given.limit)
    window_s = _settings(request).top_pages_window_s
    return _ranking(served, given, "pages", window_s, _pages, ("page_url", "views"))


async def top_users(request: Request, given: LimitedUsers) -> Response:
    """The users with the most active sessions

    Equal ones are in the order of user_id's bytes.
    """
    served = await _live(request).top_users(given.limit)
    window_s = _settings(request).sessions_window_s
    return _ranking(served, given, "users", window_s, _users, ("user_id", "active_sessions"))


def _ranking(
    served: Served[Counts],
    given: Limited | LimitedUsers,
    name: str,
    window_s: int,
    rows: Callable[[Counts], list[dict[str, object]]],
    columns: tuple[str, str],
) -> Response:
    counts = served.reading.value[: given.limit]
    if given.format == "csv":
        return _table(name, columns, [(key.decode(), count) for key, count in counts], served, window_s)

    def make() -> bytes:
        return orjson.dumps({name: rows(counts), "window_s": window_s, **conditions(served)})

    return JsonReply(served.body((name, given.limit), make))


def _table(name: str, columns: tuple[str, ...], rows: list[tuple], served: Served, window_s: int) -> CsvReply:
    """Rows of live numbers as CSV; each row says under which conditions it holds."""
    head = served.reading.head
    beside = {
        "as_of": utc(head.as_of_us),
        "window_s": window_s,
        "stale": served.stale,
        "lag_events": head.lag_events,
    }
    return CsvReply(
        name,
        [*columns, *beside],
        [(*row, *beside.values()) for row in rows],
        beside["as_of"],
        head.lag_events,
    )


async def user_sessions(request: Request, given: Table) -> Response:
    """A user's sessions with an event in the window, the latest first

    None for a user never seen. `last_seen` is when the ten seconds begin that hold the session's latest event.
    """
    user = user_id(request)
    served = await _live(request).user_sessions(user)
    sessions = [
        {"session_id": session.decode(), "last_seen": utc(step * STEP_US)}
        for session, step in served.reading.value
    ]
    window_s = _settings(request).sessions_window_s
    if given.format == "csv":
        rows = [(user, *session.values()) for session in sessions]
        return _table("sessions", ("user_id", "session_id", "last_seen"), rows, served, window_s)
    body = {"user_id": user, "active_sessions": len(sessions), "sessions": sessions}
    return JsonReply({**body, "window_s": window_s, **conditions(served)})


async def stream(request: Request, given: NoParameters) -> Response:
    """Snapshots as server-sent events, one a second

    The event `summary` carries what /api/v1/summary replies. While new numbers cannot be read, the event `unavailable`
    carries the error, after the last good summary, marked stale, where there is one. Ids are milliseconds since 1970;
    a client that is slow misses snapshots, one that comes back gets the latest it has not seen. Comments keep the
    connection open.
    """
    last_event_id = request.headers.get("last-event-id", "")
    return EventStream(request.app.state.broadcast, last_event_id, _settings(request).api_stream_stall_s)


async def pipeline(request: Request, given: NoParameters) -> Response:
    """The workers: state, events a second, lag, ring, flushes, restarts

    As their supervisor tells. When it does not answer, `state` is `away`, `message` says why, and there are no workers.
    """
    seen = await _workers(request).seen()
    return JsonReply(
        {
            "state": "up" if seen.away is None else "away",
            "message": seen.away,
            "at": utc(seen.at_us),
            "events_per_s": seen.events_per_s,
            "accepted_per_s": seen.accepted_per_s,
            "workers": seen.workers,
        }
    )


async def healthz(request: Request, given: NoParameters) -> Response:
    """200 while this process serves requests, whatever becomes of Redis"""
    return JsonReply({"status": "ok"})


async def readyz(request: Request, given: NoParameters) -> Response:
    """200 when Redis answers and holds complete views; else 503 that says why"""
    await _live(request).ready()
    return JsonReply({"status": "ready"})
