"""Throughput of each stage, on chunks of the standard workload: `pytest bench --benchmark-enable`.

Each case checks its answer; none asserts a time. With benchmarks disabled, as in `make test`, each runs once.
"""

import numpy as np
import pytest

from bench.workload import prepared, values_of
from hotpath.events import EventClass
from hotpath.settings import Rules
from hotpath.shm.block import Block, BlockShape
from hotpath.shm.ring import Ring
from hotpath.workers.bots import BotCounts
from hotpath.workers.classify import classify_chunk, payload_room, tally
from hotpath.workers.copy_format import CopyBuffer, event_rows, seal_rows
from hotpath.workers.decode import decode
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
