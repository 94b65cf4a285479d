"""What endpoints raise, and the one place where errors become responses: JSON, always of the same shape.

    {"error": {"code": "invalid_parameter", "parameter": "limit", "message": "..."}}

`code` is for programs and stays, `message` is for people and may change, `parameter` is null unless one is at fault.
"""

import logging
import traceback

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.replies import JsonReply
from hotpath.views.read import ViewsUnavailable

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1


class InvalidParameter(Exception):
    """A parameter that cannot be used."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class Unauthorized(Exception):
    """The token is missing or wrong."""


class NotAvailable(Exception):
    """Something this needs cannot be reached, or is not complete; `code` says what, for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def error_body(code: str, message: str, parameter: str | None = None) -> dict[str, dict[str, str | None]]:
    """The body of every reply that is no success."""
    return {"error": {"code": code, "parameter": parameter, "message": message}}


def _reply(status: int, code: str, message: str, parameter: str | None = None, **headers: str) -> JsonReply:
    body = error_body(code, message, parameter)
    return JsonReply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


async def _invalid_parameter(request: Request, error: InvalidParameter) -> JsonReply:
    return _reply(422, "invalid_parameter", str(error), error.parameter)


async def _unauthorized(request: Request, error: Unauthorized) -> JsonReply:
    return _reply(401, "unauthorized", str(error), www_authenticate="Bearer")


async def _unavailable(request: Request, error: ViewsUnavailable | NotAvailable) -> JsonReply:
    return _reply(503, error.code, str(error), retry_after=str(RETRY_AFTER_S))


async def _http(request: Request, error: HTTPException) -> JsonReply:
    codes = {404: "not_found", 405: "method_not_allowed"}
    messages = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not possible here"}
    code, message = codes.get(error.status_code, "http_error"), messages.get(error.status_code, error.detail)
    reply = _reply(error.status_code, code, message)
    reply.headers.update(error.headers or {})
    return reply


def places(error: BaseException) -> str:
    """Where an error came from, and those behind it, without their texts: these hold what users sent."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines[:0] = [*traceback.format_tb(cause.__traceback__), f"{type(cause).__qualname__}\n"]
        cause = cause.__cause__ or cause.__context__
    return "".join(lines)


class Unexpected:
    """Middleware: replies to what nobody foresaw, inside of those that add headers to every reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = scope["type"] != "http"

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            if started:
                raise
            # By the route's name: paths and queries hold users.
            name = getattr(scope.get("route"), "name", "a request")
            log.error("%s %s failed\n%s", scope["method"], name, places(error))
            reply = _reply(500, "internal", "an unexpected failure; the API's log has the details")
            await reply(scope, receive, send)


HANDLERS = {
    InvalidParameter: _invalid_parameter,
    Unauthorized: _unauthorized,
    NotAvailable: _unavailable,
    ViewsUnavailable: _unavailable,
    HTTPException: _http,
}
"""Exception class to the function that makes its response."""
