"""Redis alone: the changes of the topic's messages, applied once more by one client, with nothing beside it.

What a server cannot do without for these views as they are stored now: the same rows, as many of each log at once as by
workers that are behind, by slots where those are known as a worker does, sent by the same commands, under a prefix of
their own. No gaps, no trimming, no readers.
"""

import time
from dataclasses import dataclass

import numpy as np
import redis

from bench.harness import CpuMeter
from hotpath.errors import WorkersFailed
from hotpath.kafka import log_ranges
from hotpath.settings import PipelineSettings, Settings
from hotpath.shm.block import Block
from hotpath.shm.control import CONTROL_DTYPE, LOG_STATUS_DTYPE
from hotpath.views import keys, link, store
from hotpath.views.fold import fold_blocks
from hotpath.views.slots import SLOTS_MAX, Slots
from hotpath.views.store import LogState
from hotpath.workers.bots import BotCounts
from hotpath.workers.classify import classify_chunk, payload_room
from hotpath.workers.copy_format import seal_rows
from hotpath.workers.logs import LogHandle
from hotpath.workers.sink_threads import BLOCKS_AT_ONCE
from hotpath.workers.source import Chunk, Source

TIMEOUT_S = 30
GENERATION = 1


@dataclass(frozen=True)
class RedisApply:
    """What it took: `server_us` is CPU of Redis per event, None when it is on another machine."""

    events: int
    server_us: float | None


def apply_topic(settings: Settings, partitions: int, procs: int, redis_pid: int | None) -> RedisApply:
    """Apply the whole topic, as so many workers would. Raises WorkersFailed when Redis does not take it."""
    given = PipelineSettings(**settings.model_dump())
    ranges = log_ranges(settings, list(range(partitions)))
    handles = [LogHandle(number, number, 1, first, 0) for number, (first, _) in ranges.items()]
    expected = sum(end - first for first, end in ranges.values())
    status = np.zeros(len(handles), LOG_STATUS_DTYPE)
    source = Source(given, settings.topic, handles, status, np.zeros(1, CONTROL_DTYPE)[0])
    client = link.connect(settings.redis_url, TIMEOUT_S)
    replay = Replay(given, handles, client, f"{settings.redis_prefix}:alone", BLOCKS_AT_ONCE * procs)
    meter = CpuMeter({"redis": redis_pid})
    try:
        while replay.events < expected:
            chunk = source.poll(given.chunk_rows_max, 0.2)
            if chunk is not None:
                replay.take(chunk)
        replay.apply()
    finally:
        source.close()
    return RedisApply(replay.events, meter.us_per(replay.events)["redis"])


class Replay:
    """One block, filled and applied again and again; one generation per log."""

    def __init__(
        self,
        settings: PipelineSettings,
        handles: list[LogHandle],
        client: redis.Redis,
        prefix: str,
        blocks: int = 1,
    ) -> None:
        """blocks: the block is as large as so many of the pipeline's."""
        self._settings = settings
        self._client = client
        self._prefix = prefix
        self._block = Block.private(
            blocks * settings.block_rows_max, blocks * settings.block_arena_mib << 20, logs_max=len(handles)
        )
        self._counts = [BotCounts(settings.bot_page_views_max, settings.late_max_s) for _ in handles]
        self._room = payload_room(0)
        self._slots = [Slots() for _ in handles]
        self.events = 0
        self.apply_cpu_s = 0.0
        """CPU of folding and sending, of this thread."""
        logs = self._block.logs
        logs["log_id"] = [handle.log_id for handle in handles]
        logs["first_offset"] = logs["next_offset"] = [handle.next_offset for handle in handles]
        for handle in handles:
            _make_live(client, prefix, handle)
        commands = [store.slots_command(prefix, handle.log_id, GENERATION, SLOTS_MAX) for handle in handles]
        for slots, (_, ticket, count, steps) in zip(self._slots, link.run(client, commands), strict=True):
            slots.load(ticket.decode(), count, steps)

    def take(self, chunk: Chunk) -> None:
        block = self._block
        if not block.fits(len(chunk), sum(len(value or b"") for value in chunk.values)):
            self.apply()
        block.log_count = len(self._counts)
        rows = classify_chunk(
            chunk.values,
            chunk.log_indexes,
            chunk.offsets,
            chunk.append_times_us,
            block=block,
            rules=self._settings,
            counts=self._counts,
            room=self._room,
        )
        seal_rows(block, rows)
        lasts = np.flatnonzero(np.append(chunk.log_indexes[1:] != chunk.log_indexes[:-1], True))
        block.logs["next_offset"][chunk.log_indexes[lasts]] = chunk.offsets[lasts] + 1
        self.events += len(chunk)

    def apply(self) -> None:
        """Send the block, and begin another."""
        began_s = time.thread_time()
        block = self._block
        logs = block.logs[: block.log_count]
        moved = np.flatnonzero(logs["next_offset"] > logs["first_offset"]).tolist()
        known = {index: self._slots[index] for index in moved}
        work = fold_blocks([block], {index: int(logs["first_offset"][index]) for index in moved}, known)
        commands = [
            store.change_commands(self._prefix, GENERATION, changes, slots=slots)
            for slots, changes in zip(known.values(), work, strict=True)
        ]
        replies = iter(link.run(self._client, [command for of_log in commands for command in of_log]))
        for slots, changes, of_log in zip(known.values(), work, commands, strict=True):
            answers = [next(replies) for _ in of_log]
            places = store.places_of(answers, changes.seen.steps)
            if places is None:
                raise WorkersFailed(f"Redis did not take the changes: {answers[-1]}")
            slots.learn(changes.session_hashes, changes.seen.steps, places)
        self.apply_cpu_s += time.thread_time() - began_s
        block.clear()
        logs["first_offset"] = logs["next_offset"]
        logs["received"] = 0
        logs["counts"] = 0


def _make_live(client: redis.Redis, prefix: str, handle: LogHandle) -> None:
    """An empty generation, live, of a log that begins at the handle's offset."""
    state = LogState(GENERATION, handle.next_offset, 0, 0, 0, 0, 0)
    store.create_generation(client, prefix, handle.log_id, state)
    client.hset(keys.part(prefix, handle.log_id, GENERATION, "state"), "applied", handle.next_offset)
    if not store.switch(client, prefix, handle.log_id, "", GENERATION):
        raise WorkersFailed(f"log {handle.log_id} has views under the prefix {prefix!r} already")
