"""How a worker's segment is laid out: the control page, then the ring. The supervisor makes it, the worker maps it."""

from hotpath.settings import PipelineSettings
from hotpath.shm.block import BlockShape
from hotpath.shm.control import Control
from hotpath.shm.ring import Ring


def _shape(settings: PipelineSettings, logs_max: int) -> BlockShape:
    return BlockShape(settings.block_rows_max, settings.block_arena_mib << 20, logs_max)


def segment_bytes(settings: PipelineSettings, logs_max: int) -> int:
    """Size of the segment of a worker with at most `logs_max` logs."""
    return Control.nbytes(logs_max) + Ring.nbytes(_shape(settings, logs_max), settings.ring_slots)


def map_worker(buffer: memoryview, settings: PipelineSettings, logs_max: int) -> tuple[Control, Ring]:
    """The control page and the ring in a worker's segment."""
    control = Control(buffer, logs_max)
    ring = Ring(
        _shape(settings, logs_max),
        settings.ring_slots,
        control.page["cursors"],
        buffer,
        Control.nbytes(logs_max),
    )
    return control, ring
