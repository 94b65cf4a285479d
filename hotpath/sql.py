"""The named queries and the schema: every line of SQL lives in the folder `sql`, none in Python.

A query begins with a line `-- name: take_over`; the comment lines after it say what it is for. Parameters are
psycopg's, `%(name)s`.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

SQL_DIR = Path(__file__).resolve().parent.parent / "sql"

_NAME_LINE = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Migration:
    """One step of the schema: `text` is what is executed, `checksum` its SHA-256."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def parse_queries(text: str) -> dict[str, str]:
    """Query texts by name. Raises ValueError when a name occurs twice."""
    parts = _NAME_LINE.split(text)[1:]
    names = parts[::2]
    if len(set(names)) < len(names):
        raise ValueError(f"a name occurs twice among {sorted(names)}")
    return {name: body.strip() for name, body in zip(names, parts[1::2], strict=True)}


def migrations() -> list[Migration]:
    """All migrations, in the order in which they are applied; version n is the n-th file."""
    found = []
    for path in sorted((SQL_DIR / "migrations").glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, path.read_text()))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations are not numbered 1, 2, 3, ...")
    return found


QUERIES = parse_queries((SQL_DIR / "queries.sql").read_text())
"""The texts of sql/queries.sql by name."""
