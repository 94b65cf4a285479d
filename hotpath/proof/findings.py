"""What a proof finds: how much it has looked at, where something differs, and what could not be proven.

The first differences are kept with their places, the rest is counted: a table that is off by one row in the
beginning must not fill the memory.
"""

from collections import Counter
from dataclasses import asdict, dataclass

SHOWN_MAX = 20
TEXT_MAX = 200
"""Characters of a value that are shown."""

GONE = (
    "the topic is compacted: rows whose messages Kafka has removed are not proven, and which events were late or bots "
    "may depend on them"
)


@dataclass(frozen=True)
class Difference:
    """One place where what is stored is not what the log says.

    what: a table, `views`, `stages` (the pipeline's own code against the plain reference) or `log`. partition and
    offset: where, as far as it is one place. The values are for people.
    """

    what: str
    partition: int | None
    offset: int | None
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        places = {"partition": self.partition, "offset": self.offset}
        where = ", ".join(f"{name} {place}" for name, place in places.items() if place is not None)
        what = f"{self.what}.{self.field}" if self.field else self.what
        return f"{where + ': ' if where else ''}{what}: expected {self.expected}, found {self.found}"


class Findings:
    """Collected by every part of a proof."""

    def __init__(self, shown_max: int = SHOWN_MAX) -> None:
        self._shown_max = shown_max
        self.first: list[Difference] = []
        """The first differences, at most `shown_max`."""
        self.counts: Counter[str] = Counter()
        """Differences by `Difference.what`."""
        self.checked: Counter[str] = Counter()
        """Things that were compared, by the same names."""
        self._notes: dict[str, None] = {}

    @property
    def proven(self) -> bool:
        return not self.counts

    @property
    def notes(self) -> list[str]:
        """What was not proven and why, in sentences."""
        return list(self._notes)

    def differ(
        self,
        what: str,
        partition: int | None,
        offset: int | None,
        field: str,
        expected: object,
        found: object,
    ) -> None:
        self.counts[what] += 1
        if len(self.first) < self._shown_max:
            self.first.append(
                Difference(what, partition, offset, field, _short(str(expected)), _short(str(found)))
            )

    def check(self, what: str, count: int = 1) -> None:
        self.checked[what] += count

    def note(self, sentence: str) -> None:
        """Something that could not be proven; said once, however often it is found."""
        self._notes[sentence] = None

    def as_json(self) -> dict[str, object]:
        return {
            "proven": self.proven,
            "checked": dict(self.checked),
            "difference_counts": dict(self.counts),
            "differences": [asdict(difference) for difference in self.first],
            "notes": self.notes,
        }


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def shown(value: bytes) -> str:
    """Bytes as a person may read them, in quotes."""
    return repr(value.decode("utf-8", "backslashreplace"))
