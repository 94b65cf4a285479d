"""The read API as a value: `create_app(settings)` puts routes, error handlers and lifespan together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from api.endpoints import ROUTES
from api.errors import HANDLERS
from api.live import LiveNumbers
from api.settings import ApiSettings
from hotpath.views.link import connect_async
from hotpath.views.read import ViewReader


def create_app(settings: ApiSettings) -> Starlette:
    """The application. It starts whether or not Redis is there, and answers 503 until it is."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        client = connect_async(
            settings.redis_url, settings.api_redis_timeout_s, settings.api_redis_connections_max
        )
        app.state.live = LiveNumbers(ViewReader(client, settings), settings)
        try:
            yield
        finally:
            await app.state.live.close()
            await client.aclose()

    app = Starlette(routes=ROUTES, exception_handlers=HANDLERS, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.settings = settings
    return app
