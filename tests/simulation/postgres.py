"""A Postgres in memory: sessions, transactions, locks. What the named queries do with it is in `postgres_tables`.

As in the real one: READ COMMITTED statements see what was committed when they began, REPEATABLE READ what was when the
transaction did; row locks are held until the end of the transaction; a session whose client is gone lives on until the
server notices, and a COMMIT that it still gets works. Every table is either a dict of committed rows (frozen records)
or a list in the order of commits, so that a snapshot is a number and a shallow copy.

State owned: the committed tables, sessions, locks. Invariant: committed rows change only in `Session.commit`.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg

from tests.simulation.scheduler import Event, Life, Scheduler

PIDS_FROM = 1_000
IDLE_TIMEOUT_S = 20.0
"""As configure_session has it: a client that hangs in a transaction loses its session."""
LINGER_MAX_S = 6.0
"""How long a server may take to notice that a client is gone."""


@dataclass(frozen=True)
class LogRow:
    """A row of partition_state."""

    log_id: int
    topic: str
    topic_id: str
    partition: int
    next_offset: int
    epoch: int
    watermark_s: int
    owner: str
    rules_id: int
    backend_pid: int | None = None
    backend_start: datetime | None = None


@dataclass(frozen=True)
class EventRow:
    """A row of events or late_events."""

    log_id: int
    kafka_offset: int
    time_us: int
    user_id: str
    event_type: str
    page_url: str
    session_id: str


@dataclass
class Tables:
    """What is committed."""

    logs: dict[int, LogRow] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    events: dict[int, list[EventRow]] = field(default_factory=lambda: defaultdict(list))
    late_events: dict[int, list[EventRow]] = field(default_factory=lambda: defaultdict(list))
    quarantine: dict[int, list[tuple]] = field(default_factory=lambda: defaultdict(list))
    bot_activity: dict[tuple[int, str, int], int] = field(default_factory=dict)
    ledger: dict[int, list[dict]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Snapshot:
    """What a statement or transaction sees: rows of partition_state, and how many events of each log."""

    logs: dict[int, LogRow]
    events: dict[int, int]


@dataclass
class Transaction:
    """What a transaction has done so far; nothing of it is in the tables."""

    snapshot: Snapshot | None = None  # REPEATABLE READ, once it has read
    repeatable: bool = False
    logs: dict[int, LogRow] = field(default_factory=dict)
    inserts: list[tuple[str, object]] = field(default_factory=list)  # (table, row)
    savepoints: list[tuple[dict[int, LogRow], int]] = field(default_factory=list)
    failed: bool = False


class Server:
    """See the module's docstring."""

    def __init__(self, scheduler: Scheduler, on_commit: Callable[["Session", Transaction], None]) -> None:
        self.scheduler = scheduler
        self.on_commit = on_commit
        self.tables = Tables()
        self.sessions: dict[int, Session] = {}
        self.advisory: dict[object, list[Session]] = {}  # its holder, as often as it has taken it
        self.row_locks: dict[object, Session] = {}
        self.released = Event()
        self.generation = 0  # the sequence view_generation: not transactional
        self.log_ids = 0  # an identity, neither
        self.up_at_us = 0
        self.on_lock_timeout: Callable[[Session, object, Session], None] = lambda session, key, holder: None
        self.refuses_row: Callable[[EventRow], bool] = lambda row: False
        self._pids = PIDS_FROM

    @property
    def up(self) -> bool:
        return self.scheduler.now_us >= self.up_at_us

    def connect(self, life: Life | None) -> "Session":
        self._pids += 1
        session = Session(self, self._pids, life)
        self.sessions[session.pid] = session
        return session

    def restart(self, away_s: float) -> None:
        """kill -9 of the server: every session ends, what is committed stays."""
        self.up_at_us = self.scheduler.now_us + int(away_s * 1e6)
        for session in list(self.sessions.values()):
            session.end()

    def snapshot(self) -> Snapshot:
        tables = self.tables
        return Snapshot(tables.logs, {log_id: len(rows) for log_id, rows in tables.events.items()})


