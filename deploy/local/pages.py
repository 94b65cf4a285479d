"""The built pages, `dashboard/dist`: made by npm where the sources have changed since the last time.

State owned: `dashboard/node_modules`, `dashboard/dist`, and in each of them a file `.made-from` with the digest of what
it was made from. Callers at the same time wait for the first one.
"""

import fcntl
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.services import REPOSITORY

FOLDER = REPOSITORY / "dashboard"
_NODE_MIN = (20, 19)  # what Vite runs on; of 22, 22.12
_NOT_SOURCES = {"node_modules", "dist"}
_PACKAGES = ("package.json", "package-lock.json", ".npmrc")
_LINES_SHOWN = 20


class PagesMissing(StackError):
    """The pages cannot be built here; everything else works without them."""


def built(folder: Path = FOLDER) -> bool:
    """Whether the pages are those of the sources."""
    return _is_made(folder / "dist", _digest(_sources(folder)))


def build(folder: Path = FOLDER) -> None:
    """Build what is not built. Raises PagesMissing, with what to install, and StackError when npm fails."""
    if built(folder):
        return
    npm = _npm()
    with open(folder / "package.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages = _digest(folder / name for name in _PACKAGES)
        if not _is_made(folder / "node_modules", packages):
            _run(
                folder,
                npm,
                "ci",
                "--no-audit",
                "--no-fund",
                failure="npm could not fetch the dashboard's packages",
            )
            (folder / "node_modules" / ".made-from").write_text(packages)
        sources = _digest(_sources(folder))
        if not _is_made(folder / "dist", sources):
            _run(folder, npm, "run", "build", failure="the dashboard could not be built")
            (folder / "dist" / ".made-from").write_text(sources)


def _npm() -> str:
    node, npm = shutil.which("node"), shutil.which("npm")
    wanted = f"install Node.js {_NODE_MIN[0]}.{_NODE_MIN[1]} or newer, with npm"
    if node is None or npm is None:
        missing = "node" if node is None else "npm"
        raise PagesMissing(
            f"{missing} not found: {wanted}; the pages are built by it, all else works without them"
        )
    told = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
    version = re.match(r"v(\d+)\.(\d+)", told)
    if version is None or (int(version[1]), int(version[2])) < _NODE_MIN:
        raise PagesMissing(f"node is too old ({told or node}): {wanted}; all else works without it")
    return npm


def _run(folder: Path, *command: str, failure: str) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()[-_LINES_SHOWN:]
        raise StackError("\n".join([f"{failure}; npm says:", *said]))


def _sources(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name not in _NOT_SOURCES:
            yield from [entry] if entry.is_file() else sorted(p for p in entry.rglob("*") if p.is_file())


def _digest(paths: Iterable[Path]) -> str:
    digest = sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _is_made(folder: Path, digest: str) -> bool:
    made = folder / ".made-from"
    return made.is_file() and made.read_text() == digest
