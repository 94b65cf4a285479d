"""The read API as a value: `create_app(settings)` puts routes, middleware, error handlers and lifespan together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from api.access import Guard
from api.endpoints import summary_body
from api.errors import HANDLERS, Unexpected, error_body
from api.line import fill_line
from api.live import LiveNumbers
from api.postgres import Postgres
from api.replies import AS_OF_HEADER, LAG_HEADER, NEXT_CURSOR_HEADER
from api.routes import routes
from api.settings import ApiSettings
from api.stream import Broadcast, Event
from api.workers import Workers
from hotpath.views.link import connect_async
from hotpath.views.read import ViewReader, ViewsUnavailable


def create_app(settings: ApiSettings) -> Starlette:
    """The application. It starts whether or not Redis, Postgres and the supervisor are there."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        client = connect_async(
            settings.redis_url, settings.api_redis_timeout_s, settings.api_redis_connections_max
        )
        state = app.state
        state.live = LiveNumbers(ViewReader(client, settings), settings)
        state.workers = Workers(settings)
        state.broadcast = Broadcast(lambda: _events(app), settings.api_streams_max)
        state.postgres = Postgres(settings)
        await state.postgres.open()
        state.live.start()
        filling = asyncio.create_task(fill_line(state.live, state.postgres, settings))
        try:
            yield
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
            await state.broadcast.close()
            await state.live.close()
            await state.workers.close()
            await state.postgres.close()
            await client.aclose()

    app = Starlette(
        routes=routes(settings),
        middleware=_middleware(settings),
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.settings = settings
    return app


def _middleware(settings: ApiSettings) -> list[Middleware]:
    guard, unexpected = Middleware(Guard, settings=settings), Middleware(Unexpected)
    if not settings.api_cors_origins:
        return [guard, unexpected]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.api_cors_origins,
        allow_methods=["GET"],
        allow_headers=["Authorization", "Last-Event-ID"],
        expose_headers=["Retry-After", NEXT_CURSOR_HEADER, AS_OF_HEADER, LAG_HEADER],
        max_age=600,
    )
    return [guard, cors, unexpected]


async def _events(app: Starlette) -> list[Event]:
    """One snapshot for the streams."""
    state, events = app.state, []
    try:
        served = await state.live.overview()
        body = await summary_body(served, state.live, state.workers, state.settings)
        events.append((b"summary", body))
        error = served.error
    except ViewsUnavailable as unavailable:
        error = unavailable
    if error is not None:
        events.append((b"unavailable", orjson.dumps(error_body(error.code, str(error)))))
    return events
