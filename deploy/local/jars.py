"""The broker's jars: fetched once per machine and user by Maven, then kept in the cache folder.

State owned: `${XDG_CACHE_HOME:-~/.cache}/hotpath/kafka-HASH/`, HASH being that of pom.xml, which pins the
versions. The folder appears under that name only when it is whole, and never changes afterwards; callers at
the same time wait for the first one (a lock file beside it).
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.local.errors import StackError

_POM = Path(__file__).with_name("pom.xml")
_JAVA_MIN = 17  # what Kafka 4 brokers are compiled for


def java() -> str:
    """Path of a java that is new enough."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found is None:
        raise StackError(
            f"java not found: install a Java runtime, {_JAVA_MIN} or newer (openjdk-17-jre-headless)"
        )
    told = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', told)
    if version is None or int(version.group(1)) < _JAVA_MIN:
        told = told.splitlines()[0] if told else "it does not run"
        raise StackError(f"{found} is too old ({told}): install Java {_JAVA_MIN} or newer")
    return found


def folder() -> Path:
    """The folder of the jars, fetched if need be. Raises StackError when Maven cannot fetch them."""
    digest = hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    cache = cache_folder()
    jars = cache / f"kafka-{digest}"
    if jars.exists():
        return jars
    with open(cache / f"kafka-{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            with tempfile.TemporaryDirectory(prefix="kafka-draft-", dir=cache) as draft:
                _fetch(Path(draft))
                Path(draft, "jars").rename(jars)
    return jars


def cache_folder() -> Path:
    """Where this project keeps what it has fetched; made if need be, below /tmp for users without a home."""
    named = os.environ.get("XDG_CACHE_HOME")
    for base in (Path(named) if named else None, Path.home() / ".cache"):
        if base is not None and base.is_absolute():
            try:
                (base / "hotpath").mkdir(parents=True, exist_ok=True)
                return base / "hotpath"
            except OSError:
                continue
    fallback = Path(tempfile.gettempdir(), f"hotpath-cache-{os.getuid()}")
    fallback.mkdir(mode=0o700, exist_ok=True)
    if fallback.lstat().st_uid != os.getuid() or fallback.is_symlink():
        raise StackError(f"{fallback} belongs to somebody else: set XDG_CACHE_HOME to a folder of yours")
    return fallback


def _fetch(draft: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError("mvn not found: install Maven (package maven), which fetches the Kafka broker once")
    repository = Path.home() / ".m2"
    log = draft / "maven.log"
    with open(log, "w") as output:
        done = subprocess.run(
            [
                # Quiet, never asking, and a jar whose checksum is wrong is an error.
                *(maven, "--batch-mode", "--strict-checksums", "--file", _POM),
                *(
                    "dependency:copy-dependencies",
                    "-DincludeScope=runtime",
                    f"-DoutputDirectory={draft}/jars",
                ),
                # Maven's own cache is used where there can be one: it may hold the jars already.
                *(() if _can_be_made(repository) else (f"-Dmaven.repo.local={draft}/repository",)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=draft,
        )
    if done.returncode or not list(draft.glob("jars/kafka_*.jar")):
        raise StackError("Maven could not fetch the Kafka broker: is there a network?", log=log)


def _can_be_made(folder: Path) -> bool:
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)
