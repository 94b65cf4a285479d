"""Classify: the stages in their order, from the messages of a chunk to classed rows of a block.

The pipeline, `verify` and the tests all go through `classify_chunk`, so that there is one order. Beside it
stand the stages that are too small for a module: late, payloads, tally. Pure, as the stages are; the state,
bot counts and watermarks, belongs to the caller.
"""

from collections.abc import Sequence

import numpy as np

from hotpath.events import CLASS_COUNT, PAYLOAD_KEPT_BYTES, QUARANTINED, EventClass
from hotpath.settings import Rules
from hotpath.shm.block import Block
from hotpath.workers.bots import BotCounts, Recall, Share, classify_bots
from hotpath.workers.decode import Lap, decode, no_lap
from hotpath.workers.validate import validate

_LOG_SHIFT = 40
"""Bits below a log's index when watermarks of several logs run through one accumulation; a second has 33."""

_KEPT = np.zeros(CLASS_COUNT, np.bool_)
_KEPT[list(QUARANTINED)] = True


def payload_room(rows_max: int) -> np.ndarray:
    """How many payloads of each class a fresh block may still keep: int64, CLASS_COUNT."""
    return np.where(_KEPT, rows_max, 0)


def classify_chunk(
    values: Sequence[bytes | None],
    log_indexes: np.ndarray,
    offsets: np.ndarray,
    append_times_us: np.ndarray,
    *,
    block: Block,
    rules: Rules,
    counts: Sequence[BotCounts],
    room: np.ndarray,
    recall: Recall | None = None,
    share: Share | None = None,
    lap: Lap = no_lap,
) -> slice:
    """Append n messages to `block` as classed rows, and return which rows these are.

    The messages stand in the order of `log_indexes` (int16, n, into `block.logs`), those of a log in the
    order of `offsets` (int64, n); `append_times_us`: int64, n, microseconds since 1970. The caller has
    opened the logs in `block.logs` (`log_count`, and `watermark_s` as it stands before this chunk) and has
    asked `block.fits`. `counts`: one per entry of `block.logs`; `room`: see `payload_room`, made anew per
    block; `recall`, `share`: see `bots`; `lap`: see `decode`.

    Afterwards the watermarks, `received` and `counts` of `block.logs` include the chunk; first_offset and
    next_offset are the caller's. Raises ValueError when the block has no room.
    """
    texts = decode(values, block, lap)
    rows = texts.rows
    block.log_indexes[rows] = log_indexes
    block.offsets[rows] = offsets
    validate(block, texts, append_times_us, rules)
    classify_late(block, rows, rules.late_max_s)
    lap("validate")
    classify_bots(block, rows, counts, recall, share)
    lap("bots")
    keep_payloads(values, block, rows, room)
    tally(block, rows)
    return rows


def classify_late(block: Block, rows: slice, late_max_s: int) -> None:
    """Make late what is more than `late_max_s` behind its log's watermark as it stood before; advance those.

    Of `rows`, those of a log stand together and the logs in rising order. Reads and writes
    `block.logs["watermark_s"]`, 0 standing for none. Rows that were refused do not move a watermark, and
    late ones cannot.
    """
    classes = block.classes[rows]
    if classes.size == 0:
        return
    logs = block.log_indexes[rows].astype(np.int64)
    seconds = np.where(classes == EventClass.ACCEPTED, block.times_us[rows] // 1_000_000, 0)
    bases = logs << _LOG_SHIFT
    firsts = np.flatnonzero(np.append(True, logs[1:] != logs[:-1]))
    lasts = np.append(firsts[1:], logs.size) - 1
    in_chunk = logs[firsts]
    # Each row gets what stands before it; the base of a log is above all seconds of those before it, so
    # that one running maximum over the chunk starts again with each log.
    before = np.empty_like(seconds)
    before[1:] = bases[1:] + seconds[:-1]
    before[firsts] = bases[firsts] + block.logs["watermark_s"][in_chunk]
    watermarks = np.maximum.accumulate(before) - bases
    late = (classes == EventClass.ACCEPTED) & (seconds < watermarks - late_max_s)
    if late.any():
        classes[late] = EventClass.LATE
    block.logs["watermark_s"][in_chunk] = np.maximum(watermarks[lasts], seconds[lasts])


def keep_payloads(values: Sequence[bytes | None], block: Block, rows: slice, room: np.ndarray) -> None:
    """Copy the first 1 KiB of quarantined messages into the arena, as long as there is `room`.

    `room` (int64, CLASS_COUNT) is lowered by what was kept; the first ones of each class are. Of a null
    value no bytes are kept, at a payload_start all the same.
    """
    classes = block.classes[rows]
    picked = np.flatnonzero(_KEPT[classes])
    if picked.size == 0:
        return
    wanted = np.bincount(classes[picked], minlength=CLASS_COUNT)
    for event_class in np.flatnonzero(wanted > room).tolist():
        of_class = classes[picked] == event_class
        picked = picked[~of_class | (np.cumsum(of_class) <= room[event_class])]
    room -= np.minimum(wanted, room)
    if picked.size == 0:
        return
    kept = [values[row] or b"" for row in picked.tolist()]
    payloads = [value[:PAYLOAD_KEPT_BYTES] for value in kept]
    data = b"".join(payloads)
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    at = block.arena_used
    if at + len(data) > block.arena.size:
        raise ValueError(f"an arena of {block.arena.size} bytes has no room for {len(data)} after {at}")
    block.arena[at : at + len(data)] = np.frombuffer(data, np.uint8)
    block.arena_used = at + len(data)
    picked += rows.start
    block.payload_starts[picked] = np.cumsum(lengths) - lengths + at
    block.payload_lengths[picked] = lengths
    block.payload_sizes[picked] = np.fromiter(map(len, kept), np.int64, len(kept))


def tally(block: Block, rows: slice) -> None:
    """Add `rows` to the received and the counts of their logs."""
    logs = block.log_indexes[rows].astype(np.int64)
    log_count = block.log_count
    cells = np.bincount(logs * CLASS_COUNT + block.classes[rows], minlength=log_count * CLASS_COUNT)
    per_log = cells.reshape(log_count, CLASS_COUNT)
    block.logs["counts"][:log_count] += per_log
    block.logs["received"][:log_count] += per_log.sum(axis=1)
