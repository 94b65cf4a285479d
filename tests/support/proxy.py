"""A TCP proxy in front of Postgres that breaks connections at a chosen message of the client's."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

import psycopg.conninfo


class Break(Enum):
    """What happens to the client's bytes that hold the pattern; the client always sees its connection close."""

    BEFORE = auto()
    """They never arrive, and the server sees its connection close, too."""
    REPLY_LOST = auto()
    """They arrive; the answer to them does not."""
    SERVER_UNAWARE = auto()
    """They never arrive, and the server's side stays open: it goes on waiting for its client."""


class BreakingProxy:
    """Forwards connections to the server of `dsn`; `self.dsn` leads through it. Close it at the end."""

    def __init__(self, dsn: str) -> None:
        info = psycopg.conninfo.conninfo_to_dict(dsn)
        self._server = (str(info["host"]), int(info["port"]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._plan: tuple[bytes, Break, int] | None = None
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def break_at(self, pattern: bytes, how: Break, times: int = 1) -> None:
        """Break the next `times` connections at the first bytes that hold `pattern`."""
        self._plan = (pattern, how, times)

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            _shut(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += (client, server)
                self._start(self._to_server, client, server)
                self._start(self._to_client, server, client)

    @staticmethod
    def _start(pump: Callable[[socket.socket, socket.socket], None], *ends: socket.socket) -> None:
        threading.Thread(target=pump, args=ends, daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                how = self._breaks(data)
                if how is None:
                    server.sendall(data)
                    continue
                _shut(client)
                if how is Break.REPLY_LOST:
                    server.sendall(data)
                    return
                if how is Break.SERVER_UNAWARE:
                    return
                break
        _shut(server)

    def _breaks(self, data: bytes) -> Break | None:
        with self._lock:
            if self._plan is None or self._plan[0] not in data:
                return None
            pattern, how, times = self._plan
            self._plan = (pattern, how, times - 1) if times > 1 else None
            self.broken += 1
            return how

    @staticmethod
    def _to_client(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
        _shut(client)


def _shut(end: socket.socket) -> None:
    """Close a socket that another thread may be reading: `close` alone would leave that thread waiting."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
