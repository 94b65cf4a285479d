"""The endpoints: parameters in, numbers out. They only raise; see errors.py."""

from starlette.requests import Request
from starlette.routing import Route

from api.errors import InvalidParameter
from api.live import LIMIT_MAX, LiveNumbers
from api.replies import JsonReply, conditions, utc
from api.settings import ApiSettings
from hotpath.events import ID_BYTES_MAX
from hotpath.views.keys import STEP_US

LIMIT_DEFAULT = 5


def _live(request: Request) -> LiveNumbers:
    return request.app.state.live


def _settings(request: Request) -> ApiSettings:
    return request.app.state.settings


async def active_users(request: Request) -> JsonReply:
    """Distinct users with an event in the window."""
    served = await _live(request).active_users()
    window_s = _settings(request).active_users_window_s
    return JsonReply({"active_users": served.reading.value, **conditions(served, window_s)})


async def top_pages(request: Request) -> JsonReply:
    """The most viewed pages of the window; `limit` of them, 5 unless asked. Equal views: by page_url's bytes."""
    served = await _live(request).top_pages(_limit(request))
    pages = [{"page_url": page.decode(), "views": views} for page, views in served.reading.value]
    return JsonReply({"pages": pages, **conditions(served, _settings(request).top_pages_window_s)})


async def user_sessions(request: Request) -> JsonReply:
    """A user's sessions with an event in the window, the latest first; none for a user never seen.

    `last_seen` is when the step of ten seconds that holds the session's latest event begins.
    """
    user_id = _user_id(request)
    served = await _live(request).user_sessions(user_id)
    sessions = [
        {"session_id": session.decode(), "last_seen": utc(step * STEP_US)}
        for session, step in served.reading.value
    ]
    window_s = _settings(request).sessions_window_s
    body = {"user_id": user_id, "active_sessions": len(sessions), "sessions": sessions}
    return JsonReply({**body, **conditions(served, window_s)})


async def healthz(request: Request) -> JsonReply:
    """200 while this process serves requests, whatever becomes of Redis."""
    return JsonReply({"status": "ok"})


async def readyz(request: Request) -> JsonReply:
    """200 when Redis answers and holds complete views; else 503 that says why."""
    await _live(request).ready()
    return JsonReply({"status": "ready"})


def _limit(request: Request) -> int:
    given = request.query_params.getlist("limit")
    if not given:
        return LIMIT_DEFAULT
    text = given[0]
    # No int() on what is not plainly digits: it takes "１", " 5", "1_0", and as many digits as there are.
    valid = len(given) == 1 and text.isascii() and text.isdigit() and len(text) <= len(str(LIMIT_MAX))
    if not valid or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidParameter("limit", f"must be one whole number from 1 to {LIMIT_MAX}")
    return int(text)


def _user_id(request: Request) -> str:
    # Starlette replaces bad UTF-8 by U+FFFD, which would ask for another user.
    raw = request.path_params["user_id"]
    if "\ufffd" in raw and b"%ef%bf%bd" not in request.scope.get("raw_path", b"").lower():
        raise InvalidParameter("user_id", "must be UTF-8, percent-encoded")
    if not raw or len(raw.encode()) > ID_BYTES_MAX:
        raise InvalidParameter("user_id", f"must have 1 to {ID_BYTES_MAX} UTF-8 bytes")
    return raw


ROUTES = [
    Route("/api/v1/active-users", active_users),
    Route("/api/v1/top-pages", top_pages),
    # A path, because a user_id may hold any character, "/" among them.
    Route("/api/v1/users/{user_id:path}/sessions", user_sessions),
    Route("/healthz", healthz),
    Route("/readyz", readyz),
]
