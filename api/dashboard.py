"""The built dashboard's files at `/`: cached for ever where their names hold a hash, asked for anew otherwise.

A browser that asks for one of the dashboard's views by its name gets the page; whatever else is no file is not there.
"""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

HASHED = "assets/"
"""Where the build puts the files whose names change with their contents."""
VIEWS = ("", "live", "history", "pipeline")
"""Paths of the page: dashboard/src/app/route.ts shows the view of that name."""
NOT_BUILT = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>hotpath</title></head><body><main>'
    "<h1>The dashboard is not built</h1><p>The read API runs; only its pages are missing. <code>make up</code> builds "
    'them. <a href="/docs">What the API offers</a></p></main></body></html>'
)


class Dashboard:
    """Serves `folder`, also one that is built while this process runs."""

    def __init__(self, folder: Path) -> None:
        self._files = StaticFiles(directory=folder, check_dir=False)

    def route(self) -> Route:
        """The route that takes whatever no other has taken."""
        return Route("/{path:path}", self.serve, methods=["GET"], name="dashboard")

    async def serve(self, request: Request) -> Response:
        """The file, or the page whose view this is. Raises HTTPException."""
        path = request.path_params["path"]
        if "\0" in path:
            raise HTTPException(404)
        wants_page = path in VIEWS and "text/html" in request.headers.get("accept", "")
        try:
            reply = await self._files.get_response(path or "index.html", request.scope)
        except HTTPException:
            if not wants_page:
                raise
            reply = await self._page(request)
        reply.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if path.startswith(HASHED) else "no-cache"
        )
        return reply

    async def _page(self, request: Request) -> Response:
        try:
            return await self._files.get_response("index.html", request.scope)
        except HTTPException:
            return HTMLResponse(NOT_BUILT, 404)
