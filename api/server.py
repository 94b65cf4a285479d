"""uvicorn, with the two things it lacks for streams: it ends them when it stops, and gives them their connection."""

import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.settings import ApiSettings
from api.stream import TRANSPORT


class Protocol(HttpToolsProtocol):
    """Hands the transport on, in the scope's extensions: only there can a connection be closed at once."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {TRANSPORT: self.transport}
        self.scope["extensions"] = extensions


class Server(uvicorn.Server):
    """Serves an application of `create_app`."""

    def __init__(self, app: Starlette, settings: ApiSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.api_host,
                port=settings.api_port,
                http=Protocol,
                loop="uvloop",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=settings.api_drain_deadline_s,
            )
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn waits for open replies before it tells the application that it stops; a stream would never end."""
        await self._app.state.broadcast.close()
        await super().shutdown(sockets)
