"""Throughput of each stage, on chunks of the standard workload: `pytest bench --benchmark-enable`.

Each case checks its answer; none asserts a time. With benchmarks disabled, as in `make test`, each runs once.
"""

import numpy as np
import pytest

from bench.workload import prepared, values_of
from hotpath.events import EventClass
from hotpath.settings import PipelineSettings, Rules
from hotpath.shm.block import Block, BlockShape
from hotpath.shm.ring import Ring
from hotpath.workers.bots import BotCounts
from hotpath.workers.classify import classify_chunk, payload_room, tally
from hotpath.workers.copy_format import CopyBuffer, event_rows, seal_rows
from hotpath.workers.decode import decode
from hotpath.workers.timestamps import parse_timestamps
from hotpath.workers.validate import validate

ROWS = 2_000
NOW_US = 4_000_000_000_000_000
RULES = Rules()


def new_block() -> Block:
    block = Block.private(ROWS, 2 << 20, 1)
    block.log_count = 1
    return block


def classified(chunk: list[bytes], block: Block) -> slice:
    block.clear()
    block.log_count = 1
    block.logs[:] = 0
    return classify_chunk(
        chunk,
        np.zeros(len(chunk), np.int16),
        np.arange(len(chunk)),
        np.full(len(chunk), NOW_US),
        block=block,
        rules=RULES,
        counts=[BotCounts(RULES.bot_page_views_max, RULES.late_max_s)],
        room=payload_room(ROWS),
    )


def accepted_only(chunk: list[bytes]) -> list[bytes]:
    block = Block.private(len(chunk), 4 << 20, 1)
    classified(chunk, block)
    accepted = block.classes[: len(chunk)] == EventClass.ACCEPTED
    return [value for value, keep in zip(chunk, accepted.tolist(), strict=True) if keep]


STANDARD = values_of(prepared(ROWS * 2))
CLEAN = accepted_only(STANDARD)[:ROWS]
HALF_BAD = [value if i % 2 else b"{" for i, value in enumerate(CLEAN)]
SHAPES = {"clean": CLEAN, "standard": STANDARD[:ROWS], "half malformed": HALF_BAD}


