"""A small world around the live views: logs in Postgres, one sink, and what the views must be by brute force."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import psycopg
import redis

from hotpath.events import PAGE_VIEW, STEP_S, EventClass
from hotpath.settings import PipelineSettings
from hotpath.shm.block import Block
from hotpath.shm.control import LOG_STATUS_DTYPE
from hotpath.views import keys, link
from hotpath.views.contents import sessions_of
from hotpath.views.read import ViewReader
from hotpath.workers.redis_sink import RedisSink
from tests.support.blocks import NOON_US, Event, append_events, new_block
from tests.support.pipeline import wait_until

VIEW_PARTS = ["state", "users", "seen", "slots", "free", "newest", "ranked", "pages", "steps"]
"""Of a generation, beside the hashes pages:<step>."""


def record_of(slots: dict[bytes, int]) -> bytes:
    """What stands in `seen` of a user with these sessions (session_id -> slot)."""
    return b"".join(slot.to_bytes(4, "little") + bytes([len(s)]) + s for s, slot in slots.items())


def stored_sessions(client: redis.Redis, name: Callable[[str], str], user: str | bytes) -> dict[bytes, int]:
    """session_id -> last-seen step of a user. `name`: the key of a part of the generation."""
    slots = dict(sessions_of(client.hget(name("seen"), user) or b""))
    steps = client.get(name("slots"))
    return {s: int.from_bytes(steps[4 * slot : 4 * slot + 4], "little") for s, slot in slots.items()}


def put_sessions(
    client: redis.Redis, name: Callable[[str], str], user: str, sessions: dict[bytes, int]
) -> None:
    """Make these a user's sessions, so that nothing contradicts itself. `name`: the key of a part of the generation."""
    if known := stored_sessions(client, name, user):
        client.hincrby(name("newest"), max(known.values()), -1)
    client.hincrby(name("newest"), max(sessions.values()), 1)
    client.zadd(name("users"), {user: 0})
    slots = dict(sessions_of(client.hget(name("seen"), user) or b""))
    for session in known.keys() - sessions.keys():
        client.rpush(name("free"), slots.pop(session))
    for session, step in sessions.items():
        slot = slots.setdefault(session, client.strlen(name("slots")) // 4)
        client.setrange(name("slots"), 4 * slot, step.to_bytes(4, "little"))
    client.hset(name("seen"), user, record_of(slots))
    if len(sessions) > 1:
        client.zadd(name("ranked"), {user: -len(sessions)})
    else:
        client.zrem(name("ranked"), user)


class World:
    """Logs 1..n of one worker: what was committed to Postgres, and a sink that may or may not have applied it."""

    def __init__(self, dsn: str, redis_url: str, logs: int = 2, background: bool = False) -> None:
        self.settings = PipelineSettings(postgres_dsn=dsn, redis_url=redis_url)
        self.background = background
        self.postgres = psycopg.connect(dsn, autocommit=True)
        self.redis = redis.Redis.from_url(redis_url)
        self.events: list[Event] = []
        with self.postgres.transaction():
            rules_id = self.postgres.execute(
                "insert into rules (rules) values ('{}') on conflict (rules) do update set rules = '{}'"
                " returning rules_id"
            ).fetchone()[0]
            rows = [
                self.postgres.execute(
                    "insert into partition_state (topic, topic_id, partition, next_offset, epoch, owner, rules_id)"
                    " values ('events', 'id', %s, 0, 1, 'test', %s) returning log_id",
                    (partition, rules_id),
                ).fetchone()[0]
                for partition in range(logs)
            ]
        self.log_ids = rows
        self.status = np.zeros(logs, LOG_STATUS_DTYPE)
        self.status["log_id"], self.status["partition"] = rows, range(logs)
        self.status["epoch"] = 1
        self.now_us = NOON_US
        self.sink = self.new_sink()

    def new_sink(self) -> RedisSink:
        return RedisSink(self.settings, self.status, self.background, lambda: self.now_us)

    def commit(self, events: list[Event]) -> Block:
        """A block of events (by rising offset within a log), committed to Postgres."""
        block = new_block(self.log_ids, self.status["committed"].tolist())
        block.logs["watermark_s"][: len(self.log_ids)] = self.status["watermark_s"]
        append_events(block, events)
        accepted = [event for event in events if event.event_class is EventClass.ACCEPTED]
        with self.postgres.transaction():
            with self.postgres.cursor().copy(
                "copy events (log_id, kafka_offset, ts, user_id, event_type, page_url, session_id) from stdin"
            ) as copy:
                for event in accepted:
                    at = np.datetime64(event.time_us, "us")
                    copy.write_row((self.log_ids[event.log_index], event.offset, f"{at}Z", *event.texts))
            for entry in block.logs[: block.log_count]:
                self.postgres.execute(
                    "update partition_state set next_offset = %s, watermark_s = %s where log_id = %s",
                    (int(entry["next_offset"]), int(entry["watermark_s"]), int(entry["log_id"])),
                )
        self.status["committed"] = self.status["consumed"] = block.logs["next_offset"]
        self.status["watermark_s"] = block.logs["watermark_s"]
        self.status["log_end"] = self.status["committed"]
        self.events += accepted
        return block

    def at_end(self, now_us: int) -> None:
        """The source saw each log at its end at this moment."""
        self.now_us = now_us
        self.status["ended_offset"] = self.status["consumed"]
        self.status["ended_at_us"] = now_us

    def run(self, events: list[Event], now_us: int) -> None:
        """Commit, apply, and two ticks: the second has the as_of that the first published."""
        block = self.commit(events)
        assert self.sink.apply([block])
        self.at_end(now_us)
        self.tick(now_us)

    def tick(self, now_us: int) -> None:
        """Ticks until every log is in step with Postgres and its as_of is published."""

        def settled() -> bool:
            here = self.sink.tick(now_us)
            return here and (self.status["applied"] == self.status["committed"]).all()

        wait_until(settled, "the views are in step with Postgres")
        assert self.sink.tick(now_us)
        assert self.sink.tick(now_us)

    def close(self) -> None:
        self.sink.close()
        self.postgres.close()
        self.redis.close()

    # What the views must be, event by event

    def _inside(self, as_of_us: int, window_s: int) -> list[tuple[Event, int]]:
        start = as_of_us // 10_000_000 - window_s // STEP_S
        steps = ((event, event.time_us // 10_000_000) for event in self.events)
        return [(event, step) for event, step in steps if step > start]

    def expected_users(self, as_of_us: int) -> int:
        return len({event.user_id for event, _ in self._inside(as_of_us, 300)})

    def expected_pages(self, as_of_us: int, limit: int) -> list[tuple[bytes, int]]:
        views = Counter(
            event.page_url.encode()
            for event, _ in self._inside(as_of_us, 900)
            if event.event_type == PAGE_VIEW
        )
        return sorted(views.items(), key=lambda entry: (-entry[1], entry[0]))[:limit]

    def expected_sessions(self, as_of_us: int, user_id: str) -> list[tuple[bytes, int]]:
        newest: dict[bytes, int] = {}
        for event, step in self._inside(as_of_us, 300):
            if event.user_id == user_id:
                session = event.session_id.encode()
                newest[session] = max(step, newest.get(session, 0))
        return sorted(newest.items(), key=lambda entry: (-entry[1], entry[0]))

    def expected_top_users(self, as_of_us: int, limit: int) -> list[tuple[bytes, int]]:
        sessions = {(event.user_id.encode(), event.session_id) for event, _ in self._inside(as_of_us, 300)}
        counts = Counter(user for user, _ in sessions)
        return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit]

    def check_lists(self) -> None:
        """`users`, `newest` and `ranked` say what the records of `seen` say."""
        for log_id in self.log_ids:
            live = self.redis.get(keys.current("hotpath", log_id)).decode()

            def name(part: str, log_id: int = log_id, live: str = live) -> str:
                return keys.part("hotpath", log_id, live, part)

            stored = {
                user: stored_sessions(self.redis, name, user) for user in self.redis.hkeys(name("seen"))
            }
            assert all(stored.values())
            records = self.redis.hvals(name("seen"))
            used = [slot for record in records for _, slot in sessions_of(record)]
            free = list(map(int, self.redis.lrange(name("free"), 0, -1)))
            assert sorted(used + free) == list(range(self.redis.strlen(name("slots")) // 4))
            assert self.redis.zrange(name("users"), 0, -1, withscores=True) == [
                (u, 0) for u in sorted(stored)
            ]
            newest = Counter(max(sessions.values()) for sessions in stored.values())
            assert {int(k): int(v) for k, v in self.redis.hgetall(name("newest")).items()} == newest
            ranked = dict(self.redis.zrange(name("ranked"), 0, -1, withscores=True))
            assert ranked == {user: -len(sessions) for user, sessions in stored.items() if len(sessions) > 1}

    async def check(self, limit: int = 5) -> int:
        """Compare every view with what it must be; the as_of at which they were read."""
        client = link.connect_async(self.settings.redis_url, 2.0, 4)
        try:
            reader = ViewReader(client, self.settings)
            users = await reader.active_users()
            pages = await reader.top_pages(limit)
            as_of_us = users.head.as_of_us
            assert users.value == self.expected_users(as_of_us)
            assert pages.value == self.expected_pages(pages.head.as_of_us, limit)
            top_users = await reader.top_users(limit)
            assert top_users.value == self.expected_top_users(top_users.head.as_of_us, limit)
            for user_id in {event.user_id for event in self.events}:
                sessions = await reader.user_sessions(user_id)
                assert sessions.value == self.expected_sessions(sessions.head.as_of_us, user_id)
            return as_of_us
        finally:
            await client.aclose()
