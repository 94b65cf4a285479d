"""Deliberate faults of the protocol: what the simulation must catch.

Each is one small change of production code, of a named query or of a script, by a replacement in its text: a change
whose text is gone fails loudly. `first` is a seed from which on it is caught within SEEDS_MAX: worlds in which a
rare fault has consequences are rare themselves.
"""

import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hotpath import sql
from hotpath.shm.ring import Ring
from hotpath.views import link, progress, rebuild
from hotpath.views.slots import Slots
from hotpath.workers import assignment
from hotpath.workers.pipeline import Pipeline
from hotpath.workers.postgres_sink import PostgresSink
from hotpath.workers.redis_sink import RedisSink
from hotpath.workers.sink_threads import SinkThreads
from hotpath.workers.source import Source
from tests.simulation import postgres_tables

SEEDS_MAX = 400

Change = Callable[[ExitStack], None]


class Gone(AssertionError):
    """The text that a mutant replaces is not there any more: bring the mutant up to date."""


def _replaced(text: str, old: str, new: str, where: str) -> str:
    if text.count(old) != 1:
        raise Gone(f"{where} does not hold this once: {old!r}")
    return text.replace(old, new)


def in_query(name: str, old: str, new: str) -> Change:
    """Change a named query."""
    text = _replaced(sql.QUERIES[name], old, new, f"query {name}")
    return lambda stack: stack.enter_context(mock.patch.dict(sql.QUERIES, {name: text}))


def in_functions(old: str, new: str) -> Change:
    """Change a function inside Postgres."""
    text = _replaced(postgres_tables.FUNCTIONS, old, new, "the functions of the schema")
    return lambda stack: stack.enter_context(mock.patch.object(postgres_tables, "FUNCTIONS", text))


def in_script(name: str, old: str, new: str) -> Change:
    """Change a script of Redis."""
    text = _replaced(link._TEXTS[name], old, new, f"{name}.lua")

    def change(stack: ExitStack) -> None:
        stack.enter_context(mock.patch.dict(link._TEXTS, {name: text}))
        stack.enter_context(mock.patch.dict(link._SHAS, {name: hashlib.sha1(text.encode()).hexdigest()}))

    return change


def in_code(owner: Any, name: str, *changes: tuple[str, str]) -> Change:
    """Change a function of a module or of a class."""
    text = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    for old, new in changes:
        text = _replaced(text, old, new, f"{owner.__name__}.{name}")
    module = owner if inspect.ismodule(owner) else sys.modules[owner.__module__]

    def change(stack: ExitStack) -> None:
        names: dict[str, Any] = {}
        exec(compile(text, f"<mutant of {name}>", "exec"), vars(module), names)
        stack.enter_context(mock.patch.object(owner, name, names[name]))

    return change


@dataclass(frozen=True)
class Mutant:
    """A change and what it does wrong."""

    name: str
    what: str
    changes: tuple[Callable[[], Change], ...]
    first: int = 1

    def apply(self, stack: ExitStack) -> None:
        for change in self.changes:
            change()(stack)


def _mutant(name: str, what: str, *changes: Callable[[], Change], first: int = 1) -> Mutant:
    return Mutant(name, what, changes, first)