class Session:
    """A server process."""

    def __init__(self, server: Server, pid: int, life: Life | None) -> None:
        self.server = server
        self.pid = pid
        self.life = life
        self.backend_start = datetime.fromtimestamp(server.scheduler.now_us / 1e6, UTC)
        self.transaction: Transaction | None = None
        self.locks: set[object] = set()
        self.waits_for: Session | None = None
        self.waits_until_us = 0
        self.lock_timeout_s = 5.0
        self.idle_limit_s = float("inf")  # outside of a transaction; see limit_idle_session
        self.active_us = server.scheduler.now_us
        self.ended_owners_us: int | None = None  # when it last ended the sessions of logs' owners
        self.ended = False
        self.terminated = False

    # Transactions

    def begin(self, repeatable: bool) -> Transaction:
        self.transaction = Transaction(repeatable=repeatable)
        return self.transaction

    def commit(self) -> None:
        """Make it so; of a failed transaction, roll it back as Postgres does."""
        transaction, tables = self.transaction, self.server.tables
        if transaction.failed:
            self.rollback()
            return
        self.server.on_commit(self, transaction)
        if transaction.logs:
            tables.logs = tables.logs | transaction.logs  # a new dict: snapshots hold the old one
        for table, row in transaction.inserts:
            _insert(tables, table, row)
        self._over()

    def rollback(self) -> None:
        self._over()

    def _over(self) -> None:
        self.transaction = None
        locks = self.server.row_locks
        for key in self.locks:
            del locks[key]
        if self.locks:
            self.locks = set()
            self.server.released.set()
            self.server.released.clear()

    # Reading

    def visible(self) -> Snapshot:
        """What the present statement sees of other transactions."""
        transaction = self.transaction
        if not transaction.repeatable:
            return self.server.snapshot()
        if transaction.snapshot is None:
            transaction.snapshot = self.server.snapshot()
        return transaction.snapshot

    def logs(self) -> dict[int, LogRow]:
        """Rows of partition_state as this statement sees them."""
        return self.visible().logs | self.transaction.logs

    def events(self, log_id: int) -> list[EventRow]:
        """Committed events of a log as this statement sees them. (No query reads events that it wrote itself.)"""
        seen = self.visible().events.get(log_id, 0)
        return self.server.tables.events[log_id][:seen] if seen else []

    # Locks

    def lock(self, key: object) -> None:
        """Hold a row until the transaction ends. Raises LockNotAvailable, DeadlockDetected, AdminShutdown."""
        locks, scheduler = self.server.row_locks, self.server.scheduler
        deadline_us = self.waits_until_us = scheduler.now_us + int(self.lock_timeout_s * 1e6)
        while (holder := locks.get(key)) not in (None, self):
            if scheduler.now_us - holder.idle_since_us > IDLE_TIMEOUT_S * 1e6:
                holder.end()  # idle_in_transaction_session_timeout
                continue
            self.waits_for = holder
            try:
                self._refuse_deadlock()
                left_s = (deadline_us - scheduler.now_us) / 1e6
                if left_s <= 0:
                    self.server.on_lock_timeout(self, key, holder)
                    raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
                self.server.released.wait(left_s)
            finally:
                self.waits_for = None
            self.require_alive()
        locks[key] = self
        self.locks.add(key)

    def _refuse_deadlock(self) -> None:
        other = self.waits_for
        while other is not None:
            if other is self:
                raise psycopg.errors.DeadlockDetected("deadlock detected")
            other = other.waits_for

    def require_alive(self) -> None:
        if self.ended:
            raise psycopg.errors.AdminShutdown("terminating connection due to administrator command")

    # Ends

    def end_if_idle(self) -> None:
        """Do what the time-outs do to a session whose client has hung for long, when somebody comes upon it."""
        limit_s = self.idle_limit_s if self.transaction is None else IDLE_TIMEOUT_S
        if self.server.scheduler.now_us - self.idle_since_us > limit_s * 1e6:
            self.end()

    @property
    def idle_since_us(self) -> int:
        """Since when the server waits for the client: while it waits for a lock not before the lock's time-out, which
        comes whether the client lives or hangs."""
        return self.active_us if self.waits_for is None else max(self.active_us, self.waits_until_us)

    def end(self) -> None:
        """The process is gone; its transaction never was."""
        if self.ended:
            return
        self.ended = True
        self._over()
        for holders in self.server.advisory.values():
            if self in holders:
                holders.clear()
        del self.server.sessions[self.pid]
        self.server.released.set()
        self.server.released.clear()

    def terminate(self) -> None:
        """pg_terminate_backend: soon, not at once; a COMMIT that has begun still works."""
        self.terminated = True
        scheduler = self.server.scheduler
        if scheduler.random.random() < 0.5:
            self.end()
        else:
            scheduler.spawn(f"signal to {self.pid}", self.end, delay_s=scheduler.random.random() * 0.01)

    def orphan(self, pending: Callable[[], object] | None) -> None:
        """The client is gone. `pending` is what it had sent last, which the server may get to yet."""
        scheduler = self.server.scheduler

        def linger() -> None:
            longest = LINGER_MAX_S if scheduler.random.random() < 0.25 else 0.05
            if pending is not None:
                scheduler.sleep(longest * scheduler.random.random())
                if not self.ended:
                    scheduler.note(f"server process {self.pid} gets to its client's last words")
                    try:
                        pending()
                    except psycopg.Error as error:
                        scheduler.note(f"... {type(error).__name__}")
            scheduler.sleep(longest * scheduler.random.random())
            self.end()

        if not self.ended:
            scheduler.spawn(f"server process {self.pid}", linger)


def _insert(tables: Tables, table: str, row: object) -> None:
    if table == "bot_activity":
        key, dropped = row
        tables.bot_activity[key] = tables.bot_activity.get(key, 0) + dropped
    elif table == "rules":
        tables.rules.setdefault(*row)
    elif table == "ledger":
        tables.ledger[row["log_id"]].append(row)
    elif table == "history_minutes":
        pass  # judged at the commit; nothing of the protocol reads it
    elif table == "quarantine":
        tables.quarantine[row[0]].append(row)
    else:
        getattr(tables, table)[row.log_id].append(row)
