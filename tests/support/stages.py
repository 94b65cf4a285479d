"""Runs messages through the stages, cut into chunks and blocks as a test likes, and reads the results back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hotpath.events import EventClass
from hotpath.settings import Rules
from hotpath.shm.block import Block
from hotpath.workers.bots import BotCounts, Recall
from hotpath.workers.classify import classify_chunk, payload_room

EVENTS = (EventClass.ACCEPTED, EventClass.LATE, EventClass.BOT)


@dataclass(frozen=True)
class Row:
    """What the stages made of one message."""

    log: int
    offset: int
    event_class: str
    time_us: int | None
    texts: tuple[bytes, ...] | None
    payload: bytes | None
    detail: int


@dataclass(frozen=True)
class Message:
    """One message of a log."""

    log: int
    offset: int
    value: bytes | None
    append_time_us: int


class StageRunner:
    """The state that a pipeline keeps between blocks, and nothing else of it."""

    def __init__(
        self,
        logs: int = 1,
        rules: Rules | None = None,
        payload_rows_max: int = 1_000_000,
        watermarks: Sequence[int] | None = None,
        recall: Recall | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self.watermarks = np.array(watermarks or [0] * logs, np.int64)
        self.counts = [
            BotCounts(self.rules.bot_page_views_max, self.rules.late_max_s, int(watermark))
            for watermark in self.watermarks
        ]
        self.payload_rows_max = payload_rows_max
        self.recall = recall

    def block(self, chunks: Iterable[Sequence[Message]]) -> Block:
        """A block filled with these chunks; each is sorted by log first, as consumed messages are."""
        chunks = [sorted(chunk, key=lambda message: message.log) for chunk in chunks]
        rows = sum(map(len, chunks))
        nbytes = sum(len(message.value or b"") for chunk in chunks for message in chunk)
        logs = len(self.counts)
        block = Block.private(rows + 1, rows * 64 + 2 * nbytes + 64, logs)
        # A slot of a ring is never clean: whatever is not written must not be read.
        for column in vars(block).values():
            if isinstance(column, np.ndarray) and column is not block.logs:
                column.view(np.uint8)[...] = 0xA5
        block.clear()
        block.log_count = logs
        block.logs["watermark_s"] = self.watermarks
        room = payload_room(self.payload_rows_max)
        for chunk in chunks:
            values = [message.value for message in chunk]
            assert block.fits(len(chunk), sum(len(value or b"") for value in values))
            classify_chunk(
                values,
                np.array([message.log for message in chunk], np.int16),
                np.array([message.offset for message in chunk], np.int64),
                np.array([message.append_time_us for message in chunk], np.int64),
                block=block,
                rules=self.rules,
                counts=self.counts,
                room=room,
                recall=self.recall,
            )
        self.watermarks[:] = block.logs["watermark_s"]
        for counts, watermark in zip(self.counts, self.watermarks.tolist(), strict=True):
            counts.forget(watermark)
        return block


def rows_of(block: Block) -> list[Row]:
    """The rows of a block as plain values."""
    rows = []
    for row in range(block.rows):
        event_class = EventClass(int(block.classes[row]))
        is_event = event_class in EVENTS
        rows.append(
            Row(
                log=int(block.log_indexes[row]),
                offset=int(block.offsets[row]),
                event_class=event_class.label,
                time_us=int(block.times_us[row]) if is_event else None,
                texts=tuple(block.text(field, row) for field in range(4)) if is_event else None,
                payload=block.payload(row) if block.payload_starts[row] >= 0 else None,
                detail=int(block.details[row]),
            )
        )
    return rows


def classes_of(
    values: Sequence[bytes | None],
    append_time_us: int,
    chunk_rows: int = 2_000,
    rules: Rules | None = None,
) -> list[str]:
    """The classes of one log's messages, in one block cut into chunks of so many."""
    messages = [Message(0, offset, value, append_time_us) for offset, value in enumerate(values)]
    chunks = [messages[start : start + chunk_rows] for start in range(0, len(messages), chunk_rows)]
    return [row.event_class for row in rows_of(StageRunner(rules=rules).block(chunks))]
