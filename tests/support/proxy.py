"""A TCP proxy in front of a server that breaks connections at a chosen message of the client's, or is slow.

`TcpProxy` stands in front of any server, `BreakingProxy` in front of the Postgres of a DSN.
"""

import socket
import threading
import time
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


class TcpProxy:
    """Forwards connections from `host`:`port` to a server, which may be away for a while. Close it at the end."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._plan: tuple[bytes, Break, int] | None = None
        self.broken = 0
        self.reply_delay_s = 0.0
        """How long every piece of a reply is held back."""
        threading.Thread(target=self._accept, daemon=True).start()

    def break_at(self, pattern: bytes, how: Break, times: int = 1) -> None:
        """Break the next `times` connections at the first bytes that hold `pattern`."""
        self._plan = (pattern, how, times)

    def stop_breaking(self) -> None:
        """Forget what was still to be broken."""
        with self._lock:
            self._plan = None

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            _shut(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server, timeout=5)
                    server.settimeout(None)
                except OSError:
                    _shut(client)
                    continue
                self._sockets |= {client, server}
                for pump, ends in ((self._to_server, (client, server)), (self._to_client, (server, client))):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                how = self._breaks(data)
                if how is None:
                    server.sendall(data)
                    continue
                self._end(client)
                if how is Break.REPLY_LOST:
                    server.sendall(data)
                    return
                if how is Break.SERVER_UNAWARE:
                    return
                break
        self._end(server)

    def _breaks(self, data: bytes) -> Break | None:
        with self._lock:
            if self._plan is None or self._plan[0] not in data:
                return None
            pattern, how, times = self._plan
            self._plan = (pattern, how, times - 1) if times > 1 else None
            self.broken += 1
            return how

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if self.reply_delay_s:
                    time.sleep(self.reply_delay_s)
                client.sendall(data)
        self._end(client)
        self._end(server)

    def _end(self, side: socket.socket) -> None:
        _shut(side)
        self._sockets.discard(side)


class BreakingProxy(TcpProxy):
    """Forwards connections to the Postgres of `dsn`; `self.dsn` leads through it."""

    def __init__(self, dsn: str) -> None:
        info = psycopg.conninfo.conninfo_to_dict(dsn)
        super().__init__((str(info["host"]), int(info["port"])))
        self.dsn = psycopg.conninfo.make_conninfo(dsn, host=self.host, port=self.port)


def _shut(end: socket.socket) -> None:
    """Close a socket that another thread may be reading: `close` alone would leave that thread waiting."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
