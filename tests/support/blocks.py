"""Blocks for tests, filled as the decode, validate and bot stages would fill them."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hotpath.events import PAGE_VIEW, PAYLOAD_KEPT_BYTES, REFUSED, Detail, EventClass
from hotpath.shm.block import LENGTH_BYTES, ROW_PREFIX_BYTES, Block

NOON_US = 1_710_504_000_000_000
"""2024-03-15T12:00:00Z in microseconds since 1970: when test events begin to happen."""


@dataclass(frozen=True)
class Event:
    """One message as the stages leave it. Refused ones have `payload` and no text."""

    offset: int
    log_index: int = 0
    event_class: EventClass = EventClass.ACCEPTED
    time_us: int = NOON_US
    user_id: str = "u-1"
    event_type: str = PAGE_VIEW
    page_url: str = "/"
    session_id: str = "s-1"
    payload: bytes | None = None
    detail: int = Detail.NONE

    @property
    def texts(self) -> tuple[str, str, str, str]:
        return self.user_id, self.event_type, self.page_url, self.session_id


def new_block(
    log_ids: Iterable[int] = (1,),
    next_offsets: Iterable[int] | None = None,
    epochs: Iterable[int] | None = None,
    rows_max: int = 4_096,
    arena_bytes: int = 1 << 21,
) -> Block:
    """An empty block that may touch these logs, each standing at its next offset (0 unless told)."""
    log_ids = list(log_ids)
    block = Block.private(rows_max, arena_bytes, max(1, len(log_ids)))
    block.log_count = len(log_ids)
    block.logs["log_id"][: len(log_ids)] = log_ids
    block.logs["epoch"][: len(log_ids)] = 1 if epochs is None else list(epochs)
    block.logs["first_offset"][: len(log_ids)] = 0 if next_offsets is None else list(next_offsets)
    block.logs["next_offset"] = block.logs["first_offset"]
    return block


def append_events(block: Block, events: Iterable[Event]) -> slice:
    """Append events with everything but the numbers that `copy_format.seal_rows` adds; returns their rows."""
    first = block.rows
    for event in events:
        _append(block, event)
    return slice(first, block.rows)


def _append(block: Block, event: Event) -> None:
    row = block.rows
    block.offsets[row] = event.offset
    block.log_indexes[row] = event.log_index
    block.classes[row] = event.event_class
    block.details[row] = event.detail
    block.row_starts[row] = block.payload_starts[row] = -1
    block.row_lengths[row] = block.payload_lengths[row] = block.payload_sizes[row] = 0
    if event.event_class not in REFUSED:
        _append_row(block, row, event)
    if event.payload is not None:
        kept = event.payload[:PAYLOAD_KEPT_BYTES]
        block.payload_starts[row] = _append_bytes(block, kept)
        block.payload_lengths[row] = len(kept)
        block.payload_sizes[row] = len(event.payload)
    entry = block.logs[event.log_index]
    entry["next_offset"] = event.offset + 1
    entry["received"] += 1
    entry["counts"][event.event_class] += 1
    if event.event_class in (EventClass.ACCEPTED, EventClass.BOT):
        entry["watermark_s"] = max(int(entry["watermark_s"]), event.time_us // 1_000_000)
    block.rows = row + 1


def _append_row(block: Block, row: int, event: Event) -> None:
    texts = [text.encode() for text in event.texts]
    data = bytes(ROW_PREFIX_BYTES) + b"".join(
        len(text).to_bytes(LENGTH_BYTES, "big") + text for text in texts
    )
    block.row_starts[row] = _append_bytes(block, data)
    block.row_lengths[row] = len(data)
    block.lengths[:, row] = [len(text) for text in texts]
    block.times_us[row] = event.time_us
    block.page_views[row] = event.event_type == PAGE_VIEW
    block.user_hashes[row] = hash(event.user_id)
    block.session_hashes[row] = hash((event.user_id, event.session_id))
    block.page_hashes[row] = hash(event.page_url)


def _append_bytes(block: Block, data: bytes) -> int:
    start = block.arena_used
    assert start + len(data) <= block.arena.size, "the test's arena is too small"
    block.arena[start : start + len(data)] = np.frombuffer(data, np.uint8)
    block.arena_used = start + len(data)
    return start


def numbered(count: int, first_offset: int = 0, log_index: int = 0, **fields: object) -> Iterator[Event]:
    """`count` different accepted events at offsets without gaps."""
    for offset in itertools.islice(itertools.count(first_offset), count):
        yield Event(
            offset,
            log_index,
            **{
                "time_us": NOON_US + offset * 1_000,
                "user_id": f"u-{offset % 7}",
                "page_url": f"/p/{offset % 5}",
                "session_id": f"s-{offset % 11}",
                **fields,
            },
        )
