"""A case of messages, and the comparison of what the stages make of it with what the plain reference does.

`check` runs the messages through decode, validate, late, bots, payloads, tally and the COPY streams, cut into chunks
and blocks as the case says, with a new owner of the logs after some of the blocks, and asks the reference of each
message. Property tests, the fuzzer and the replay of what it found all go through it.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np

from hotpath.events import CLASS_COUNT, DETAIL_TEXTS, EventClass
from hotpath.reference import Outcome, Reference
from hotpath.settings import Rules
from hotpath.shm.block import Block
from hotpath.workers.copy_format import (
    CopyBuffer,
    bot_activity_rows,
    event_rows,
    quarantine_rows,
    seal_rows,
)
from tests.support.copy_streams import parse, parse_events
from tests.support.messages import LOG_COUNT
from tests.support.stages import Message, Row, StageRunner, rows_of

PAYLOAD_KEPT_BYTES = 1_024
NOT_KEPT = ("accepted", "late")
LOG_IDS = np.array([7, 70_000, 2_147_483_647])

Outcomes = dict[tuple[int, int], Outcome]


class Disagreement(AssertionError):
    """The stages and the reference differ; `kind` is the same for all cases that differ in the same way."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True)
class Case:
    """Messages of several logs, in the order of their consumption, and how they are cut."""

    messages: list[tuple[int, bytes | None, int]]
    """(log, value, append time in microseconds)."""
    chunk_cuts: list[int] = field(default_factory=list)
    """Numbers of messages before which a new chunk begins."""
    block_cuts: list[int] = field(default_factory=list)
    """Numbers of chunks before which a new block begins."""
    restarts: list[int] = field(default_factory=list)
    """Numbers of blocks before which another owner takes the logs over."""
    payload_rows_max: int = 1_000_000
    late_max_s: int = 300
    future_max_s: int = 60
    bot_page_views_max: int = 2

    def to_json(self) -> str:
        """As a file keeps it: values as Latin-1, so that every byte is one character."""
        fields = asdict(self) | {
            "messages": [
                [log, None if value is None else value.decode("latin-1"), append_time_us]
                for log, value, append_time_us in self.messages
            ]
        }
        return json.dumps(fields, indent=1, ensure_ascii=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Case":
        fields = json.loads(text)
        fields["messages"] = [
            (log, None if value is None else value.encode("latin-1"), append_time_us)
            for log, value, append_time_us in fields["messages"]
        ]
        return cls(**fields)

    @property
    def rules(self) -> Rules:
        return _rules(self.late_max_s, self.future_max_s, self.bot_page_views_max)


@lru_cache
def _rules(late_max_s: int, future_max_s: int, bot_page_views_max: int) -> Rules:
    """Making settings takes as long as classifying a chunk."""
    return Rules(late_max_s=late_max_s, future_max_s=future_max_s, bot_page_views_max=bot_page_views_max)


def cut(items: list, at: list[int]) -> list[list]:
    """`items` in pieces that begin at these places."""
    bounds = [0, *sorted({min(place, len(items)) for place in at}), len(items)]
    return [items[start:stop] for start, stop in pairwise(bounds)]


def numbered(messages: list[tuple[int, bytes | None, int]]) -> list[Message]:
    """Messages with rising offsets that have gaps, as those of a log with transactions have."""
    return [
        Message(log, 3 * number + log, value, append_time_us)
        for number, (log, value, append_time_us) in enumerate(messages)
    ]


def key(row: Row | Message) -> tuple[int, int]:
    return row.log, row.offset


def check(case: Case) -> Counter:
    """How many messages ended in each (class, detail). Raises Disagreement."""
    messages = numbered(case.messages)
    model = Reference(case.future_max_s, case.late_max_s, case.bot_page_views_max)
    outcomes = {key(m): model.classify(m.log, m.value, m.append_time_us) for m in messages}
    values = {key(m): m.value or b"" for m in messages}
    rows: list[Row] = []
    runner = StageRunner(LOG_COUNT, case.rules, case.payload_rows_max)
    for number, chunks in enumerate(cut(cut(messages, case.chunk_cuts), case.block_cuts)):
        if number in case.restarts:
            stored = [row for row in rows if row.event_class == "accepted"]
            runner = _new_owner(case, runner, stored)
        block = runner.block(chunks)
        found = rows_of(block)
        _check_rows(found, outcomes)
        _check_payloads(found, values, case.payload_rows_max)
        _check_tally(block, found)
        _check_streams(block, found, values)
        rows += found
    _agree("offsets", sorted(map(key, rows)), sorted(outcomes))
    expected = [model.logs[log].watermark_s if log in model.logs else 0 for log in range(LOG_COUNT)]
    _agree("watermarks", runner.watermarks.tolist(), expected)
    return Counter((row.event_class, row.detail) for row in rows)


def _agree(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Disagreement(what, f"found {found!r}, expected {expected!r}")


def _new_owner(case: Case, before: StageRunner, stored: list[Row]) -> StageRunner:
    """Who takes the logs over knows the watermarks, and asks for the page views that are stored."""

    def recall(log: int, seconds: list[int]) -> Iterator[tuple[int, list[str], list[int]]]:
        for second in seconds:
            users = Counter(
                row.texts[0].decode()
                for row in stored
                if row.log == log and row.time_us // 1_000_000 == second and row.texts[1] == b"page_view"
            )
            yield second, list(users), list(users.values())

    watermarks = before.watermarks.tolist()
    return StageRunner(LOG_COUNT, case.rules, case.payload_rows_max, watermarks, recall)


def _check_rows(rows: list[Row], outcomes: Outcomes) -> None:
    for row in rows:
        outcome = outcomes[key(row)]
        if row.event_class != outcome.event_class:
            kind = f"{outcome.event_class} was taken for {row.event_class}"
            raise Disagreement(kind, f"log {row.log}, offset {row.offset}: {row}")
        _agree("time", row.time_us, outcome.time_us)
        _agree("texts", row.texts, outcome.texts)
        _agree("detail", bool(row.detail), row.event_class not in NOT_KEPT)
        _agree("text of the detail", row.detail in DETAIL_TEXTS, True)


def _check_payloads(rows: list[Row], values: dict[tuple[int, int], bytes], rows_max: int) -> None:
    """The first so many of each class keep their raw bytes."""
    kept = Counter()
    for row in rows:
        expected = None
        if row.event_class not in NOT_KEPT and kept[row.event_class] < rows_max:
            kept[row.event_class] += 1
            expected = values[key(row)][:PAYLOAD_KEPT_BYTES]
        _agree("payload", row.payload, expected)


def _check_tally(block: Block, rows: list[Row]) -> None:
    for log in range(LOG_COUNT):
        classes = [EventClass[row.event_class.upper()] for row in rows if row.log == log]
        expected = np.bincount(classes, minlength=CLASS_COUNT).tolist() if classes else [0] * CLASS_COUNT
        _agree("counts", block.logs["counts"][log].tolist(), expected)
        _agree("received", int(block.logs["received"][log]), len(classes))


def _check_streams(block: Block, rows: list[Row], values: dict[tuple[int, int], bytes]) -> None:
    """What is sent to Postgres says what the rows say."""
    block.logs["log_id"] = LOG_IDS
    seal_rows(block, slice(0, block.rows))
    by_log = sorted(rows, key=lambda row: row.log)
    for name in NOT_KEPT:
        expected = [
            (int(LOG_IDS[row.log]), row.offset, row.time_us, *(text.decode() for text in row.texts))
            for row in by_log
            if row.event_class == name
        ]
        stream = event_rows(block, EventClass[name.upper()], CopyBuffer(16))
        _agree(f"COPY of {name}", parse_events(stream), expected)
    expected = [
        (int(LOG_IDS[row.log]), row.offset, row.event_class, row.payload, len(values[key(row)]))
        for row in by_log
        if row.payload is not None
    ]
    found = [
        (int.from_bytes(log_id), int.from_bytes(offset), label.decode(), payload, int.from_bytes(size))
        for log_id, offset, label, _, payload, size in parse(quarantine_rows(block))
    ]
    _agree("COPY of quarantine", found, expected)
    dropped = Counter(
        (int(LOG_IDS[row.log]), row.texts[0].decode(), row.time_us // 1_000_000)
        for row in rows
        if row.event_class == "bot"
    )
    activity = bot_activity_rows(block)
    found = {}
    if activity is not None:
        columns = (activity.log_ids, activity.user_ids, activity.seconds, activity.dropped)
        found = {tuple(names): count for *names, count in zip(*columns, strict=True)}
    _agree("bot activity", found, dict(dropped))