MUTANTS = (
    # Postgres
    _mutant(
        "epoch-not-compared",
        "a flush counts whoever holds the log",
        lambda: in_functions("and epoch = entry.epoch", ""),
    ),
    _mutant(
        "offset-not-compared",
        "a flush counts wherever the log stands",
        lambda: in_functions("and next_offset = entry.first_offset", ""),
        lambda: in_code(PostgresSink, "_settle", ("return True", "return False")),
    ),
    _mutant(
        "no-ledger",
        "a flush has no row in the ledger",
        lambda: in_functions("insert into ledger", "-- "),
    ),
    _mutant(
        "epoch-not-raised",
        "a takeover leaves the epoch as it was",
        lambda: in_query("raise_epochs", "epoch = epoch + 1", "epoch = epoch"),
    ),
    _mutant(
        "old-owner-not-ended",
        "a takeover does not end the sessions of those who hang",
        lambda: in_query("end_old_owners", "pg_terminate_backend(a.pid) as ended", "true as ended"),
    ),
    _mutant(
        "next-by-count",
        "the next offset is the old one and the number of messages",
        lambda: in_code(
            Pipeline,
            "_append",
            (
                "= offsets[lasts] + 1",
                "= self._positions[touched] + np.bincount(log_indexes)[touched]",
            ),
        ),
    ),
    _mutant(
        "unknown-is-committed",
        "a flush whose connection was lost counts as stored",
        lambda: in_code(PostgresSink, "_settle", ("if all(", "if True or all(")),
    ),
    _mutant(
        "unknown-is-not-committed",
        "a flush whose connection was lost counts as not stored",
        lambda: in_code(PostgresSink, "flush", ("self._unsettled = True", "self._unsettled = False")),
    ),
    _mutant(
        "offset-before-rows",
        "the offset is committed before the rows",
        lambda: in_code(
            PostgresSink,
            "_transaction",
            (
                "    with connection.transaction():\n",
                "    with connection.transaction():\n"
                "        connection.execute(\n"
                '            sql.QUERIES["advance_logs"],\n'
                '            {"entries": json.dumps(_entries(block)), "rules_id": self._rules_id},\n'
                "        )\n"
                "    with connection.transaction():\n",
            ),
        ),
    ),
    _mutant(
        "bots-not-recalled",
        "a new owner does not load what the old one counted",
        lambda: in_code(assignment, "_recall", ("return recall", "return lambda log, seconds: ()")),
    ),
    _mutant(
        "watermark-not-kept",
        "a new owner begins without the log's watermark",
        lambda: in_code(
            Pipeline,
            "__init__",
            ("np.array([handle.watermark_s for handle in handles]", "np.array([0 for handle in handles]"),
        ),
    ),
    # Redis
    _mutant(
        "redis-first",
        "blocks reach Redis before Postgres has committed them",
        lambda: in_code(Ring, "to_apply", ("min(self.committed", "min(self.published")),
        lambda: in_code(Ring, "release_applied", ("blocks <= ready", "True")),
    ),
    _mutant(
        "block-released-early",
        "a block counts as committed before its flush",
        lambda: in_code(
            SinkThreads,
            "_commit",
            ("    self._ring.release_committed()\n", ""),
            (
                "    self._postgres.flush(block)\n",
                "    self._ring.release_committed()\n    self._postgres.flush(block)\n",
            ),
        ),
    ),
    _mutant(
        "gap-not-noticed",
        "a block is applied whatever lies before it",
        lambda: in_code(RedisSink, "_prepare", ("behind.append(known)", "pass")),
        lambda: in_code(
            RedisSink, "_changes", (' and first.logs["first_offset"][known.row] <= known.state.applied', "")
        ),
    ),
    _mutant(
        "quiet-gap-not-noticed",
        "a log that no block comes for stays behind",
        lambda: in_code(RedisSink, "_notice_gaps", ("self._ask(still)", "pass")),
    ),
    _mutant(
        "rebuild-not-complete",
        "a generation goes live without its last piece",
        lambda: in_script(
            "switch",
            "if not applied or not string.match(applied, '^%d+$') then return { 'EMPTY', '' } end",
            "",
        ),
        lambda: in_code(
            rebuild.Rebuilder,
            "_load_all",
            ("build.finish(found[log_id].next_offset, found[log_id].watermark_s)", "pass"),
        ),
    ),
    _mutant(
        "switched-blindly",
        "two rebuild a log at once, and the later one goes live whatever went live meanwhile",
        lambda: in_script("switch", "if live ~= old then return { 'MOVED', live } end", ""),
        lambda: in_code(rebuild.Rebuilder, "locked", (".fetchone()[0]]", ".fetchone()]")),
        first=5_900,
    ),
    _mutant(
        "lock-kept-for-ever",
        "who was stopped in the middle of a rebuild keeps its lock",
        lambda: in_query("limit_idle_session", "idle_session_timeout", "no_such_setting"),
        first=2_400,
    ),
    _mutant(
        "generation-not-compared",
        "changes go into a generation that is not live any more",
        lambda: in_script("touch", "if live_now ~= generation then return { 'MOVED', live_now } end", ""),
        lambda: in_script("apply", "if live ~= generation then return { 'MOVED', live } end", ""),
        lambda: in_script("raise", "if live ~= ARGV[1] then return { 'MOVED', live } end", "live = ARGV[1]"),
        first=2_750,
    ),
    _mutant(
        "remembered-too-late",
        "a session counts as known in a later step than it was",
        lambda: in_code(Slots, "learn", ("steps[there].astype(_STEP)", "steps[there].astype(_STEP) + 1")),
    ),
    _mutant(
        "ticket-not-compared",
        "steps are raised in slots that are not what the worker knows",
        lambda: in_script("raise", "if before ~= state[2] then return { 'TORN', '' } end", ""),
        lambda: in_script(
            "touch", "if before ~= '' and before ~= state[3] then return { 'TORN', '' } end", ""
        ),
        first=2_600,
    ),
    _mutant(
        "freed-slots-kept",
        "a worker goes on raising the slots of sessions that trimming has taken away",
        lambda: in_code(
            Slots,
            "free",
            ("self._table.zero(self._hashes[forgotten])", "pass"),
        ),
        first=1_150,
    ),
    _mutant(
        "sums-not-trimmed",
        "trimming leaves the sums of pages as they are",
        lambda: in_script("trim", "'-' .. found[i + 1]", "'-0'"),
    ),
    _mutant(
        "trimmed-too-far",
        "trimming takes users of a step inside the window",
        lambda: in_script(
            "trim",
            "counts_of(step_in, records[i], seen_step)",
            "counts_of(step_in, records[i], seen_step + 1)",
        ),
    ),
    _mutant(
        "complete-too-early",
        "a log counts as complete before it is applied to its end",
        lambda: in_code(progress, "complete_until_us", ("state.applied >= ended_offset", "True")),
    ),
    _mutant(
        "end-before-messages",
        "a log counts as read to its end before the messages that came with the news",
        lambda: in_code(
            Source,
            "poll",
            ("    chunk = self._chunk(messages) if messages else None\n", ""),
            ("    return chunk", "    return self._chunk(messages) if messages else None"),
        ),
    ),
)
