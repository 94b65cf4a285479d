"""Where each peer's packages are: an environment of its own, made once per machine and user, in the cache folder.

State owned: `peer-NAME-HASH/` in the folder where deploy/local keeps the broker's jars, HASH being that of the file
which pins the versions. A folder appears under that name only when it is whole, and never changes afterwards.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from deploy.local import jars
from deploy.local.errors import StackError

HERE = Path(__file__).parent


def virtual_environment(name: str) -> Path:
    """The python of the environment of requirements/NAME.txt. Raises StackError when pip cannot make it."""
    pins = HERE / "requirements" / f"{name}.txt"

    def make(draft: Path) -> None:
        _run([sys.executable, "-m", "venv", str(draft)], draft)
        pip = [str(draft / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--requirement", str(pins)], draft)

    # An environment knows its own path: it is made where it stays.
    return _made_once(name, pins, make, in_place=True) / "bin/python"


def jar_folder(name: str) -> Path:
    """The jars of maven/NAME.xml and of all they need. Raises StackError when Maven cannot fetch them."""
    pom = HERE / "maven" / f"{name}.xml"

    def make(draft: Path) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise StackError("mvn not found: install Maven (package maven)")
        _run(
            [
                *(maven, "--batch-mode", "--strict-checksums", "--file", str(pom)),
                *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={draft}"),
            ],
            draft,
        )

    return _made_once(f"{name}-jars", pom, make)


def _made_once(name: str, pins: Path, make: Callable[[Path], None], in_place: bool = False) -> Path:
    digest = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = jars.cache_folder()
    folder, done = cache / f"peer-{name}-{digest}", cache / f"peer-{name}-{digest}.done"
    with open(cache / f"peer-{name}-{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        if in_place:
            make(folder)
        else:
            with tempfile.TemporaryDirectory(prefix="peer-draft-", dir=cache) as draft:
                made = Path(draft, "made")
                made.mkdir()
                make(made)
                made.rename(folder)
        done.touch()
    return folder


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise StackError(f"{Path(command[0]).name} could not make {folder.name}:\n{lines}")
