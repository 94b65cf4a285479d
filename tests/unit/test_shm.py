"""Blocks, rings, segments and control pages, without any server."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from hotpath.settings import PipelineSettings
from hotpath.shm.block import ROW_FIXED_BYTES, Block, BlockShape
from hotpath.shm.control import Control, WorkerState
from hotpath.shm.ring import Ring
from hotpath.shm.segment import Segment
from hotpath.workers.layout import map_worker, segment_bytes

TINY = BlockShape(rows_max=4, arena_bytes=512, logs_max=2)


def tiny_ring(slots: int = 2) -> Ring:
    return Ring(TINY, slots, np.zeros(4, np.int64), bytearray(Ring.nbytes(TINY, slots)))


def publish(ring: Ring, mark: int) -> None:
    block = ring.claim()
    block.rows = 1
    block.offsets[0] = mark
    ring.publish()


def test_slots_do_not_overlap():
    ring = tiny_ring(3)
    for mark in range(3):
        block = ring.claim()
        block.rows = block.capacity
        for name, _, _, _ in TINY.layout()[1:]:
            getattr(block, name).view(np.uint8)[:] = mark + 1
        ring.publish()
    for mark in range(3):
        block = ring.to_commit()
        for name, _, _, _ in TINY.layout()[1:]:
            assert (getattr(block, name).view(np.uint8) == mark + 1).all(), name
        ring.release_committed()


def test_columns_start_on_cache_lines():
    for name, dtype, dims, nbytes in BlockShape(5, 100, 3).layout():
        assert nbytes % 64 == 0 and nbytes >= dtype.itemsize * np.prod(dims), name


def test_ring_refuses_to_overwrite_unreleased_slots():
    ring = tiny_ring(2)
    publish(ring, 1)
    publish(ring, 2)
    assert ring.claim() is None
    ring.release_committed()
    assert ring.claim() is None, "the Redis sink has not passed it yet"
    ring.release_applied()
    assert ring.claim() is not None


def test_redis_sink_sees_only_committed_blocks():
    ring = tiny_ring()
    publish(ring, 7)
    assert ring.to_apply() == []
    ring.release_committed()
    assert ring.to_apply()[0].offsets[0] == 7


def test_redis_sink_is_handed_as_many_committed_blocks_as_it_takes():
    ring = tiny_ring(4)
    for mark in (1, 2, 3, 4):
        publish(ring, mark)
    for _ in range(3):
        ring.release_committed()
    assert [block.offsets[0] for block in ring.to_apply(2)] == [1, 2]
    assert [block.offsets[0] for block in ring.to_apply(9)] == [1, 2, 3], "the fourth is not committed"
    ring.release_applied(2)
    assert [block.offsets[0] for block in ring.to_apply(9)] == [3]
    with pytest.raises(AssertionError):
        ring.release_applied(2)


def test_claiming_again_gives_the_same_cleared_block():
    ring = tiny_ring()
    first = ring.claim()
    first.rows, first.arena_used = 3, 100
    again = ring.claim()
    assert again is first and again.rows == 0 and again.arena_used == 0


def test_a_detached_redis_sink_holds_nobody_back_and_comes_back_behind_the_gap():
    ring = tiny_ring(2)
    publish(ring, 1)
    ring.detach()
    for mark in range(2, 7):
        ring.release_committed()
        assert ring.to_apply() == []
        publish(ring, mark)
    ring.attach()
    ring.release_committed()
    assert ring.to_apply() == [], "what was published while it was away is not handed to it"
    publish(ring, 7)
    ring.release_committed()
    assert ring.to_apply()[0].offsets[0] == 7


def test_out_of_turn_calls_are_refused():
    ring = tiny_ring()
    for call in (ring.release_committed, ring.release_applied):
        with pytest.raises(AssertionError):
            call()


def test_fits_counts_rows_and_the_longest_their_bytes_can_become():
    block = Block.private(rows_max=4, arena_bytes=1_000)
    assert block.fits(4, 100)
    assert not block.fits(5, 0)
    most = (1_000 - 4 * ROW_FIXED_BYTES) // 2
    assert block.fits(4, most) and not block.fits(4, most + 1)
    block.arena_used = 10
    assert not block.fits(4, most)


def test_a_segment_is_shared_with_a_child_and_dies_with_its_users():
    segment = Segment.create("hotpath-test", 8192)
    code = (
        "import sys; from hotpath.shm.segment import Segment;"
        "Segment(int(sys.argv[1]), 8192).buffer[5:8] = b'abc'"
    )
    subprocess.run([sys.executable, "-c", code, str(segment.fd)], pass_fds=[segment.fd], check=True)
    assert bytes(segment.buffer[5:8]) == b"abc"
    assert not any("hotpath-test" in name for name in os.listdir("/dev/shm"))
    segment.close_descriptor()
    assert bytes(segment.buffer[5:8]) == b"abc"


def test_views_of_a_segment_outlive_it():
    control = Control(Segment.create("hotpath-test", Control.nbytes(1)).buffer, 1)
    gc.collect()
    control.page["received"] += 3
    assert control.page["received"] == 3


def test_supervisor_and_worker_read_the_same_page():
    settings = PipelineSettings(block_rows_max=10, block_arena_mib=1, ring_slots=2)
    segment = Segment.create("hotpath-test", segment_bytes(settings, 3))
    control, ring = map_worker(segment.buffer, settings, 3)
    logs = control.open_logs(3)
    logs["log_id"] = [5, 6, 7]
    control.page["state"] = WorkerState.RUNNING
    ring.claim().rows = 1
    ring.publish()
    seen = Control(segment.buffer, 3)
    assert seen.logs["log_id"].tolist() == [5, 6, 7]
    assert seen.page["state"] == WorkerState.RUNNING
    assert seen.page["cursors"].tolist() == [1, 0, 0, 0]


def test_a_control_page_refuses_more_logs_than_it_was_made_for():
    with pytest.raises(ValueError, match="3 logs"):
        Control(bytearray(Control.nbytes(2)), 2).open_logs(3)


def test_a_discarded_ring_is_empty_and_goes_on_counting():
    settings = PipelineSettings(block_rows_max=10, block_arena_mib=1, ring_slots=2)
    control, ring = map_worker(memoryview(bytearray(segment_bytes(settings, 1))), settings, 1)
    for _ in range(2):
        ring.claim().rows = 1
        ring.publish()
    ring.detach()
    assert ring.claim() is None
    ring.discard()
    assert (ring.published, ring.committed, ring.applied, ring.detached) == (2, 2, 2, False)
    assert ring.to_commit() is None and ring.to_apply() == []
    assert ring.claim() is not None
    assert control.page["cursors"].tolist() == [2, 2, 2, 0]


def test_a_page_shows_no_logs_between_two_assignments():
    control = Control(bytearray(Control.nbytes(3)), 3)
    control.open_logs(2)["log_id"] = [5, 6]
    control.close_logs()
    assert len(control.logs) == 0
    assert control.open_logs(3)["log_id"].tolist() == [0, 0, 0]