@pytest.mark.parametrize("shape", SHAPES)
def test_decode(benchmark, shape):
    block, chunk = new_block(), SHAPES[shape]

    def run():
        block.clear()
        return decode(chunk, block)

    benchmark(run)
    refused = {"clean": 0, "half malformed": ROWS // 2}.get(shape)
    assert refused is None or np.count_nonzero(block.classes[:ROWS] == EventClass.NOT_JSON) == refused
    assert block.rows == ROWS


def test_validate(benchmark):
    block = new_block()
    texts = decode(SHAPES["clean"], block)
    benchmark(validate, block, texts, np.full(ROWS, NOW_US), RULES)
    assert (block.classes[:ROWS] == EventClass.ACCEPTED).all()
    assert (block.times_us[:ROWS] > 0).all()


@pytest.mark.parametrize("bots", [0, 5, 90])
def test_bots(benchmark, bots):
    """Counting a chunk of which so many percent are one user's, in a table of its own."""
    hashes = np.arange(1, ROWS + 1) * 0x5851F42D4C957F2D
    hashes[np.arange(ROWS) % 100 < bots] = 7
    seconds = np.full(ROWS, 1_700_000_000)
    kept = benchmark(lambda: BotCounts(10, 300).count(hashes, seconds))
    assert np.count_nonzero(~kept) == max(0, ROWS * bots // 100 - 10)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_stages(benchmark, shape):
    block = new_block()
    benchmark(classified, SHAPES[shape], block)
    assert block.logs["received"][0] == ROWS == block.logs["counts"][0].sum()


def test_a_stretch_of_chunks(benchmark):
    """Classify and seal as a worker does it: chunk after chunk into the blocks of a ring of default size.

    Each chunk has messages of one or two of the worker's logs, and 0.5 % malformed ones. A round is a stretch of 40
    chunks; by event it is the figure to compare with `classify` and `seal` of bench.pipeline.
    """
    settings, logs = PipelineSettings(), 8
    shape = BlockShape(settings.block_rows_max, settings.block_arena_mib << 20, logs)
    ring = Ring(
        shape, settings.ring_slots, np.zeros(4, np.int64), bytearray(Ring.nbytes(shape, settings.ring_slots))
    )
    values = values_of(prepared(40 * ROWS))
    logs_of = np.arange(40 * ROWS) // (ROWS + ROWS // 3) % logs
    chunks = []
    for start in range(0, len(values), ROWS):
        log_indexes = logs_of[start : start + ROWS]
        order = np.argsort(log_indexes, kind="stable")
        chunk = [values[start + row] for row in order.tolist()]
        chunks.append((chunk, log_indexes[order].astype(np.int16)))
    times = np.full(ROWS, NOW_US)

    def run():
        ring.discard()
        counts = [BotCounts(RULES.bot_page_views_max, RULES.late_max_s) for _ in range(logs)]
        received = 0
        for number, (chunk, log_indexes) in enumerate(chunks):
            if number % (shape.rows_max // ROWS) == 0:
                if number:
                    ring.publish()
                block, room = ring.claim(), payload_room(settings.quarantine_rows_max)
                block.log_count = logs
                block.logs[:] = 0
            offsets = np.arange(number * ROWS, (number + 1) * ROWS)
            rows = classify_chunk(
                chunk, log_indexes, offsets, times, block=block, rules=RULES, counts=counts, room=room
            )
            seal_rows(block, rows)
            received += rows.stop - rows.start
        return received

    assert benchmark(run) == 40 * ROWS


@pytest.mark.parametrize("form", ["one form", "a few odd ones", "all distinct"])
def test_timestamps(benchmark, form):
    texts = [b"2024-03-15T14:30:%02dZ" % (row // 400) for row in range(ROWS)]
    if form == "a few odd ones":
        texts[300] = b"2024-03-15T14:30:00.25Z"
        texts[900], texts[901] = b"2024-03-15T20:00:00+05:30", b"2024-03-15"
    if form == "all distinct":
        texts = [b"2024-03-15T14:30:00.%03dZ" % (row // 2) for row in range(ROWS)]
    lengths = np.array([len(text) for text in texts])
    starts = np.cumsum(lengths + 1) - lengths - 1
    data = np.frombuffer(b"".join(text + b"\n" for text in texts), np.uint8)
    _, faults = benchmark(parse_timestamps, data, starts, lengths)
    assert np.count_nonzero(faults) == (form == "a few odd ones")


def test_seal(benchmark):
    block = new_block()
    rows = classified(SHAPES["standard"], block)
    benchmark(seal_rows, block, rows)
    start = int(block.row_starts[:ROWS].max())
    assert block.arena[start : start + 2].tobytes() == b"\x00\x07"


def test_copy_block(benchmark):
    block, buffer = new_block(), CopyBuffer()
    seal_rows(block, classified(SHAPES["standard"], block))
    stream = benchmark(event_rows, block, EventClass.ACCEPTED, buffer)
    accepted = block.classes[:ROWS] == EventClass.ACCEPTED
    assert len(stream) == 19 + int(block.row_lengths[:ROWS][accepted].sum()) + 2


def test_tally(benchmark):
    block = new_block()
    rows = classified(SHAPES["standard"], block)
    block.logs[:] = 0
    benchmark.pedantic(tally, (block, rows), rounds=1)
    assert block.logs["received"][0] == ROWS


def test_ring(benchmark):
    """A block's way through the ring, without its contents."""
    shape = BlockShape(8, 1_024, 1)
    ring = Ring(shape, 4, np.zeros(4, np.int64), bytearray(Ring.nbytes(shape, 4)))

    def round_trip():
        ring.claim().rows = 1
        ring.publish()
        ring.to_commit()
        ring.release_committed()
        ring.to_apply()
        ring.release_applied()

    benchmark(round_trip)
    assert ring.used == 0 and ring.published == ring.applied > 0
