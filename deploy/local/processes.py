"""Start a process so that it outlives its starter, recognise it later, and end it and nobody else.

State owned: one record per process, `run/NAME.json` in the stack's home: its pid, the kernel's start time of
that pid and the boot it belongs to.

Invariants:
1. A signal is sent only to a process whose pid, start time and boot are those of a record, or that carries
   the home's path in its environment (TAG). A pid that the kernel has given to a stranger matches neither.
2. Every process leads a session of its own: Ctrl-C in the terminal of `make up` does not reach it.
3. A process on a leash dies with the process that started it, however that one ends.
"""

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.local.errors import StackError
from hotpath.scheduling import take_long_slices

TAG = "HOTPATH_LOCAL_HOME"
"""Environment variable by which the processes of a home, and the children they leave behind, are found."""

_LOG_KEPT_BYTES = 16 << 20  # a longer log becomes NAME.log.1 at the next start; older ones are dropped
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: the child must not load libraries


@dataclass(frozen=True)
class Identity:
    """What makes a process itself: pids are used again, (pid, start, boot) is not."""

    pid: int
    started_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Identity of the process that has this pid now; None when there is none, or only its zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command's name may hold spaces and brackets; the fields after its last ')' cannot.
        fields = stat[stat.rindex(b")") + 2 :].split()
        # While other threads of a killed process still end, its first one is a zombie already, and its files, the
        # port it listened on among them, are still open.
        if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:
            return None
        return cls(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())

    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still is the one recorded; nothing when it has gone."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Process:
    """One named process of a home: where its record and log are, and how it is started and stopped."""

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name
        self.record = home / "run" / f"{name}.json"
        self.log = home / "log" / f"{name}.log"

    def identity(self) -> Identity | None:
        """The running process, or None: no record, a torn one, or one of a process that has ended."""
        recorded = self._recorded()
        try:
            identity = Identity(recorded["pid"], recorded["started_ticks"], recorded["boot"])
        except KeyError:
            return None
        return identity if identity.alive() else None

    def started_as(self) -> str:
        """What `start` was told under this name; empty when there is no record."""
        return self._recorded().get("started_as", "")

    def start(
        self,
        arguments: list[str],
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        user: str | None = None,
        leash: signal.Signals | None = None,
        long_slices: bool = False,
        started_as: str = "",
    ) -> Identity:
        """Start it, its output appended to the log, and record it; `leash` is the signal it gets when we die.

        `long_slices`: for servers that every event goes through, see `hotpath.scheduling`. `started_as` is kept in the
        record: what a caller needs to know whether it runs with other settings.
        The caller's thread holds the leash: start leashed processes from a thread that lives as long as they.
        """
        _collect()
        for path in (self.record, self.log):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_KEPT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        starter = os.getpid()

        def prepare() -> None:
            # In the child, after its change of user (which would reset the leash) and before exec (which keeps both).
            if long_slices:
                take_long_slices()
            if leash:
                _put_on_leash(leash, starter)

        with open(self.log, "ab", opener=_private) as log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder or self.home,
                env={**(os.environ if environment is None else environment), TAG: str(self.home)},
                start_new_session=True,
                preexec_fn=prepare if leash or long_slices else None,
                **as_user(user),
            )
        identity = Identity.of(process.pid)
        if identity is None:  # it ended at once: its log says why
            process.wait()
            raise StackError(f"{self.name} ended as soon as it was started", log=self.log)
        write_private(self.record, json.dumps({"started_as": started_as, **asdict(identity)}))
        _children[process.pid] = process
        return identity

    def _recorded(self) -> dict[str, Any]:
        try:
            recorded = json.loads(self.record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return recorded if isinstance(recorded, dict) else {}

    def wait_until(self, ready: Callable[[], bool], what: str, deadline_s: float) -> None:
        """Return once `ready`; raises StackError when the process ends first or the deadline passes."""
        deadline = time.monotonic() + deadline_s
        while not ready():
            if self.identity() is None:
                raise StackError(f"{self.name} ended before {what}", log=self.log)
            if time.monotonic() > deadline:
                raise StackError(f"{self.name}: not {what} within {deadline_s:.0f} s", log=self.log)
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline_s: float = 10) -> bool:
        """End it by `number`, by SIGKILL once the deadline has passed; False when it was not running."""
        identity = self.identity()
        if identity is not None:
            end([identity], number, deadline_s)
        self.record.unlink(missing_ok=True)
        return identity is not None


def end(identities: list[Identity], number: signal.Signals, deadline_s: float) -> None:
    """Send `number` to all, SIGKILL to those left at the deadline, and return when all are gone."""
    for identity in identities:
        identity.send(number)
    if not _gone(identities, deadline_s):
        for identity in identities:
            identity.send(signal.SIGKILL)
        if not _gone(identities, 10):  # only a process stuck in the kernel survives SIGKILL so long
            left = ", ".join(str(identity.pid) for identity in identities if identity.alive())
            raise StackError(f"processes do not end, not even by SIGKILL: {left}")


def tagged(home: Path) -> Iterator[Identity]:
    """Running processes that carry this home in their environment, whoever started them.

    Finds what records cannot: children that a killed service left behind, and a process whose starter was
    killed before it could write the record. Processes of other users are unreadable, and none of ours.
    """
    wanted = f"{TAG}={home}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and (identity := Identity.of(int(entry))):
            yield identity


def as_user(user: str | None) -> dict[str, object]:
    """Arguments of subprocess.Popen that make a child run as `user`, with its group and no others."""
    return {"user": user, "group": user_group(user), "extra_groups": []} if user else {}


def user_group(user: str) -> int:
    """Main group of a user."""
    import pwd

    return pwd.getpwnam(user).pw_gid


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(draft, "w", opener=_private) as file:
        file.write(text)
    draft.replace(path)


_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes started by this very process: they stay zombies until it collects them."""


def _gone(identities: list[Identity], deadline_s: float) -> bool:
    deadline = time.monotonic() + deadline_s
    while True:
        _collect()
        if not any(identity.alive() for identity in identities):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _collect() -> None:
    """Take note of children that have ended: a zombie's number still looks alive, to Postgres's lock file, too."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _put_on_leash(number: signal.Signals, starter: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != starter:  # the starter died before the leash was on
        os._exit(1)
