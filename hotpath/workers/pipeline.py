"""The worker's loop: the one place that knows the order of the stages.

Three threads, one direction::

    main            source ► classify ► block          publish when full, or when due and the sink is idle
    Postgres sink   block ► one transaction            then release it
    Redis sink      committed block ► views            then release it; detached while Redis is away

The main thread (this module) owns the source, the open block, positions, watermarks and bot counts; each sink's
thread (see sink_threads) owns its connection. They meet in the ring and in the control page, nowhere else. Whatever
goes wrong beyond what a sink retries by itself ends the process: it starts again from what Postgres holds.
"""

import gc
import logging
import time
from collections.abc import Callable

import numpy as np
import orjson

from hotpath import clock
from hotpath.events import MESSAGE_BYTES_MAX, PAYLOAD_KEPT_BYTES
from hotpath.partitioner import partition_for
from hotpath.settings import PipelineSettings
from hotpath.shm.block import Block
from hotpath.shm.control import STAGES, Control, WorkerState
from hotpath.shm.ring import Ring
from hotpath.workers.bots import BotCounts, Recall, Share
from hotpath.workers.classify import classify_chunk, payload_room
from hotpath.workers.copy_format import seal_rows
from hotpath.workers.decode import PARSED_BYTES_MAX
from hotpath.workers.logs import LogHandle
from hotpath.workers.sink_threads import IDLE_WAIT_S, SinkThreads
from hotpath.workers.source import Chunk, Source

log = logging.getLogger(__name__)

PAUSE_AFTER_S = 0.5
"""A full ring is waited for so long before fetching is paused: pausing throws away what was fetched ahead."""
SINK_BUSY_WAIT_S = 0.002
"""How long is waited for messages while a block is due and the sink has yet to finish the one before: no wait at all
would keep a core busy for as long as Postgres is away."""
BUSY_ROWS, BUSY_FACTOR = 5_000, 2.5
"""A block that has so many rows when it would be due waits so many times as long: much of what a flush costs, in both
stores, is for each flush or for each page in it, and few wait longer where few come."""
VIEWS_WAIT_S = 1.0
"""How long is waited for the views of logs that have none before the first message is asked for. The views of nothing
stand in 0.1 to 0.5 s; what is committed meanwhile is a gap, which a busy machine then runs after, at several times the
cost of blocks that find their views there."""
REPORT_INTERVAL_S = 1.0

_STAGE_NUMBERS = {stage: number for number, stage in enumerate(STAGES)}


class Stopping(Exception):
    """The worker was asked to stop while it waited for room; what it held is read again by its successor."""


