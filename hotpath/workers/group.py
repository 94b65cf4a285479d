"""A worker in group mode: one assignment after the other, as Kafka's consumer group gives and takes partitions.

Whenever the partitions that the worker should have are not those that it has, or another owner has fenced it, it
1. commits what was read, for as long as a hand-over may take; what is left over is read again by the next owner,
2. lets go of everything between Kafka and the servers,
3. takes over what it should have now, and goes on from what Postgres holds.

A log that was taken over by somebody else is held back for a moment, while the worker goes on with the others: if the
group has given it away, the news will have come by then; if not, it is taken over again. Whoever took it by mistake
(a worker that was stopped in the middle of a takeover) finds out the same way. A log that cannot be read is held back
as well, and tried again now and then; the others go on.

The worker is in the group only while it can reach Postgres: it joins when Postgres answers, and when Postgres has not
answered for a while it leaves and ends its process; the next one joins when Postgres answers.
"""

import logging
import time

import psycopg

from hotpath import sql
from hotpath.errors import Fenced, HotpathError, LogLost, Unavailable
from hotpath.kafka import describe_topic
from hotpath.settings import PipelineSettings
from hotpath.shm.control import WorkerState
from hotpath.workers.assignment import Assignment, Worker
from hotpath.workers.membership import Membership, Replaced
from hotpath.workers.postgres_session import PostgresSession
from hotpath.workers.postgres_watch import PostgresWatch

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.05
FENCED_PAUSE_S = 2.0
"""Twice what the news from the group takes: a worker that has lost a log should not fence the one that has it now."""
LOST_PAUSE_S = 30.0
CONNECT_TIMEOUT_S = 2


def work_in_group(worker: Worker) -> None:
    """Work until the worker is told to stop. Raises HotpathError, and TimeoutError when a sink hangs."""
    _wait_for_postgres(worker)
    if worker.stop.is_set():
        return
    postgres = PostgresWatch(worker.settings, worker.index)
    membership = Membership(worker.settings, worker.index, postgres)
    log.info("worker %d joins group %r as %s", worker.index, worker.settings.group, membership.name)
    _GroupWorker(worker, membership).run()
    membership.close()
    postgres.close()


def _wait_for_postgres(worker: Worker) -> None:
    settings, control = worker.settings, worker.control
    name = f"hotpath worker {worker.index}"
    session = PostgresSession(settings, name, worker.stop.is_set, control.beat_all)
    while session.lost:
        try:
            session.connect()
        except psycopg.Error as error:
            session.recover(error)
    session.close()


