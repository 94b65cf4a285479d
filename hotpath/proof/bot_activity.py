"""Compares `bot_activity` with the bots of the log.

A (user, second) gets no more bots once the second is over `late_max_s` behind the watermark; from then on it is
compared and forgotten, so that memory holds the bots of the last minutes only. Both sides are in the order of
seconds and users.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hotpath.events import EventClass
from hotpath.proof.findings import Findings, shown
from hotpath.shm.block import Block

_USER_ID = 0  # index into TEXT_FIELDS

Entry = tuple[int, bytes, int]
"""second, user_id, dropped page views."""


class BotActivityRows:
    """The table's rows of several logs, handed out log by log; logs are asked for in the order of the rows."""

    def __init__(self, rows: Iterator[tuple]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def of(self, log_id: int) -> Iterator[Entry]:
        while self._next is not None and self._next[0] < log_id:
            self._next = next(self._rows, None)
        while self._next is not None and self._next[0] == log_id:
            _, second, user_id, dropped = self._next
            self._next = next(self._rows, None)
            yield second, user_id.encode(), dropped


@dataclass(frozen=True)
class Bounds:
    """Seconds that can be compared: those above `after_s`, as some of the others' bots may not have been read; those
    below `expired_s` may have been removed by retention."""

    after_s: int
    expired_s: int


class BotActivityCheck:
    """The bots of one log. State: what was counted of seconds that may still get more, by second and user."""

    def __init__(self, partition: int, rows: Iterator[Entry], bounds: Bounds, findings: Findings) -> None:
        self._partition = partition
        self._rows = rows
        self._bounds = bounds
        self._findings = findings
        self._counted: dict[int, Counter[bytes]] = {}
        self._next = self._read()

    def add(self, block: Block) -> None:
        """Count the bots of a block of this log."""
        rows = np.flatnonzero(block.classes[: block.rows] == EventClass.BOT)
        for row, second in zip(rows.tolist(), (block.times_us[rows] // 1_000_000).tolist(), strict=True):
            if second > self._bounds.after_s:
                self._counted.setdefault(second, Counter())[block.text(_USER_ID, row)] += 1

    def settle(self, before_s: int | None) -> None:
        """Compare and forget the seconds before `before_s` (None: all), which get no more bots."""
        seconds = sorted(second for second in self._counted if before_s is None or second < before_s)
        for second in seconds:
            for user, dropped in sorted(self._counted.pop(second).items()):
                self._findings.check("bot_activity")
                self._take((second, user, dropped))
        while self._next is not None and (before_s is None or self._next[0] < before_s):
            self._unexpected()

    def _take(self, wanted: Entry) -> None:
        while self._next is not None and self._next[:2] < wanted[:2]:
            self._unexpected()
        if self._next is None or self._next[:2] != wanted[:2]:
            if wanted[0] >= self._bounds.expired_s:
                self._differ(wanted, wanted[2], "no row")
            return
        if self._next[2] != wanted[2]:
            self._differ(wanted, wanted[2], self._next[2])
        self._next = self._read()

    def _unexpected(self) -> None:
        self._differ(self._next, "no row", self._next[2])
        self._next = self._read()

    def _read(self) -> Entry | None:
        return next((row for row in self._rows if row[0] > self._bounds.after_s), None)

    def _differ(self, where: Entry, expected: object, found: object) -> None:
        field = f"dropped of user {shown(where[1])} in second {where[0]}"
        self._findings.differ("bot_activity", self._partition, None, field, expected, found)
