"""The topic of a simulated world, and the consumer that the real Source reads it with.

Logs are taken from a stock that is made once per process: what becomes of their messages is asked of the plain
reference, and that costs more than a whole simulation. A world gives them offsets, with gaps as transactions and
compaction leave them, and appends them little by little.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from hotpath.reference import Reference
from tests.simulation.scheduler import START_US, Scheduler

TOPIC, TOPIC_ID = "events", "topic-1"
FUTURE_MAX_S, LATE_MAX_S, BOT_PAGE_VIEWS_MAX = 3_600, 12, 2
STOCK = 48
POISON = "/poison"
"""A page in rows that Postgres will refuse: no real page can make it do so, but a schema might."""


@dataclass(frozen=True)
class Stored:
    """A message without its place: its value, its age in its log, and what must become of it."""

    value: bytes | None
    after_s: float
    event_class: str
    time_us: int | None
    texts: tuple[str, ...] | None


@dataclass(frozen=True)
class Record:
    """A message in its place."""

    offset: int
    appended_us: int
    stored: Stored


@cache
def stock() -> list[list[Stored]]:
    """Logs of 12 to 40 messages over about a minute."""
    chance = random.Random(20_240_315)
    return [_log(chance) for _ in range(STOCK)]


def _log(chance: random.Random) -> list[Stored]:
    reference = Reference(FUTURE_MAX_S, LATE_MAX_S, BOT_PAGE_VIEWS_MAX)
    users = [f"u{chance.randrange(100)}" for _ in range(chance.randrange(2, 8))]
    after_s, found = 0.0, []
    for _ in range(chance.randrange(12, 40)):
        after_s += chance.choice((0, 0, 0.2, 0.5, 1, 3, 8))
        value = _message(chance, users, after_s)
        append_time_us = START_US + int(after_s * 1_000) * 1_000
        outcome = reference.classify(0, value, append_time_us)
        texts = tuple(text.decode() for text in outcome.texts) if outcome.texts else None
        event_class, time_us = outcome.event_class, outcome.time_us
        if event_class in ("accepted", "late") and texts[2] == POISON:
            event_class = f"refused {event_class}"
        found.append(Stored(value, after_s, event_class, time_us, texts))
    return found


def _message(chance: random.Random, users: list[str], after_s: float) -> bytes | None:
    kind = chance.random()
    if kind < 0.04:
        return chance.choice((None, b"", b"{", b"[]", b'{"user_id":"u"}', b"\xff"))
    behind_s = chance.choice((0, 0, 0, 1, 2, 5, 30)) if kind < 0.3 else 0
    if 0.3 < kind < 0.32:
        behind_s = -FUTURE_MAX_S - 60
    moment = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(seconds=int(after_s) - behind_s)
    user = chance.choice(users)
    page = f"/p{chance.randrange(6)}"
    event_type = "page_view" if chance.random() < 0.8 else "click"
    if chance.random() < 0.005:
        page, event_type = POISON, "click"
    event = {
        "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "user_id": user,
        "event_type": event_type,
        "page_url": page,
        "session_id": f"{user}-s{chance.randrange(3)}",
    }
    return json.dumps(event).encode()


class Log:
    """One partition: `records` are there to be read, `coming` are not yet."""

    def __init__(self, partition: int, messages: list[Stored], chance: random.Random) -> None:
        self.partition = partition
        offset = self.low = chance.choice((0, 0, 7, 1_000_000))
        gaps = chance.choice((0.0, 0.0, 0.1, 0.5))
        self.records: list[Record] = []
        self.coming: list[tuple[int, Stored]] = []
        for stored in messages:
            if chance.random() < gaps:
                offset += chance.randrange(1, 5)
            self.coming.append((offset, stored))
            offset += 1
        self.end = self.low
        self.trailing = chance.random() < gaps

    def append(self, now_us: int, count: int) -> None:
        for offset, stored in self.coming[:count]:
            self.records.append(Record(offset, now_us, stored))
            self.end = offset + 1 + (1 if self.trailing else 0)
        del self.coming[:count]

    def from_offset(self, offset: int) -> int:
        """Index of the first record at or after an offset."""
        low, high = 0, len(self.records)
        while low < high:
            middle = (low + high) // 2
            if self.records[middle].offset < offset:
                low = middle + 1
            else:
                high = middle
        return low


class Consumer:
    """confluent_kafka.Consumer, as far as Source uses it."""

    def __init__(
        self, scheduler: Scheduler, logs: list[Log], options: dict, note_read: Callable[[Log, int], None]
    ) -> None:
        self._scheduler = scheduler
        self._logs = logs
        self._statistics: Callable[[str], None] = options["stats_cb"]
        self._note_read = note_read
        self._positions: dict[int, int] = {}
        self._told_end: set[int] = set()
        self._paused = False
        self._statistics_at_us = 0

    def assign(self, partitions: list) -> None:
        self._positions = {tp.partition: tp.offset for tp in partitions}

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        scheduler = self._scheduler
        scheduler.step()
        if scheduler.now_us >= self._statistics_at_us:
            self._statistics_at_us = scheduler.now_us + 2_000_000
            self._statistics(self._report())
        if not (found := self._fetched(count)):
            scheduler.sleep(timeout_s)
            found = self._fetched(count)
        return found

    def _fetched(self, count: int) -> list[Message]:
        if self._paused:
            return []
        found: list[Message] = []
        chance = self._scheduler.random
        waiting = [
            p for p, at in self._positions.items() if at < self._logs[p].end or p not in self._told_end
        ]
        if len(waiting) > 1:
            chance.shuffle(waiting)
        for partition in waiting:
            log, position = self._logs[partition], self._positions[partition]
            first = log.from_offset(position)
            if first == len(log.records) and partition in self._told_end:
                continue  # only a gap is left
            room = max(0, count - len(found))
            taken = log.records[first : first + chance.randint(min(room, 1), room)] if room else []
            for record in taken:
                stamp = (TIMESTAMP_LOG_APPEND_TIME, record.appended_us // 1_000)
                found.append(
                    Message(
                        topic=TOPIC,
                        partition=partition,
                        offset=record.offset,
                        key=b"k",
                        value=record.stored.value,
                        timestamp=stamp,
                    )
                )
            if taken:
                self._positions[partition] = taken[-1].offset + 1
                self._told_end.discard(partition)
            if first + len(taken) == len(log.records) and partition not in self._told_end:
                self._told_end.add(partition)
                end = KafkaError(KafkaError._PARTITION_EOF)
                found.append(Message(topic=TOPIC, partition=partition, offset=log.end, error=end))
        return found

    def _report(self) -> str:
        def state(log: Log) -> dict:
            return {"partition": log.partition, "ls_offset": log.end, "leader": 1, "fetch_state": "active"}

        partitions = {str(p): state(self._logs[p]) for p in self._positions}
        broker = {"nodeid": 1, "state": "UP", "rxidle": 300_000}
        statistics = {"time": self._scheduler.now_us // 1_000_000, "brokers": {"1": broker}}
        return json.dumps(statistics | {"topics": {TOPIC: {"partitions": partitions}}})

    def pause(self, partitions: list) -> None:
        self._paused = True

    def resume(self, partitions: list) -> None:
        self._paused = False

    def commit(self, offsets: list, asynchronous: bool) -> None:
        pass

    def close(self) -> None:
        pass
