"""What must hold after every step, and at the end.

Postgres is judged at each COMMIT, before it counts: against the log, by what the plain reference makes of it. The views
are judged whenever a key of theirs has changed: against a recount of the events that Postgres holds.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hotpath.events import PAGE_VIEW, STEP_S
from hotpath.views.contents import sessions_of
from tests.simulation.kafka import Log, Record
from tests.simulation.postgres import EventRow, Server, Session, Transaction
from tests.simulation.redis_store import RedisStore
from tests.simulation.scheduler import Life, Scheduler

PREFIX = b"hotpath:"


@dataclass
class Generations:
    """What was seen of a log's generations: the live one, which one was live when each was begun (None: not known),
    and how far each had applied when another replaced it."""

    live: bytes
    begun: dict[bytes, bytes | None]
    replaced: dict[bytes, bytes] = field(default_factory=dict)


class Invariants:
    """Raises Violation, through the scheduler, at the first thing that is not as it must be."""

    def __init__(self, scheduler: Scheduler, logs: list[Log]) -> None:
        self._scheduler = scheduler
        self._logs = logs
        self.server: Server
        self.store: RedisStore
        self.owners: dict[int, Life] = {}  # by log_id: who took it over last
        self._owned_from_us: dict[int, int] = {}
        self._generations: dict[int, Generations] = {}
        self.damaged: set[tuple[int, bytes]] = set()
        """(log_id, generation) that somebody has damaged so that no script can notice."""

    # Postgres

    def on_commit(self, session: Session, transaction: Transaction) -> None:
        """A transaction is about to be committed."""
        fail = self._scheduler.fail
        entries, inserted, dropped = {}, defaultdict(lambda: defaultdict(list)), Counter()
        history: dict[int, Counter[str]] = defaultdict(Counter)
        for table, row in transaction.inserts:
            if table == "ledger":
                entries[row["log_id"]] = row
            elif table == "bot_activity":
                (log_id, _, _), count = row
                dropped[log_id] += count
            elif table == "history_minutes":
                history[row[0]] += Counter(accepted=row[1], bot=row[2], late=row[3])
            elif table in ("events", "late_events"):
                inserted[row.log_id][table].append(row)
        for log_id, row in transaction.logs.items():
            before = self.server.tables.logs.get(log_id)
            if before is not None and row.next_offset != before.next_offset and log_id not in entries:
                fail(f"log {log_id} moves to {row.next_offset} without an entry in the ledger")
            if row.backend_pid == session.pid and (before is None or before.backend_pid != session.pid):
                self.owners[log_id] = session.life
                self._owned_from_us[log_id] = self._scheduler.now_us
        for log_id in (inserted.keys() | dropped.keys()) - entries.keys():
            fail(f"rows of log {log_id} are stored without an entry in the ledger")
        for log_id, entry in entries.items():
            if any(history[log_id][name] != entry[name] for name in ("accepted", "bot", "late")):
                fail(f"the history of log {log_id} gets {dict(history[log_id])}, the ledger {entry}")
            self._judge_flush(session, transaction, entry, inserted[log_id], dropped[log_id])

    def _judge_flush(
        self,
        session: Session,
        transaction: Transaction,
        entry: dict,
        inserted: dict[str, list[EventRow]],
        dropped: int,
    ) -> None:
        fail = self._scheduler.fail
        log_id, first, next_offset = entry["log_id"], entry["first_offset"], entry["next_offset"]
        before = self.server.tables.logs[log_id]
        what = f"the flush of log {log_id}, {first} to {next_offset},"
        if self.owners.get(log_id) is not session.life:
            fail(f"{what} is committed by {session.life.name}, which does not own it any more")
        if first != before.next_offset:
            fail(f"{what} does not adjoin {before.next_offset}")
        if transaction.logs[log_id].next_offset != next_offset or next_offset <= first:
            fail(f"{what} leaves the log at {transaction.logs[log_id].next_offset}")
        log = self._logs[before.partition]
        if next_offset > log.end:
            fail(f"{what} goes beyond the end of the log, {log.end}")
        records = log.records[log.from_offset(first) : log.from_offset(next_offset)]
        if entry["received"] != len(records):
            fail(f"{what} received {entry['received']} messages of {len(records)}")
        wanted = Counter(_ledger_class(record) for record in records)
        found = {label: entry[label] for label in wanted}
        if found != wanted:
            fail(f"{what} counts {found}, not {dict(wanted)}")
        if dropped != wanted["bot"]:
            fail(f"{what} adds {dropped} to bot_activity, not {wanted['bot']}")
        for table, event_class in (("events", "accepted"), ("late_events", "late")):
            expected = [
                EventRow(log_id, record.offset, record.stored.time_us, *record.stored.texts)
                for record in records
                if record.stored.event_class == event_class
            ]
            if inserted[table] != expected:
                fail(f"{what} stores {inserted[table]} in {table}, not {expected}")
        if entry["watermark_s"] != watermark_s(log, next_offset):
            fail(f"{what} has watermark {entry['watermark_s']}, not {watermark_s(log, next_offset)}")

    def on_lock_timeout(self, session: Session, key: object, holder: Session) -> None:
        """A session has waited in vain: not for that of an owner which it has ended."""
        if key[0] != "log" or session.ended_owners_us is None or key[1] not in self.server.tables.logs:
            return
        owner = self.server.tables.logs[key[1]].backend_pid
        if owner == holder.pid and self._owned_from_us[key[1]] < session.ended_owners_us:
            self._scheduler.fail(
                f"the takeover of log {key[1]} waits for the session of its owner, who hangs"
            )

    # Redis

    def on_change(self) -> None:
        """Keys have changed: look at the views that they belong to."""
        changed = {key.split(b"{", 1)[1].split(b"}", 1)[0] for key in self.store.changed if b"{" in key}
        self.store.changed.clear()
        for log_id in sorted(changed):
            self._check_generations(int(log_id))
            self.check_views(int(log_id))

    def forget_generations(self) -> None:
        """Somebody is about to change keys behind the scripts' back."""
        self._generations.clear()

    def _check_generations(self, log_id: int) -> None:
        """A generation only replaces the one that was live when it was begun, which nobody changes from then on."""
        data = self.store.data
        live = data.get(PREFIX + b"{%d}:current" % log_id)
        live = live if type(live) is bytes else b""
        listed = data.get(PREFIX + b"{%d}:generations" % log_id)
        listed = listed if type(listed) is set else set()
        known = self._generations.get(log_id)
        if known is None:
            self._generations[log_id] = Generations(live, dict.fromkeys(listed))
            return
        for generation in listed - known.begun.keys():
            known.begun[generation] = live
        if live != known.live:
            seen = known.begun.get(live)
            if live and seen is not None and seen != known.live:
                self._scheduler.fail(
                    f"generation {live.decode()} of log {log_id} replaces {known.live.decode()}, "
                    f"but {seen.decode() or 'none'} was live when it was begun"
                )
            known.replaced[known.live] = self._applied(log_id, known.live)
            known.live = live
        for generation, applied in known.replaced.items():
            now = self._applied(log_id, generation)
            if generation != live and now not in (applied, b""):
                self._scheduler.fail(
                    f"generation {generation.decode()} of log {log_id}, which was replaced, goes to {now.decode()}"
                )

    def _applied(self, log_id: int, generation: bytes) -> bytes:
        state = self.store.data.get(self._key(log_id, generation, b"state"))
        return state.get(b"applied", b"") if type(state) is dict else b""

    def live(self, log_id: int) -> tuple[bytes, dict[bytes, bytes]] | None:
        """A log's live generation and its state; None when there is none that works."""
        data = self.store.data
        generation = data.get(PREFIX + b"{%d}:current" % log_id)
        if type(generation) is not bytes:
            return None
        state = data.get(PREFIX + b"{%d}:%s:state" % (log_id, generation))
        if (
            type(state) is not dict
            or not state.get(b"applied", b"").isdigit()
            or state.get(b"layout") is None
        ):
            return None
        return generation, state

    def check_views(self, log_id: int) -> None:
        """Hold a log's live generation against a recount."""
        found, row = self.live(log_id), self.server.tables.logs.get(log_id)
        if found is None or row is None or (log_id, found[0]) in self.damaged:
            return
        generation, state = found
        numbers = {
            name.decode(): int(value) for name, value in state.items() if name not in (b"touched", b"cursor")
        }
        what = f"views of log {log_id}, generation {generation.decode()}, applied {numbers['applied']}:"
        if numbers["applied"] > row.next_offset:
            self._scheduler.fail(f"{what} ahead of Postgres, which is at {row.next_offset}")
        events = self.server.tables.events[log_id]
        self._check_pages(what, log_id, generation, numbers, events)
        self._check_seen(what, log_id, generation, numbers, events)
        self._check_claim(what, numbers, self._logs[row.partition])

    def _key(self, log_id: int, generation: bytes, name: bytes) -> bytes:
        return PREFIX + b"{%d}:%s:%s" % (log_id, generation, name)

    def _check_pages(
        self, what: str, log_id: int, generation: bytes, numbers: dict[str, int], events: list[EventRow]
    ) -> None:
        fail, data = self._scheduler.fail, self.store.data
        applied, base_step = numbers["applied"], numbers["base_step"]
        wanted: Counter[tuple[int, bytes]] = Counter()
        for event in events:
            if event.kafka_offset >= applied:
                break
            step = event.time_us // 1_000_000 // STEP_S
            if step > base_step and event.event_type == PAGE_VIEW:
                wanted[(step, event.page_url.encode())] += 1
        steps = data.get(self._key(log_id, generation, b"steps"), {})
        counted, sums = Counter(), Counter()
        for step in steps:
            hashed = data.get(self._key(log_id, generation, b"pages:" + step), {})
            for page, views in hashed.items():
                sums[page] += int(views)
                if int(step) > base_step:
                    counted[(int(step), page)] = int(views)
        if counted != wanted:
            fail(f"{what} page views {dict(counted - wanted)} too many, {dict(wanted - counted)} too few")
        stored = {
            page: int(views) for page, views in data.get(self._key(log_id, generation, b"pages"), {}).items()
        }
        if stored != dict(sums):
            fail(f"{what} pages are {stored}, their hashes sum to {dict(sums)}")

    def _check_seen(
        self, what: str, log_id: int, generation: bytes, numbers: dict[str, int], events: list[EventRow]
    ) -> None:
        fail, data = self._scheduler.fail, self.store.data
        applied, seen_step = numbers["applied"], numbers["seen_step"]
        least: dict[tuple[bytes, bytes], int] = {}
        most: dict[tuple[bytes, bytes], int] = {}
        for event in events:
            step = event.time_us // 1_000_000 // STEP_S
            if step > seen_step:
                pair = (event.user_id.encode(), event.session_id.encode())
                most[pair] = max(most.get(pair, 0), step)
                if event.kafka_offset < applied:
                    least[pair] = max(least.get(pair, 0), step)
        seen = data.get(self._key(log_id, generation, b"seen"), {})
        slots = {user: dict(sessions_of(record)) for user, record in seen.items()}
        steps = np.frombuffer(data.get(self._key(log_id, generation, b"slots"), b""), "<u4").tolist()
        free = list(map(int, data.get(self._key(log_id, generation, b"free"), [])))
        used = [slot for sessions in slots.values() for slot in sessions.values()]
        if sorted(used + free) != list(range(len(steps))):
            fail(f"{what} slots {sorted(used)} are used and {sorted(free)} free, of {len(steps)}")
        stored = {user: {s: steps[slot] for s, slot in sessions.items()} for user, sessions in slots.items()}
        users = {user: max(sessions.values()) for user, sessions in stored.items()}
        low, high = _by_user(least), _by_user(most)
        for user in low.keys() | users.keys():
            step = users.get(user, 0)
            if max(step, low.get(user, 0)) > seen_step and not low.get(user, 0) <= step <= high.get(user, 0):
                fail(f"{what} user {user} last seen in {step}, not {low.get(user)} to {high.get(user)}")
        for user, session in least:
            step = stored.get(user, {}).get(session, 0)
            if not least[(user, session)] <= step <= most[(user, session)]:
                fail(f"{what} session {session} last seen in {step}, not {least[(user, session)]}")
        listed = data.get(self._key(log_id, generation, b"users"), {})
        if dict(listed) != dict.fromkeys(stored, 0):
            fail(f"{what} users are {dict(listed)}, those with records {sorted(stored)}")
        newest = data.get(self._key(log_id, generation, b"newest"), {})
        counted = Counter(users.values())
        if {int(step): int(count) for step, count in newest.items()} != counted:
            fail(f"{what} newest is {newest}, not {dict(counted)}")
        ranked = data.get(self._key(log_id, generation, b"ranked"), {})
        several = {user: -len(sessions) for user, sessions in stored.items() if len(sessions) > 1}
        if dict(ranked) != several:
            fail(f"{what} ranked is {dict(ranked)}, not {several}")

    def _check_claim(self, what: str, numbers: dict[str, int], log: Log) -> None:
        """complete_until_us: all that was appended until then is applied, or it is no later than the watermark."""
        first = log.from_offset(numbers["applied"])
        until_us = numbers["complete_until_us"]
        if first < len(log.records) and log.records[first].appended_us < until_us - 1_000:
            reached_us = watermark_s(log, numbers["applied"]) * 1_000_000
            if until_us > reached_us:
                self._scheduler.fail(
                    f"{what} said to be complete until {until_us}, with offset {log.records[first].offset} of "
                    f"{log.records[first].appended_us} missing and the watermark at {reached_us}"
                )

    # The end

    def settled(self) -> bool:
        """Whether all messages are in Postgres and all of that in Redis."""
        if any(log.coming for log in self._logs) or len(self.server.tables.logs) != len(self._logs):
            return False
        for log_id, row in self.server.tables.logs.items():
            log = self._logs[row.partition]
            if log.from_offset(row.next_offset) < len(log.records):
                return False
            found = self.live(log_id)
            if found is None or int(found[1][b"applied"]) != row.next_offset:
                return False
        return True

    def check_all(self) -> None:
        """When all has settled: every log, from its beginning."""
        fail, tables = self._scheduler.fail, self.server.tables
        for log_id, row in tables.logs.items():
            at = self._logs[row.partition].low
            for entry in tables.ledger[log_id]:
                if entry["first_offset"] != at:
                    fail(f"the ledger of log {log_id} goes from {at} to {entry['first_offset']}")
                at = entry["next_offset"]
            if at != row.next_offset:
                fail(f"the ledger of log {log_id} ends at {at}, partition_state at {row.next_offset}")
            records = self._logs[row.partition].records
            for table, event_class in (("events", "accepted"), ("late_events", "late")):
                stored = [event.kafka_offset for event in getattr(tables, table)[log_id]]
                if stored != [r.offset for r in records if r.stored.event_class == event_class]:
                    fail(f"{table} of log {log_id} are {stored}")
            self.check_views(log_id)


def _ledger_class(record: Record) -> str:
    event_class = record.stored.event_class
    return "bad_value" if event_class.startswith("refused") else event_class


def _by_user(sessions: dict[tuple[bytes, bytes], int]) -> dict[bytes, int]:
    newest: dict[bytes, int] = {}
    for (user, _), step in sessions.items():
        newest[user] = max(newest.get(user, 0), step)
    return newest


def watermark_s(log: Log, below: int) -> int:
    """Greatest second of an accepted or bot event at offsets below."""
    return max(
        (
            record.stored.time_us // 1_000_000
            for record in log.records[: log.from_offset(below)]
            if record.stored.event_class in ("accepted", "refused accepted", "bot")
        ),
        default=0,
    )


Check = Callable[[], None]
