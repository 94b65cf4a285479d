"""The pipeline's own stages over one log, from a known state on: what a worker with one log would make of it.

State owned: the bot counts and the watermark, and a block that each chunk is classified in. Where the log is not
read from its beginning, both begin with what Postgres holds below the first offset, as those of a worker do that
takes a log over.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter

import numpy as np

from hotpath.events import MESSAGE_BYTES_MAX
from hotpath.proof.messages import MESSAGES_MAX, Messages
from hotpath.proof.snapshot import Snapshot
from hotpath.settings import Rules
from hotpath.shm.block import Block
from hotpath.workers.bots import BotCounts, SecondCounts
from hotpath.workers.classify import classify_chunk, payload_room
from hotpath.workers.copy_format import seal_rows
from hotpath.workers.decode import PARSED_BYTES_MAX

ARENA_BYTES = 4 << 20
FORGET_EVERY = 20
"""Chunks between two looks at which bot counts can go."""


class Stages:
    """`on_recall` is told the accepted page views by (user_id, second) that were read from Postgres."""

    def __init__(
        self,
        snapshot: Snapshot,
        log_id: int,
        rules: Rules,
        first_offset: int,
        watermark_s: int,
        on_recall: Callable[[dict[tuple[bytes, int], int]], None] = lambda counts: None,
    ) -> None:
        self._snapshot = snapshot
        self._log_id = log_id
        self._rules = rules
        self._first_offset = first_offset
        self._on_recall = on_recall
        self._counts = BotCounts(rules.bot_page_views_max, rules.late_max_s, watermark_s)
        self._chunks = 0
        self.watermark_s = watermark_s
        """Greatest second of an accepted or bot event so far."""
        self._block = Block.private(MESSAGES_MAX, ARENA_BYTES, 1)

    def fits(self, messages: Messages) -> bool:
        """Whether `classify` has room for so many."""
        values = messages.values
        try:
            nbytes = sum(map(len, values))
        except TypeError:  # a null value
            nbytes = sum(len(value) for value in values if value is not None)
        self._block.clear()
        if nbytes > PARSED_BYTES_MAX:
            # Of messages that are too large little is kept, and they are not parsed.
            nbytes = sum(min(len(value), MESSAGE_BYTES_MAX) for value in values if value is not None)
        return nbytes <= PARSED_BYTES_MAX and self._block.fits(len(values), nbytes)

    def classify(self, messages: Messages, append_times_us: np.ndarray) -> Block:
        """The messages as sealed rows of a block, which holds until the next call. Payloads of all are kept."""
        block = self._block
        block.clear()
        block.log_count = 1
        log = block.logs[0]
        log["log_id"] = self._log_id
        log["watermark_s"] = self.watermark_s
        log["received"], log["counts"] = 0, 0
        count = len(messages.values)
        rows = classify_chunk(
            messages.values,
            np.zeros(count, np.int16),
            messages.offsets,
            append_times_us,
            block=block,
            rules=self._rules,
            counts=[self._counts],
            room=payload_room(count),
            recall=self._recall,
        )
        seal_rows(block, rows)
        self.watermark_s = int(log["watermark_s"])
        self._chunks += 1
        if self._chunks % FORGET_EVERY == 0:
            self._counts.forget(self.watermark_s)
        return block

    def _recall(self, log: int, seconds: list[int]) -> Iterable[SecondCounts]:
        rows = self._snapshot.query(
            "bot_counts",
            log_ids=[self._log_id] * len(seconds),
            seconds=seconds,
            below=[self._first_offset] * len(seconds),
            first_s=min(seconds),
            last_s=max(seconds),
        )
        self._on_recall({(user_id.encode(), second): count for _, second, user_id, count in rows})
        for second, group in groupby(sorted(rows, key=itemgetter(1)), itemgetter(1)):
            _, _, user_ids, counts = zip(*group, strict=True)
            yield second, user_ids, counts