class Pipeline:
    """Moves the messages of the worker's logs into blocks until `is_over`."""

    def __init__(
        self,
        settings: PipelineSettings,
        handles: list[LogHandle],
        partitions: int,
        source: Source,
        recall: Recall,
        share: Share | None,
        ring: Ring,
        control: Control,
        sinks: SinkThreads,
        is_over: Callable[[], bool],
    ) -> None:
        """`is_over` is asked between chunks, and while it waits for room; what it raises ends `run`."""
        self._settings = settings
        self._partitions = partitions
        self._source = source
        self._recall = recall
        self._share = share
        self._ring = ring
        self._control = control
        self._page = control.page
        self._stage_cpu_ns = control.page["stage_cpu_ns"]
        self._lap_began_ns = 0
        self._status = control.logs
        self._sinks = sinks
        self._log_ids = np.array([handle.log_id for handle in handles], np.int64)
        self._epochs = np.array([handle.epoch for handle in handles], np.int64)
        self._positions = np.array([handle.next_offset for handle in handles], np.int64)
        self._watermarks_s = np.array([handle.watermark_s for handle in handles], np.int64)
        self._bot_counts = [
            BotCounts(settings.bot_page_views_max, settings.late_max_s, handle.watermark_s)
            for handle in handles
        ]
        self._block: Block | None = None
        self._payload_room = payload_room(0)
        self._opened_at = 0.0
        self._held: list[Chunk] = []
        self._is_over = is_over
        self._report_at = 0.0

    def run(self) -> None:
        """Work until it is over; what is not committed by then is for `drain`. Raises whatever ended a sink."""
        # Decoding makes thousands of short-lived dictionaries and no cycles; the collector would walk them all.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._sinks.start()
        self._sinks.wait_for_views(VIEWS_WAIT_S, self._goes_on)
        self._page["state"] = WorkerState.RUNNING
        try:
            while not self._is_over():
                self._turn()
        except Stopping:
            pass

    def drain(self, deadline_s: float) -> None:
        """Hand over what is complete and wait for the sinks.

        Raises whatever ended a sink, and TimeoutError when the deadline passes first.
        """
        self._page["state"] = WorkerState.DRAINING
        self._publish()
        self._sinks.drain(deadline_s, self._heartbeat)
        self._report()

    def _goes_on(self) -> bool:
        self._heartbeat()
        return not self._is_over()

    def _turn(self) -> None:
        self._heartbeat()
        self._sinks.check()
        self._lap_began_ns = time.thread_time_ns()
        chunk = self._poll(
            IDLE_WAIT_S if self._block is None else max(self._time_to_publish(), SINK_BUSY_WAIT_S)
        )
        self._lap("consume")
        if chunk is not None:
            self._check_routing(chunk)
            self._take(chunk, 0, len(chunk))
        if (
            self._block is not None
            and self._time_to_publish() == 0
            and self._ring.published == self._ring.committed
        ):
            self._publish()
        if time.monotonic() >= self._report_at:
            self._report()

    def _lap(self, stage: str) -> None:
        """Account for the CPU of this thread since the lap began, and begin the next one."""
        now_ns = time.thread_time_ns()
        self._stage_cpu_ns[_STAGE_NUMBERS[stage]] += now_ns - self._lap_began_ns
        self._lap_began_ns = now_ns

    def _poll(self, timeout_s: float) -> Chunk | None:
        if self._held:
            return self._held.pop(0)
        return self._source.poll(self._settings.chunk_rows_max, timeout_s)

    def _time_to_publish(self) -> float:
        """Seconds until the open block is due, no more than an idle loop may sleep."""
        waits = BUSY_FACTOR if self._block.rows >= BUSY_ROWS else 1
        due_at = self._opened_at + waits * self._settings.flush_interval_ms / 1_000
        return min(max(due_at - time.monotonic(), 0.0), IDLE_WAIT_S)

    def _take(self, chunk: Chunk, start: int, stop: int) -> None:
        """Append messages [start, stop) of a chunk to blocks, halving what is too large to parse or for a block."""
        values = chunk.values[start:stop] if stop - start < len(chunk) else chunk.values
        message_bytes = _arena_bytes(values)
        if message_bytes > PARSED_BYTES_MAX and stop - start > 1:
            self._take_halves(chunk, start, stop)
            return
        block = self._open()
        if block.rows and not block.fits(len(values), message_bytes):
            self._publish()
            block = self._open()
        if block.fits(len(values), message_bytes):
            self._append(block, chunk, start, stop, values)
        else:
            self._take_halves(chunk, start, stop)

    def _take_halves(self, chunk: Chunk, start: int, stop: int) -> None:
        middle = (start + stop) // 2
        self._take(chunk, start, middle)
        self._take(chunk, middle, stop)

    def _append(self, block: Block, chunk: Chunk, start: int, stop: int, values: list[bytes | None]) -> None:
        log_indexes, offsets = chunk.log_indexes[start:stop], chunk.offsets[start:stop]
        self._lap_began_ns = time.thread_time_ns()
        rows = classify_chunk(
            values,
            log_indexes,
            offsets,
            chunk.append_times_us[start:stop],
            block=block,
            rules=self._settings,
            counts=self._bot_counts,
            room=self._payload_room,
            recall=self._recall,
            share=self._share,
            lap=self._lap,
        )
        seal_rows(block, rows)
        self._lap("seal")
        self._page["received"] += stop - start
        lasts = np.flatnonzero(np.append(log_indexes[1:] != log_indexes[:-1], True))
        touched = log_indexes[lasts]
        self._positions[touched] = block.logs["next_offset"][touched] = offsets[lasts] + 1
        self._watermarks_s[touched] = self._status["watermark_s"][touched] = block.logs["watermark_s"][
            touched
        ]

    def _open(self) -> Block:
        """The open block; a new one when there is none, waiting while the ring is full."""
        if self._block is None:
            block = self._ring.claim()
            if block is None:
                block = self._wait_for_slot()
            count = len(self._log_ids)
            block.log_count = count
            logs = block.logs[:count]
            logs["log_id"] = self._log_ids
            logs["epoch"] = self._epochs
            logs["first_offset"] = self._positions
            logs["next_offset"] = self._positions
            logs["watermark_s"] = self._watermarks_s
            logs["received"] = 0
            logs["counts"] = 0
            block.opened_at_us = clock.now_us()
            self._payload_room = payload_room(self._settings.quarantine_rows_max)
            self._opened_at = time.monotonic()
            self._block = block
        return self._block

    def _wait_for_slot(self) -> Block:
        """Back-pressure: wait for the sinks; after a while pause fetching, and keep serving Kafka's client."""
        self._page["back_pressure"] += 1
        pause_at = time.monotonic() + PAUSE_AFTER_S
        paused = False
        try:
            while (block := self._ring.claim()) is None:
                self._heartbeat()
                self._sinks.check()
                if self._is_over():
                    raise Stopping
                if not paused and time.monotonic() >= pause_at:
                    self._source.pause()
                    self._page["state"] = WorkerState.PAUSED
                    paused = True
                if paused and (chunk := self._source.poll(1, 0)) is not None:
                    self._held.append(chunk)  # fetched before the pause took hold
                self._sinks.wait_for_release(IDLE_WAIT_S)
        finally:
            if paused:
                self._source.resume()
                self._page["state"] = WorkerState.RUNNING
        return block

    def _publish(self) -> None:
        block, self._block = self._block, None
        if block is not None and block.rows:
            self._page["classes"] += block.logs["counts"][: block.log_count].sum(axis=0)
            self._sinks.publish()

    def _heartbeat(self) -> None:
        self._control.beat("source")

    def _report(self) -> None:
        """Once a second: what is not worth telling, or doing, more often."""
        self._report_at = time.monotonic() + REPORT_INTERVAL_S
        for counts, watermark_s in zip(self._bot_counts, self._watermarks_s.tolist(), strict=True):
            counts.forget(watermark_s)
        self._page["bot_counts_bytes"] = sum(counts.nbytes for counts in self._bot_counts)
        self._source.report_committed()
        gc.collect(1)

    def _check_routing(self, chunk: Chunk) -> None:
        """Look at one message of a chunk: is it keyed by its user, and in its key's partition?"""
        sample = chunk.sample
        if len(sample) > MESSAGE_BYTES_MAX:
            return
        try:
            user_id = orjson.loads(sample.value())["user_id"].encode()
        except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError, UnicodeEncodeError):
            return  # no event, so nothing is promised of its key
        page, key = self._page, sample.key()
        page["routing_sampled"] += 1
        if key != user_id:
            page["routing_wrong_key"] += 1
        elif partition_for(key, self._partitions, self._settings.partitioner) != sample.partition():
            page["routing_wrong_partition"] += 1


def _arena_bytes(values: list[bytes | None]) -> int:
    """Bytes of the messages as far as a block may have to keep them."""
    try:
        total = sum(map(len, values))
    except TypeError:  # a null value
        total = sum(len(value) for value in values if value is not None)
    if total > MESSAGE_BYTES_MAX:
        total = sum(
            len(value) if len(value) <= MESSAGE_BYTES_MAX else PAYLOAD_KEPT_BYTES
            for value in values
            if value is not None
        )
    return total
