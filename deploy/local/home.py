"""The home folder of one private stack, and what is chosen once for it: ports, passwords, names.

State owned: `stack.json` in the home (mode 0600). Everything else below the home belongs to the module that
writes it; the layout is

    stack.json   what was chosen        env     how clients reach the stack, for shells
    kafka.conf   the same for clients of librdkafka, such as kcat
    run/         records of processes   log/    their output
    postgres/ kafka/ redis/             data and configuration of the servers

Invariants: a choice, once made, stays until the home is removed, except a port that a stranger has taken
meanwhile. Folders other than the servers' data are entered, but not listed, by other users (mode 0711),
because Postgres may have to run as one.
"""

import fcntl
import json
import os
import random
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.local.errors import StackError
from deploy.local.processes import write_private

LOOPBACK = "127.0.0.1"
_PORTS = range(15_000, 32_000)
"""Where ports are drawn: below the range from which kernels number outgoing connections (32,768 on), so that
no connection sits on a port between its being chosen and the server's listening on it."""


class Home:
    """One stack's folder and its choices."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist: the folder is made by the first choice."""
        self.path = path.resolve()

    def port(self, name: str, preferred: int | None = None) -> int:
        """The port chosen for `name`: kept while free, else `preferred`, else any free one.

        Ask only while the server that is to listen on it is not running: its own port would look taken.
        """
        kept = self._choices().get("ports", {}).get(name)
        others = {port for key, port in self._choices().get("ports", {}).items() if key != name}
        drawn = (random.choice(_PORTS) for _ in range(200))
        for port in (kept, preferred, *drawn):
            if port is not None and port not in others and is_free(port):
                self._choose("ports", name, port)
                return port
        raise StackError(f"no free port on {LOOPBACK} for {name}; see which processes hold so many")

    def kept_port(self, name: str) -> int | None:
        """The port that `name` was given last, whether free or not."""
        return self._choices().get("ports", {}).get(name)

    def password(self, name: str) -> str:
        """The password of `name`: letters, digits, '-' and '_' only, so that it needs no quoting anywhere."""
        return self._once("passwords", name, lambda: secrets.token_urlsafe(24))

    def place(self, name: str) -> Path | None:
        """A folder outside the home that was recorded by `keep_place`, if any."""
        kept = self._choices().get("places", {}).get(name)
        return Path(kept) if kept else None

    def keep_place(self, name: str, path: Path) -> None:
        """Record a folder outside the home, so that `remove` removes it too."""
        self._choose("places", name, str(path))

    def note(self, name: str, make: Any) -> Any:
        """A value of any JSON type, made once."""
        return self._once("notes", name, make)

    def remove(self) -> None:
        """Remove the home and every place recorded in it."""
        for place in self._choices().get("places", {}).values():
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            raise StackError(f"cannot remove {self.path}: it holds files of another user; remove it as root")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home: only one `up`, `down` or `clean` works on it at a time. Waits for the other one."""
        self.make()
        with open(self.path / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def make(self) -> None:
        """Make the folder itself; nothing when it is there."""
        if not self.path.exists():
            self.path.mkdir(parents=True)
            self.path.chmod(0o711)

    def _choices(self) -> dict[str, dict[str, Any]]:
        try:
            return json.loads((self.path / "stack.json").read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise StackError(f"{self.path / 'stack.json'} is damaged: `make clean` starts afresh") from None

    def _choose(self, kind: str, name: str, value: Any) -> None:
        self.make()
        choices = self._choices()
        if choices.setdefault(kind, {}).get(name) != value:
            choices[kind][name] = value
            write_private(self.path / "stack.json", json.dumps(choices, indent=2) + "\n")

    def _once(self, kind: str, name: str, make: Any) -> Any:
        kept = self._choices().get(kind, {}).get(name)
        if kept is None:
            kept = make()
            self._choose(kind, name, kept)
        return kept


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        # As servers do it: connections of an earlier one, still closing, are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
