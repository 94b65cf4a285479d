"""The way from a machine to one server, which can be cut and mended: a TCP proxy that is silent while it is cut.

As with a cable, nobody is told: connections stay open and new ones are taken, but nothing arrives until it is mended.
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 1 << 16


class Link:
    """Forwards connections to `server` (host, port); `address` is its own end. Close it at the end."""

    def __init__(self, server: tuple[str, int], host: str = "127.0.0.1", *, kafka: bool = False) -> None:
        """`host`: where to listen. `kafka`: what the broker says of its address becomes this end's, in every answer.

        Without that a client would be told the broker's own address, and go around. `host` must be as long as the
        server's, so that answers keep their length.
        """
        self._server = server
        self._listener = socket.create_server((host, 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._theirs, self._ours = _on_the_wire(*server), _on_the_wire(*self.address)
        assert not kafka or len(self._theirs) == len(self._ours)
        self._kafka = kafka
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._whole.set()
        for each in (self._listener, *self._sockets):
            _shut(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._whole.wait()
        try:
            server = socket.create_connection(self._server)
        except OSError:
            _shut(client)
            return
        self._sockets.append(server)
        answers = self._answers if self._kafka else _chunks
        threading.Thread(target=self._pump, args=(client, server, _chunks), daemon=True).start()
        self._pump(server, client, answers)

    def _pump(self, source: socket.socket, target: socket.socket, read: Callable) -> None:
        with suppress(OSError):
            for data in read(source):
                self._whole.wait()
                target.sendall(data)
        self._whole.wait()
        _shut(source)
        _shut(target)

    def _answers(self, source: socket.socket):
        """Kafka's answers, one by one: each begins with its length in four bytes."""
        while (head := _exactly(source, 4)) is not None:
            body = _exactly(source, struct.unpack(">i", head)[0])
            if body is None:
                return
            yield head + body.replace(self._theirs, self._ours)


def _on_the_wire(host: str, port: int) -> bytes:
    """A broker's address as it stands in Kafka's answers, less the length of the host."""
    return host.encode() + struct.pack(">i", port)


def _chunks(source: socket.socket):
    while data := source.recv(_CHUNK):
        yield data


def _exactly(source: socket.socket, count: int) -> bytes | None:
    parts = []
    while count:
        data = source.recv(min(count, _CHUNK))
        if not data:
            return None
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def _shut(end: socket.socket) -> None:
    """Close a socket that another thread may be reading: `close` alone would leave that thread waiting."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
