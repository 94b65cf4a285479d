"""The corpus: cases on which stages and reference once differed, minimal, one file each, replayed by `make test`.

A file's name says in which way they differed. Files stay when the fault is gone: that is what they are for.
"""

import re
from hashlib import sha256
from pathlib import Path

from tests.support.agreement import Case

FOLDER = Path(__file__).parent / "corpus"


def paths() -> list[Path]:
    """The files of the corpus."""
    return sorted(FOLDER.glob("*.json"))


def load(path: Path) -> Case:
    """The case in a file. Raises ValueError or TypeError when it holds none."""
    return Case.from_json(path.read_text())


def keep(case: Case, kind: str) -> Path:
    """Add a case that shows a difference of this kind; the same case again is the same file."""
    text = case.to_json()
    name = re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_")[:60]
    path = FOLDER / f"{name}_{sha256(text.encode()).hexdigest()[:8]}.json"
    path.write_text(text)
    return path
