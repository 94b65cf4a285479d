"""The read API as a process, and listeners of its stream."""

import http.client
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

from tests.support.pipeline import ROOT, free_port

HERE = "http://127.0.0.1"
"""Where in-process clients pretend to ask: without a token the API answers to loopback's names only."""


@dataclass(frozen=True)
class StreamEvent:
    id: int
    name: str
    data: dict


class Listener:
    """An open stream; events are read one at a time."""

    def __init__(
        self, port: int, path: str = "/api/v1/stream", receive_bytes: int = 0, **headers: str
    ) -> None:
        self._socket = socket.socket()
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(15)
        self._socket.connect(("127.0.0.1", port))
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in headers.items())]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.reply = http.client.HTTPResponse(self._socket)
        self.reply.begin()

    def next(self) -> StreamEvent | None:
        """The next event; None at the stream's clean end. Raises when it is cut off."""
        fields: dict[str, str] = {}
        while line := self.reply.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and "data" in fields:
                return StreamEvent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            if line == "\n":
                fields = {}
            elif name:
                fields[name] = value
        return None

    def until(self, name: str) -> StreamEvent:
        """The next event of that name."""
        while (event := self.next()) is not None:
            if event.name == name:
                return event
        raise AssertionError(f"the stream ended without an event {name}")

    def close(self) -> None:
        self.reply.close()
        self._socket.close()


class Api:
    """`python -m api` on a port of its own, with HOTPATH_* settings by name."""

    def __init__(self, redis_url: str, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        given = {"redis_url": redis_url, "api_port": self.port, **settings}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOTPATH_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api"],
            env=clean | {f"HOTPATH_{name.upper()}": str(value) for name, value in given.items()},
            cwd=ROOT,
        )

    def get(self, path: str, **headers: str) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def alive(self) -> bool:
        assert self.process.poll() is None
        try:
            return self.get("/healthz")[0] == 200
        except ConnectionError:
            return False

    def listen(self, **headers: str) -> Listener:
        return Listener(self.port, **headers)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
