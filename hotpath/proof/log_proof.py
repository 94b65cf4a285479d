"""Proves one log: its messages once through the stages, and everything that Postgres has of them beside it.

Per chunk of messages, in this order (what comes first may change what follows is compared with):

1. the stored quarantine rows of its offsets are taken: they tell `future` where no append times do
2. the stages classify the chunk; the plain reference judges some of it again
3. events that Postgres itself is said to have refused become `bad_value`
4. with shared bot counts: which page views were bots is taken from `events`; their numbers must agree all the same
5. rows of `events` and `late_events`, rows of quarantine, the ledger, `bot_activity`, the history
6. what the live views must hold of it is gathered

When the log is through, what ends with it is compared: `partition_state`, the live views.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from hotpath.events import Detail, EventClass
from hotpath.proof.absences import Absences
from hotpath.proof.bot_activity import BotActivityCheck, BotActivityRows
from hotpath.proof.bot_activity import Bounds as BotBounds
from hotpath.proof.event_rows import EventRows
from hotpath.proof.expected_views import ExpectedViews
from hotpath.proof.findings import Findings
from hotpath.proof.history import HistoryCheck
from hotpath.proof.ledger import LedgerCheck, LedgerRows
from hotpath.proof.messages import LogReader, Messages
from hotpath.proof.plan import LogPlan
from hotpath.proof.quarantine_rows import QuarantineRows, future_rows, refuse_as_postgres
from hotpath.proof.second_opinion import SecondOpinion
from hotpath.proof.snapshot import Snapshot
from hotpath.proof.stages import Stages
from hotpath.proof.view_proof import ViewProof
from hotpath.settings import PipelineSettings, Rules
from hotpath.shm.block import Block
from hotpath.views.expected import expected_of
from hotpath.workers.classify import keep_payloads, payload_room

_EVER, _NEVER = -(1 << 61), 1 << 61
"""Append times that make every event, or none, one of the future."""


@dataclass(frozen=True)
class Stored:
    """What Postgres holds of all logs of a proof, each in the order in which the logs are proven."""

    events: EventRows
    late_events: EventRows
    quarantine: QuarantineRows
    ledger: LedgerRows
    bot_activity: BotActivityRows


@dataclass(frozen=True)
class Manner:
    """How a proof is made; `compacted`: Kafka removes messages from this topic that others have superseded."""

    settings: PipelineSettings
    seed: int
    full: bool
    compacted: bool
    now: datetime


class LogProof:
    """One log. `progress` is told how many offsets have been read."""

    def __init__(
        self,
        plan: LogPlan,
        manner: Manner,
        snapshot: Snapshot,
        reader: LogReader,
        stored: Stored,
        views: ViewProof,
        findings: Findings,
        progress: Callable[[int], None] = lambda offsets: None,
    ) -> None:
        self._plan = plan
        self._manner = manner
        self._snapshot = snapshot
        self._reader = reader
        self._stored = stored
        self._views = views
        self._found = views.of(plan.log_id)
        self._expected_views: ExpectedViews | None = None
        if self._found is not None and plan.from_beginning and plan.to_end:
            self._expected_views = ExpectedViews(self._found, plan.next_offset)
        self._findings = findings
        self._progress = progress
        self._absences = Absences(plan.partition, manner.settings, manner.now, snapshot, findings)
        self._rules_at = 0
        # Where rules changed, a second is through when it is late by all of them.
        self._late_max_s = max(rules.late_max_s for _, rules in plan.rules)
        self._begin_rules(plan.first_offset, plan.watermark_s)
        self._ledger = LedgerCheck(
            plan.log_id,
            plan.partition,
            plan.first_offset,
            stored.ledger,
            self._absences.may_lack,
            manner.compacted,
            findings,
        )
        self._history: HistoryCheck | None = None
        if plan.from_beginning and plan.to_end:
            kept_since = self._absences.kept_since(manner.settings.retention_history_days)
            self._history = HistoryCheck(plan.log_id, plan.partition, kept_since, findings)
        expired_s = int(self._absences.kept_since(manner.settings.retention_bot_activity_days).timestamp())
        after_s = -1 if plan.from_beginning else plan.watermark_s
        self._bots = BotActivityCheck(
            plan.partition, stored.bot_activity.of(plan.log_id), BotBounds(after_s, expired_s), findings
        )

    def run(self) -> None:
        """Read the log and compare. Raises Unavailable and psycopg.Error."""
        # Decoding makes millions of dictionaries and no cycles; the collector would walk them all.
        gc.disable()
        try:
            self._read()
        finally:
            gc.enable()
        self._finish()

    def _read(self) -> None:
        plan = self._plan
        reached = plan.first_offset
        for messages in self._reader.read(plan.partition, plan.first_offset, plan.next_offset):
            for part in self._parts(messages):
                self._prove(part)
            self._progress(int(messages.offsets[-1]) + 1 - reached)
            reached = int(messages.offsets[-1]) + 1
        self._progress(plan.next_offset - reached)
        if self._reader.end is not None and self._reader.end < min(plan.next_offset, plan.kafka_end):
            self._findings.differ(
                "log", plan.partition, self._reader.end, "", f"messages up to {plan.next_offset}", "its end"
            )

    # Rules

    def _begin_rules(self, first_offset: int, watermark_s: int) -> None:
        """Classify by the rules in force from an offset on; what was counted before comes from Postgres."""
        changes = self._plan.rules
        while self._rules_at + 1 < len(changes) and changes[self._rules_at + 1][0] <= first_offset:
            self._rules_at += 1
        rules = changes[self._rules_at][1]
        self._lenient = rules.bot_counters == "redis"
        if self._lenient:
            rules = rules.model_copy(update={"bot_page_views_max": _most(Rules, "bot_page_views_max")})
            self._findings.note(
                "bots are not exact: workers share their counts over Redis (bot_counters=redis); which page views were "
                "dropped is taken from Postgres, their numbers are proven"
            )
        manner, plan = self._manner, self._plan
        self._opinion = SecondOpinion(
            plan.partition, rules, watermark_s, manner.seed, manner.full, self._findings
        )
        self._stages = Stages(
            self._snapshot, plan.log_id, rules, first_offset, watermark_s, self._opinion.known
        )

    def _parts(self, messages: Messages):
        """Messages cut where other rules begin, and so that each part has room in a block."""
        pending = [messages]
        changes = self._plan.rules
        while pending:
            part = pending.pop()
            if self._rules_at + 1 < len(changes):
                border = changes[self._rules_at + 1][0]
                if part.offsets[0] >= border:
                    self._begin_rules(border, self._stages.watermark_s)
                cut = int(np.searchsorted(part.offsets, border))
                if 0 < cut < len(part.values):
                    pending += [part.part(cut, len(part.values)), part.part(0, cut)]
                    continue
            if len(part.values) > 1 and not self._stages.fits(part):
                middle = len(part.values) // 2
                pending += [part.part(middle, len(part.values)), part.part(0, middle)]
                continue
            yield part

    # One chunk; the numbers are those of the module's docstring

    def _prove(self, messages: Messages) -> None:
        plan, stored = self._plan, self._stored
        quarantined = stored.quarantine.take(plan.log_id, int(messages.offsets[-1]))  # 1
        append_times_us = self._append_times(messages, quarantined)
        before_s = self._stages.watermark_s
        block = self._stages.classify(messages, append_times_us)  # 2
        self._opinion.check(block, messages.values, append_times_us, before_s)
        refused = refuse_as_postgres(block, quarantined)  # 3
        if refused:
            self._findings.note(
                f"Postgres itself refused {refused} events (see quarantine): taken as it says"
            )
        if self._lenient:
            self._learn_bots(block, messages)  # 4
        excused = self._absences.expired(block, messages.append_times_us)  # 5
        stored.events.compare(block, plan.partition, excused)
        stored.late_events.compare(block, plan.partition, excused)
        has = stored.quarantine.compare(block, plan.partition, quarantined)
        self._ledger.add(block.offsets[: block.rows], block.classes[: block.rows], has)
        self._bots.add(block)
        self._bots.settle(self._stages.watermark_s - self._late_max_s)
        if self._history is not None:
            self._history.add(block)
        if self._expected_views is not None:
            self._expected_views.add(block)  # 6
        self._findings.check("messages", block.rows)

    def _append_times(self, messages: Messages, quarantined: list) -> np.ndarray:
        unknown = messages.append_times_us < 0
        if not unknown.any():
            return messages.append_times_us
        self._findings.note(
            "the class future is not proven: the topic has no append times (message.timestamp.type is not "
            "LogAppendTime), so it is taken from quarantine; future messages that are counted but not kept there "
            "show as missing rows"
        )
        times_us = messages.append_times_us.copy()
        future = future_rows(messages.offsets, quarantined)
        times_us[unknown] = np.where(future[unknown], _EVER, _NEVER)
        return times_us

    def _learn_bots(self, block: Block, messages: Messages) -> None:
        count = block.rows
        classes = block.classes[:count]
        views = (classes == EventClass.ACCEPTED) & block.page_views[:count]
        kept = self._stored.events.stored_offsets(self._plan.log_id, int(messages.offsets[-1]))
        offsets = block.offsets[:count]
        bots = np.flatnonzero(views & ~np.isin(offsets, list(kept)))
        classes[bots] = EventClass.BOT
        block.details[:count][bots] = Detail.BOT_RATE
        for row in bots.tolist():
            keep_payloads([messages.values[row]], block, slice(row, row + 1), payload_room(1))

    def _finish(self) -> None:
        plan = self._plan
        for table in (self._stored.events, self._stored.late_events):
            table.finish(plan.log_id, plan.partition)
        self._stored.quarantine.finish(plan.log_id, plan.partition)
        self._ledger.finish(plan.next_offset, plan.stored_next_offset if plan.to_end else None)
        watermark_s = self._stages.watermark_s
        self._bots.settle(None if plan.to_end else watermark_s - self._late_max_s)
        if not plan.from_beginning:
            self._findings.note(
                f"partition {plan.partition}: proven from offset {plan.first_offset:,} on; late events and bots near "
                f"there were told with what Postgres holds before it, up to the second {plan.watermark_s}"
            )
        self._compare_views(watermark_s)
        if self._history is not None:
            self._history.compare(self._snapshot)
        if plan.to_end:
            self._findings.check("partition_state")
            if watermark_s != plan.stored_watermark_s:
                self._findings.differ(
                    "partition_state",
                    plan.partition,
                    None,
                    "watermark_s",
                    watermark_s,
                    plan.stored_watermark_s,
                )

    def _compare_views(self, watermark_s: int) -> None:
        found, plan = self._found, self._plan
        if found is None:
            return
        if self._expected_views is not None:
            expected = self._expected_views.finish(watermark_s)
        elif not plan.to_end:
            self._findings.note(
                f"partition {plan.partition}: the live views are not looked at, the proof ends before them"
            )
            return
        else:
            expected = expected_of(self._snapshot.connection, found)
            self._findings.note(
                f"partition {plan.partition}: the live views are compared with Postgres, of which not all is proven"
            )
        self._views.compare(found, expected, plan.partition)


def _most(kind: type[Rules], name: str) -> int:
    """The greatest value that a setting may have."""
    return next(each.le for each in kind.model_fields[name].metadata if hasattr(each, "le"))
