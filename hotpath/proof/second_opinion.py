"""Holds the vectorised stages against the plain reference, message by message.

All messages cannot be judged so slowly. Every message that did not become an event of the live views is, and with it
all messages of one user in a hundred, chosen by a seed: of whole users, because only then their bots can be counted
again. What the reference has to know of a log, its watermark before each message, is a running maximum.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hotpath.events import PAGE_VIEW, EventClass
from hotpath.proof.findings import Findings
from hotpath.reference import Log, Outcome, Reference
from hotpath.settings import Rules
from hotpath.shm.block import Block

SHARE = 0.01
"""Of users whose messages are all judged again; 1 % costs about 0.3 µs a message."""
FORGET_EVERY = 200
"""Chunks between two looks at what the reference may forget."""

_LABELS = {int(c): c.label for c in EventClass}
_USER_ID = 0  # index into TEXT_FIELDS
_WINDOW = 8
"""Last bytes of a user_id that choose a user."""


class SecondOpinion:
    """The reference beside one log. `full`: judge every message."""

    def __init__(
        self, partition: int, rules: Rules, watermark_s: int, seed: int, full: bool, findings: Findings
    ) -> None:
        self._partition = partition
        self._reference = Reference(rules.future_max_s, rules.late_max_s, rules.bot_page_views_max)
        self._log = Log(watermark_s)
        self._full = full
        self._findings = findings
        self._multiplier = np.uint64(np.random.default_rng(seed).integers(1 << 63, dtype=np.uint64) * 2 + 1)
        self._chunks = 0

    def known(self, user_counts: dict[tuple[bytes, int], int]) -> None:
        """Accepted page views by (user_id, second) that lie before the first message."""
        self._log.page_views.update(user_counts)

    def check(
        self, block: Block, values: Sequence[bytes | None], append_times_us: np.ndarray, watermark_s: int
    ) -> None:
        """Judge messages of a block again. `watermark_s`: the log's before the first of them."""
        before = _watermarks_before(block, watermark_s)
        chosen = self._chosen(block)
        classes = block.classes[: block.rows]
        judged = chosen | (classes != EventClass.ACCEPTED)
        for row in np.flatnonzero(judged).tolist():
            outcome = self._reference.judge(values[row], int(append_times_us[row]))
            if outcome.event_class == "accepted":
                outcome = self._place(outcome, bool(chosen[row]), int(before[row]), int(classes[row]))
            self._compare(block, row, outcome)
        self._findings.check("stages", int(judged.sum()))
        self._chunks += 1
        if self._chunks % FORGET_EVERY == 0:
            self._log.forget(self._reference.late_max_s)

    def _place(self, event: Outcome, counted: bool, watermark_s: int, event_class: int) -> Outcome:
        if self._full:
            return self._reference.place(self._log, event)
        if counted:
            self._log.watermark_s = watermark_s
            return self._reference.place(self._log, event)
        placed = self._reference.place(Log(watermark_s), event)
        # Who is not counted can be a bot or not: that it is an event in time, and a page view, is all there is to see.
        page_view = event.texts[1] == PAGE_VIEW.encode()
        if event_class == EventClass.BOT and placed.event_class == "accepted" and page_view:
            return replace(placed, event_class="bot")
        return placed

    def _chosen(self, block: Block) -> np.ndarray:
        """Rows of the chosen users: bool. Rows that are no events are not chosen, they are judged anyway."""
        count = block.rows
        if self._full:
            return np.ones(count, np.bool_)
        rows = np.flatnonzero(block.row_starts[:count] >= 0)
        ends = block.text_starts(_USER_ID, rows) + block.lengths[_USER_ID, rows]
        windows = np.lib.stride_tricks.sliding_window_view(block.arena, _WINDOW)[ends - _WINDOW]
        words = np.ascontiguousarray(windows).view("<u8")[:, 0]
        # What stands before a shorter user_id is not its own; the last byte is the highest one.
        foreign_bits = 8 * np.maximum(_WINDOW - block.lengths[_USER_ID, rows], 0).astype(np.uint64)
        words = words >> foreign_bits << foreign_bits
        chosen = np.zeros(count, np.bool_)
        chosen[rows] = (words * self._multiplier) >> np.uint64(32) < np.uint64(SHARE * 2**32)
        return chosen

    def _compare(self, block: Block, row: int, outcome: Outcome) -> None:
        label = _LABELS[int(block.classes[row])]
        offset = int(block.offsets[row])
        if label != outcome.event_class:
            self._findings.differ("stages", self._partition, offset, "class", outcome.event_class, label)
        elif outcome.texts is not None:
            texts = tuple(block.text(index, row) for index in range(len(outcome.texts)))
            stages = (int(block.times_us[row]), *texts)
            wanted = (outcome.time_us, *outcome.texts)
            if stages != wanted:
                self._findings.differ("stages", self._partition, offset, "event", wanted, stages)


def _watermarks_before(block: Block, watermark_s: int) -> np.ndarray:
    """The log's watermark before each row: int64."""
    classes = block.classes[: block.rows]
    moves = (classes == EventClass.ACCEPTED) | (classes == EventClass.BOT)
    seconds = np.where(moves, block.times_us[: block.rows] // 1_000_000, 0)
    return np.maximum.accumulate(np.concatenate(([watermark_s], seconds)))[:-1]
