"""What is to be proven: which logs, from which offset to which, under which rules; and what cannot be.

The logs are those of the topic's present incarnation. Postgres's snapshot says how far each is to be read; Kafka
says from where on it can be.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from hotpath.errors import ConfigError
from hotpath.kafka import Topic
from hotpath.proof.findings import Findings
from hotpath.proof.messages import LogReader
from hotpath.proof.snapshot import Snapshot
from hotpath.settings import Rules

FIRST, BEYOND = 0, 1 << 62
"""Before and after every offset there is."""


@dataclass(frozen=True)
class LogPlan:
    """One log, to be read at offsets [first_offset, next_offset).

    watermark_s: the log's before the first of them. from_beginning, to_end: whether that is all of it.
    rules: (offset, the rules from there on), the first at or before first_offset.
    """

    log_id: int
    partition: int
    first_offset: int
    next_offset: int
    watermark_s: int
    from_beginning: bool
    to_end: bool
    rules: list[tuple[int, Rules]]
    stored_next_offset: int
    stored_watermark_s: int
    kafka_end: int


def parse_partitions(text: str, partitions: int) -> list[int]:
    """Numbers and ranges like `0,4-7`; all when there are none. Raises ConfigError."""
    wanted: set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ConfigError(f"--partitions: {part!r} is neither a number nor a range like 4-7")
        wanted |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    if beyond := sorted(number for number in wanted if number >= partitions):
        raise ConfigError(f"--partitions: the topic has no partition {beyond[0]}, only 0 to {partitions - 1}")
    return sorted(wanted) or list(range(partitions))


def parse_bound(flag: str, text: str) -> int | datetime | None:
    """An offset, a time (RFC 3339), or None for none. Raises ConfigError."""
    if not text:
        return None
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{flag}: {text!r} is neither an offset nor a time like 2026-03-15T14:30:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Bounds:
    """Where the user wants the proof to begin and to end."""

    begin: int | datetime | None = None
    end: int | datetime | None = None


class Planner:
    """Makes the plans of a proof."""

    def __init__(
        self, snapshot: Snapshot, reader: LogReader, topic: Topic, settings: Rules, findings: Findings
    ) -> None:
        self._snapshot = snapshot
        self._reader = reader
        self._topic = topic
        self._settings = settings
        self._findings = findings

    def plans(
        self, partitions: list[int], bounds: Bounds, kafka: dict[int, tuple[int, int]]
    ) -> list[LogPlan]:
        """By log_id. `kafka`: per partition its first offset and the one after its last. Raises ConfigError."""
        rows = self._snapshot.query("proof_logs")
        own = [row for row in rows if row[1:3] == (self._topic.name, self._topic.topic_id)]
        self._note_others(rows, own)
        chosen = [row for row in own if row[3] in partitions]
        missing = sorted(set(partitions) - {row[3] for row in chosen})
        if not chosen:
            raise ConfigError(
                f"Postgres has no log of topic {self._topic.name!r} as it is in Kafka (id {self._topic.topic_id}), "
                f"partitions {_numbers(missing)}; has a worker run, and do HOTPATH_KAFKA_BOOTSTRAP and "
                "HOTPATH_POSTGRES_DSN belong together?"
            )
        if missing:
            self._findings.note(
                f"partitions {_numbers(missing)} have no log in Postgres: no worker has read them"
            )
        begins = self._offsets(bounds.begin, partitions)
        ends = self._offsets(bounds.end, partitions)
        changes = self._changes([row[0] for row in chosen])
        return [
            self._plan(row, kafka[row[3]], begins.get(row[3]), ends.get(row[3]), changes.get(row[0], []))
            for row in chosen
        ]

    def _plan(
        self,
        row: tuple,
        kafka: tuple[int, int],
        begin: int | None,
        end: int | None,
        changes: list[tuple[int, Rules]],
    ) -> LogPlan:
        log_id, _, _, partition, next_offset, watermark_s, _, owner_rules, ledger_first = row
        low, high = kafka
        started = next_offset if ledger_first is None else ledger_first
        first = max(low, begin or 0)
        last = min(next_offset, BEYOND if end is None else end)
        if low > started:
            self._findings.note(
                f"partition {partition}: offsets {started:,} to {low - 1:,} are no longer in Kafka and not proven"
            )
        first, last = min(first, next_offset), max(last, min(first, next_offset))
        from_beginning = first <= started
        before_s = 0
        if not from_beginning:
            before_s = self._snapshot.query("proof_watermark", log_id=log_id, below=first)[0][0]
        if next_offset > high:
            self._findings.differ(
                "partition_state",
                partition,
                None,
                "next_offset",
                f"at most {high}, where Kafka ends",
                next_offset,
            )
        return LogPlan(
            log_id,
            partition,
            first,
            last,
            before_s,
            from_beginning,
            last == next_offset,
            changes or [(FIRST, self._rules(owner_rules))],
            next_offset,
            watermark_s,
            high,
        )

    def _offsets(self, bound: int | datetime | None, partitions: list[int]) -> dict[int, int]:
        if bound is None:
            return {}
        if isinstance(bound, int):
            return dict.fromkeys(partitions, bound)
        found = self._reader.offsets_at(partitions, int(bound.timestamp() * 1_000_000))
        return {partition: found.get(partition, BEYOND) for partition in partitions}

    def _changes(self, log_ids: list[int]) -> dict[int, list[tuple[int, Rules]]]:
        """Per log the offsets from which on other rules decided."""
        changes: dict[int, list[tuple[int, Rules]]] = {}
        for log_id, first_offset, stored in self._snapshot.query("proof_rules", log_ids=log_ids):
            of_log = changes.setdefault(log_id, [])
            rules = self._rules(stored)
            if not of_log:
                of_log.append((FIRST, rules))
            elif _deciding(of_log[-1][1]) != _deciding(rules):
                of_log.append((first_offset, rules))
        return changes

    def _rules(self, stored: dict[str, int | str]) -> Rules:
        """A stored set of rules; what it does not name is as it is set now."""
        return Rules.model_construct(**(self._settings.rules() | stored))

    def _note_others(self, rows: list[tuple], own: list[tuple]) -> None:
        same_topic = [row for row in rows if row[1] == self._topic.name and row not in own]
        other_topics = sorted({row[1] for row in rows if row[1] != self._topic.name})
        if same_topic:
            self._findings.note(
                f"{len(same_topic)} logs of earlier incarnations of the topic (log_id "
                f"{_numbers([row[0] for row in same_topic])}) are in Postgres; Kafka has them no more, so they are "
                "not proven"
            )
        if other_topics:
            self._findings.note(
                f"Postgres also has logs of the topics {', '.join(other_topics)}: not looked at"
            )


def _deciding(rules: Rules) -> tuple[int | str, ...]:
    """The rules that decide classes."""
    return rules.future_max_s, rules.late_max_s, rules.bot_page_views_max, rules.bot_counters


def _numbers(numbers: list[int]) -> str:
    text = ", ".join(map(str, numbers[:10]))
    return f"{text} ..." if len(numbers) > 10 else text
