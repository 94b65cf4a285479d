"""`python -m generator.app`: the generator with a page of buttons, on a port of its own.

    GET  /                 the page (dashboard/generator.html, built)
    GET  /api/v1/state     what is wished for and what is done
    PUT  /api/v1/state     {"rate": 0 to rate_max, "bots": true, "malformed": false}, any of them; answers the new state
    GET  /api/v1/stream    the state ten times a second, and every event that Kafka has acknowledged or refused
    GET  /healthz          200 while it serves; says whether Kafka takes events

Everybody who looks sees and changes the same generator. It begins at the rate of the settings and goes on until it is
told otherwise. Only JSON is taken for a change: no page of another site can send that here without being asked first.
"""

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from generator.feed import Feed
from generator.sender import Sender
from generator.settings import AppSettings
from hotpath.console import configure_logging, exit_code_of
from hotpath.settings import load

PROGRAM = "python -m generator.app"
BODY_BYTES_MAX = 1_024
DRAIN_DEADLINE_S = 3
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Invalid(HTTPException):
    """A body that cannot be used; `parameter` names the part at fault."""

    def __init__(self, message: str, parameter: str | None = None, status_code: int = 422) -> None:
        super().__init__(status_code, message)
        self.parameter = parameter


def create_app(settings: AppSettings) -> Starlette:
    """The application. It starts whether or not Kafka is there, and says so while it is not."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        feed = Feed(lambda: state_of(app))
        with Sender(settings, feed.note) as sender:
            app.state.sender, app.state.feed = sender, feed
            frames = asyncio.create_task(feed.run())
            try:
                yield
            finally:
                feed.close()
                frames.cancel()
                with suppress(asyncio.CancelledError):
                    await frames

    pages = Path(__file__).parents[1] / settings.page_folder
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/api/v1/state", get_state, methods=["GET"]),
            Route("/api/v1/state", put_state, methods=["PUT"]),
            Route("/api/v1/stream", stream),
            Route("/healthz", healthz),
            Mount("/", StaticFiles(directory=pages, check_dir=False)),
        ],
        exception_handlers={HTTPException: _explain},
        middleware=[Middleware(_SecurityHeaders)],
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.page = pages / "generator.html"
    return app


def state_of(app: Starlette) -> dict[str, object]:
    """The generator's state as JSON."""
    settings: AppSettings = app.state.settings
    state = app.state.sender.state()
    return {
        "target_per_s": state.wish.rate,
        "reached_per_s": round(state.reached_per_s, 1),
        "rate_max": settings.rate_max,
        "bots": state.wish.bots,
        "malformed": state.wish.malformed,
        "sent": state.sent,
        "delivered": state.delivered,
        "failed": state.failed,
        "waiting": state.waiting,
        "trouble": state.trouble,
        "topic": settings.topic,
    }


async def page(request: Request) -> Response:
    """The page with the buttons."""
    built: Path = request.app.state.page
    if not built.is_file():
        return PlainTextResponse(
            "The page is not built: npm ci && npm run build in dashboard/ (make up does it). "
            "The generator runs all the same; see /api/v1/state.\n"
        )
    return FileResponse(built, headers={"Cache-Control": "no-cache"})


async def get_state(request: Request) -> Response:
    return _json(state_of(request.app))


async def put_state(request: Request) -> Response:
    """Change the rate, the faults, or both."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Invalid("a change is sent as application/json", status_code=415)
    settings: AppSettings = request.app.state.settings
    request.app.state.sender.change(**_change(await _body(request), settings.rate_max))
    return _json(state_of(request.app))


async def stream(request: Request) -> Response:
    """The feed, until the viewer leaves."""
    feed: Feed = request.app.state.feed
    if feed.full:
        raise HTTPException(503, "too many pages are open")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(feed.watch(), headers=headers, media_type="text/event-stream")


async def healthz(request: Request) -> Response:
    trouble = request.app.state.sender.state().trouble
    return _json({"status": "ok", "kafka": trouble or "ok"})


async def _body(request: Request) -> Any:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise Invalid(f"a change has at most {BODY_BYTES_MAX:,} bytes", status_code=413)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Invalid("the body is not JSON") from None


def _change(body: Any, rate_max: float) -> dict[str, float | bool]:
    """The fields of Wish that a body names. Raises Invalid."""
    if not isinstance(body, dict) or not body:
        raise Invalid('must be an object with one of "rate", "bots", "malformed" at least')
    for name, value in body.items():
        if name == "rate":
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0 <= value <= rate_max:
                raise Invalid(f"must be a number from 0 to {rate_max:,.0f}", "rate")
        elif name in ("bots", "malformed"):
            if not isinstance(value, bool):
                raise Invalid("must be true or false", name)
        else:
            raise Invalid("is not known", name)
    return body


def _json(body: object, status_code: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(body), status_code, headers, media_type="application/json")


async def _explain(request: Request, error: HTTPException) -> Response:
    """Errors in the shape of the read API's."""
    codes = {404: "not_found", 405: "method_not_allowed", 422: "invalid_parameter", 503: "unavailable"}
    parameter = getattr(error, "parameter", None)
    message = f"{parameter}: {error.detail}" if parameter else error.detail
    code = codes.get(error.status_code, "http_error")
    return _json({"error": {"code": code, "parameter": parameter, "message": message}}, error.status_code)


class _SecurityHeaders:
    """Adds HEADERS to every reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class _Server(uvicorn.Server):
    """Ends the open streams first when told to stop: it waits for every reply to end, and theirs never would."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        feed = getattr(self.config.app.state, "feed", None)
        if feed is not None:
            # Called between two steps of the event loop, in its thread.
            feed.close()
        super().handle_exit(sig, frame)


def serve() -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError."""
    settings = load(AppSettings, sys.argv[1:], PROGRAM)
    configure_logging(settings, "generator")
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_DEADLINE_S,
    )
    _Server(config).run()


def main() -> int:
    """Serve, and return the process's exit code."""
    return exit_code_of(serve)


if __name__ == "__main__":
    sys.exit(main())
