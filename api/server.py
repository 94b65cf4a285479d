"""uvicorn, with what it lacks: it ends streams when it stops, gives them their connection, and bounds what it keeps.

Left to itself it collects a request's head, and requests that were sent before their turn, until memory ends.
"""

import asyncio
import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.settings import ApiSettings
from api.stream import TRANSPORT

REQUEST_BYTES_MAX = 64 << 10
"""All of a request: line, headers, and a body, which nothing here has a use for."""
HEAD_S = 10.0
"""Time for a request's head, from the connection's begin or the request's first byte."""
WAITING_MAX = 16
"""Requests of one connection that wait for their turn; browsers send none before the last is answered."""


class Protocol(HttpToolsProtocol):
    """Hands the transport on, in the scope's extensions: only there can a connection be closed at once.

    Ends connections that send too much, in one request or in many: at most what one read gives is kept beyond that.
    And those that do not come to the end of a head: each of them holds an open file.
    """

    _request_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def data_received(self, data: bytes) -> None:
        self._request_bytes += len(data)
        super().data_received(data)
        if self._request_bytes > REQUEST_BYTES_MAX and not self.transport.is_closing():
            if self._in_head:
                self.send_400_response("The request is too long.")
            else:
                self.transport.close()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= WAITING_MAX:
            self.pipeline.clear()
            self.transport.abort()
            raise ConnectionAbortedError("too many requests wait")  # ends the parsing of what has come
        self._request_bytes, self._in_head = 0, True
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)
        super().on_message_begin()
        extensions: dict[str, Any] = {TRANSPORT: self.transport}
        self.scope["extensions"] = extensions

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_head_timer()
        super().on_headers_complete()


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