class _GroupWorker:
    """The loop of assignments, in the worker's main thread."""

    def __init__(self, worker: Worker, membership: Membership) -> None:
        self._worker = worker
        self._control = worker.control
        self._membership = membership
        self._held_back: dict[int, float] = {}  # partition: until when, time.monotonic()

    def run(self) -> None:
        while not self._worker.stop.is_set():
            wanted = self._membership.take(self._barred())
            if wanted:
                self._work(wanted)
                self._membership.let_go()
            else:
                self._idle()

    def _idle(self) -> None:
        self._control.beat_all()
        self._control.page["state"] = WorkerState.IDLE
        self._control.page["kafka_down"] = self._membership.kafka_down
        try:
            self._membership.check()
        except Replaced as error:
            raise _joins_anew(error) from None  # with no log in hand nobody can tell whose name it is
        self._membership.wait(IDLE_WAIT_S)

    def _work(self, wanted: frozenset[int]) -> None:
        assignment = self._take_over(wanted)
        if assignment is None:
            return
        self._control.page["assignments"] += 1
        try:
            assignment.run(lambda: self._is_over(wanted))
        except Replaced as error:
            self._require_own_name(assignment, error, FENCED_PAUSE_S)
            raise _joins_anew(error) from None
        except Fenced as error:
            # Postgres may tell before Kafka does; to go on would be to take the name back from the other.
            self._require_own_name(assignment, error, 0)
            log.warning("%s", error)
            self._control.page["fenced"] += 1
            self._hold_back(_taken_by_others(self._worker.settings, assignment), FENCED_PAUSE_S)
            assignment.abandon()
        else:
            self._hand_over(assignment)
        self._membership.let_go()  # closing takes a moment that nobody has to wait for
        assignment.close()

    def _hand_over(self, assignment: Assignment) -> None:
        """Commit what was read, unless others have it already; what does not get through is left to them."""
        settings = self._worker.settings
        stopping = self._worker.stop.is_set()
        if self._membership.lost:
            assignment.abandon()
            return
        try:
            assignment.drain(settings.drain_deadline_s if stopping else settings.group_handover_s)
        except (HotpathError, TimeoutError) as error:
            if stopping:
                raise
            log.warning("let go before everything was committed, it will be read again: %s", error)
            assignment.abandon()

    def _take_over(self, wanted: frozenset[int]) -> Assignment | None:
        """The assignment; None when it is not to be, for now. Raises HotpathError."""
        settings = self._worker.settings
        if len(wanted) > self._worker.logs_max:
            raise HotpathError(
                f"{len(wanted)} partitions, but memory for {self._worker.logs_max}: starts again with more"
            )
        self._control.beat_all()
        try:
            topic = describe_topic(settings)
            return Assignment(
                self._worker,
                topic,
                sorted(wanted),
                gives_up=lambda: self._is_stale(wanted),
                commit_offsets=self._membership.commit,
            )
        except LogLost as error:
            if error.partition is None:
                raise
            log.error("partition %d is left alone: %s", error.partition, error)
            self._hold_back({error.partition}, LOST_PAUSE_S)
        except Fenced as error:
            log.warning("%s", error)
            self._control.page["fenced"] += 1
            self._hold_back(wanted, FENCED_PAUSE_S)
        except Unavailable:
            if not self._is_stale(wanted):
                raise
        return None

    def _require_own_name(self, assignment: Assignment, error: HotpathError, look_s: float) -> None:
        """Raise Replaced if the worker of another supervisor works under this one's name; look for so long.

        Else Kafka has seen two members in this one: a commit that was under way when its session timed out.
        """
        settings = self._worker.settings
        look_until = time.monotonic() + look_s
        while True:
            self._control.beat_all()
            _, owners = _owners(settings, assignment)
            if any(o != assignment.owner and o.startswith(assignment.name) for o in owners.values()):
                raise Replaced(
                    f"another supervisor is {settings.machine!r}, too: set HOTPATH_MACHINE; {error}"
                )
            if time.monotonic() >= look_until:
                return
            time.sleep(IDLE_WAIT_S)

    # What it should have

    def _is_over(self, wanted: frozenset[int]) -> bool:
        """Whether the assignment ends. Raises Replaced, and Unavailable when the worker had to leave the group."""
        self._membership.check()
        return self._is_stale(wanted)

    def _is_stale(self, wanted: frozenset[int]) -> bool:
        """Whether the worker should have something else by now, or stop."""
        return self._worker.stop.is_set() or self._membership.given.difference(self._barred()) != wanted

    def _barred(self) -> dict[int, float]:
        """Partitions that are held back; those whose time is up, or that the group has taken away, are no more."""
        if self._held_back:
            now, given = time.monotonic(), self._membership.given
            self._held_back = {p: until for p, until in self._held_back.items() if until > now and p in given}
            self._control.page["held_back"] = len(self._held_back)
        return self._held_back

    def _hold_back(self, partitions: set[int] | frozenset[int], pause_s: float) -> None:
        self._held_back |= dict.fromkeys(partitions, time.monotonic() + pause_s)
        self._control.page["held_back"] = len(self._held_back)


def _joins_anew(error: Replaced) -> Unavailable:
    return Unavailable(f"leaves the group, and joins it anew: {error}")


def _taken_by_others(settings: PipelineSettings, assignment: Assignment) -> set[int]:
    """The partitions of an assignment that others have taken over since; all when it cannot be found out."""
    epochs, _ = _owners(settings, assignment)
    taken = {h.partition for h in assignment.handles if epochs.get(h.log_id) != h.epoch}
    return taken or set(assignment.partitions)


def _owners(settings: PipelineSettings, assignment: Assignment) -> tuple[dict[int, int], dict[int, str]]:
    """Epoch and owner of each log of an assignment as Postgres has them now, by log_id; nothing when it is away."""
    parameters = {"log_ids": [handle.log_id for handle in assignment.handles]}
    try:
        with psycopg.connect(settings.postgres_dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            rows = connection.execute(sql.QUERIES["log_owners"], parameters).fetchall()
    except psycopg.Error:
        rows = []
    return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}
