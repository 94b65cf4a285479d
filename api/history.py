"""The endpoints that read Postgres: history, ledger, quarantine. Each is bounded by its range, its rows and its time.

What can be left out of a history is null when it would take too long: a chart with a line less beats no chart.
"""

import base64
import codecs
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.errors import InvalidParameter
from api.parameters import HistoryRange, QuarantineRows, Range
from api.postgres import Answer, Postgres, Reader, TooCostly
from api.replies import NEXT_CURSOR_HEADER, CsvReply, JsonReply, utc
from hotpath.events import EventClass

HOUR_S, DAY_S = 3_600, 86_400
STEPS_S = (60, 300, 600, 1_800, HOUR_S, 2 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S, DAY_S)
"""Steps to choose from when none is asked for."""
STEPS_CHOSEN_MAX = 180
STEPS_MAX = 1_500
"""A day by minute."""
HISTORY_MAX_S = 92 * DAY_S
LEDGER_MAX_S = DAY_S
LOSSES_MAX = 100
TOP_PAGES = 10
USERS_EVENTS_MAX = 1_000_000
"""Events among which different users are counted: about a second of Postgres."""
OPTIONAL_SHARE = 0.4
"""What one part of a history that may be left out takes of the time that is left."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLASSES = [c.label for c in EventClass]
LEDGER_COLUMNS = ["at", "received", *CLASSES]
LOSS_COLUMNS = ["at", "topic", "partition", "first_offset", "next_offset", "reason"]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Span:
    """A range of whole steps, seconds since 1970."""

    since_s: int
    until_s: int
    step_s: int

    @property
    def steps(self) -> range:
        return range(self.since_s, self.until_s, self.step_s)

    @property
    def given(self) -> dict[str, Any]:
        """As parameters of a query."""
        return {
            "since": EPOCH + timedelta(seconds=self.since_s),
            "until": EPOCH + timedelta(seconds=self.until_s),
            "step": timedelta(seconds=self.step_s),
        }


def _postgres(request: Request) -> Postgres:
    return request.app.state.postgres


async def _conditions(request: Request, answer: Answer) -> dict[str, Any]:
    """What every answer of Postgres is given with: its as_of, and messages that were not in Postgres yet."""
    seen = await request.app.state.workers.seen()
    return {"as_of": utc(answer.as_of_us), "lag_events": seen.lag_events}


def _span(given: Range, step_s: int | None, range_max_s: int) -> Span:
    """The range asked for, the last hour unless told. Raises InvalidParameter."""
    until = given.until or datetime.now(UTC)
    since = given.since or until - timedelta(seconds=HOUR_S)
    if since >= until:
        raise InvalidParameter("from", "must be before `to`, which is now unless given")
    if until - since > timedelta(seconds=range_max_s):
        raise InvalidParameter("from", f"must be at most {range_max_s // HOUR_S} hours before `to`")
    since_s, until_s = math.floor(since.timestamp()), math.ceil(until.timestamp())
    if step_s is None:
        fits = (step for step in STEPS_S if (until_s - since_s) / step <= STEPS_CHOSEN_MAX)
        step_s = next(fits, STEPS_S[-1])
    span = Span(since_s // step_s * step_s, -(-until_s // step_s) * step_s, step_s)
    if len(span.steps) > STEPS_MAX:
        raise InvalidParameter(
            "step", f"gives {len(span.steps)} steps in this range; {STEPS_MAX} is the most"
        )
    return span


async def history(request: Request, given: HistoryRange) -> Response:
    """What came in, step by step

    The last hour by minute unless told. At most 92 days and 1,500 steps; a step is whole minutes, 60 seconds to a day.
    `events` counts messages of any class when their flush was committed; the others count accepted events by their own
    time, so that a replayed old log shows up where it belongs. A column is null where it would take too long: users
    are counted among up to a million events.
    """
    span = _span(given, given.step, HISTORY_MAX_S)
    answer = await _postgres(request).answer(("history", span), lambda reader: _read_history(reader, span))
    steps, top_pages = answer.value
    known = await _conditions(request, answer)
    if given.format == "csv":
        return CsvReply("history", list(steps[0]), [list(step.values()) for step in steps], **known)
    return JsonReply({**_ends(span), **known, "steps": steps, "top_pages": top_pages})


async def _read_history(reader: Reader, span: Span) -> tuple[Rows, Rows | None]:
    """The steps, and the top pages of all of them; None when these would take too long."""
    source = "" if await _is_kept(reader, span) else "_scanned"
    counts = {row[0]: row[1:] for row in await reader.rows(f"history_counts{source}", span.given)}
    received = await _optional(reader, "history_received", span.given)
    pages = await _optional(reader, f"history_top_pages{source}", {**span.given, "limit": TOP_PAGES})
    few = sum(accepted for accepted, _ in counts.values()) <= USERS_EVENTS_MAX
    users = await _optional(reader, "history_users", span.given) if few else None
    steps = [
        {
            "at": utc(at_s * 1_000_000),
            "events": _of(received, at_s),
            "accepted": counts.get(at_s, (0, 0))[0],
            "page_views": counts.get(at_s, (0, 0))[1],
            "users": _of(users, at_s),
        }
        for at_s in span.steps
    ]
    if pages is None:
        return steps, None
    return steps, [{"page_url": page, "views": views} for page, views in pages.items()]


async def _is_kept(reader: Reader, span: Span) -> bool:
    """Whether the history by minute reaches back to the range's begin; taken for granted if that is hard to tell."""
    try:
        return (await reader.rows("history_is_kept", span.given, OPTIONAL_SHARE))[0][0]
    except TooCostly:
        return True


async def _optional(reader: Reader, name: str, given: dict[str, Any]) -> dict[Any, int] | None:
    """A query of two columns as a dictionary; None when it would take too long."""
    try:
        return dict(await reader.rows(name, given, OPTIONAL_SHARE))
    except TooCostly:
        return None


def _of(counts: dict[int, int] | None, at_s: int) -> int | None:
    return None if counts is None else counts.get(at_s, 0)


def _ends(span: Span) -> dict[str, Any]:
    return {
        "from": utc(span.since_s * 1_000_000),
        "to": utc(span.until_s * 1_000_000),
        "step_s": span.step_s,
    }


async def ledger(request: Request, given: Range) -> Response:
    """What became of every message, minute by minute: received = accepted + each other class

    By the time at which flushes were committed; the last hour unless told, at most a day. Minutes without a flush are
    left out. What is older than a week has been merged by the hour.
    """
    span = _span(given, 60, LEDGER_MAX_S)
    answer = await _postgres(request).answer(("ledger", span), lambda reader: _read_ledger(reader, span))
    minutes, losses = answer.value
    known = await _conditions(request, answer)
    if given.format == "csv":
        return CsvReply("ledger", LEDGER_COLUMNS, [list(minute.values()) for minute in minutes], **known)
    return JsonReply({**_ends(span), **known, "minutes": minutes, "losses": losses})


async def _read_ledger(reader: Reader, span: Span) -> tuple[Rows, Rows]:
    """The minutes, and the losses."""
    counted = await reader.rows("ledger_by_minute", span.given)
    lost = await reader.rows("ledger_losses", {**span.given, "limit": LOSSES_MAX})
    minutes = [dict(zip(LEDGER_COLUMNS, (utc(row[0] * 1_000_000), *row[1:]), strict=True)) for row in counted]
    losses = [dict(zip(LOSS_COLUMNS, (utc(_us(row[0])), *row[1:]), strict=True)) for row in lost]
    return minutes, losses


async def quarantine(request: Request, given: QuarantineRows) -> Response:
    """Messages that did not become events, the latest first

    With why, where they stood in Kafka, and their first 1,024 bytes. The table keeps a limited number per flush and
    class; the ledger counts all. As CSV, the header X-Next-Cursor holds the next cursor.
    """
    before = (
        _cursor(given.cursor) if given.cursor else (datetime.max.replace(tzinfo=UTC), 2**31 - 1, 2**63 - 1)
    )
    asked = dict(zip(("stored_at", "log_id", "kafka_offset"), before, strict=True)) | {"limit": given.limit}
    name = "quarantine_rows"
    if given.event_class:
        name, asked["event_class"] = "quarantine_rows_of_class", given.event_class
    question = (name, *asked.values())
    answer = await _postgres(request).answer(question, lambda reader: reader.rows(name, asked))
    found, known = answer.value, await _conditions(request, answer)
    rows = [_quarantined(*row[:-1]) for row in found]
    more = len(found) == given.limit
    next_cursor = _cursor_text(found[-1][0], found[-1][8], found[-1][3]) if more else None
    if given.format == "csv":
        columns = list(_quarantined(EPOCH, "", 0, 0, "", "", 0, b""))
        reply = CsvReply("quarantine", columns, [list(row.values()) for row in rows], **known)
        if next_cursor:
            reply.headers[NEXT_CURSOR_HEADER] = next_cursor
        return reply
    return JsonReply({**known, "rows": rows, "next_cursor": next_cursor})


def _quarantined(
    stored_at: datetime,
    topic: str,
    partition: int,
    offset: int,
    name: str,
    detail: str,
    size: int,
    payload: bytes,
) -> dict[str, Any]:
    return {
        "stored_at": utc(_us(stored_at)),
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "class": name,
        "detail": detail,
        "payload_size": size,
        "payload": base64.b64encode(payload).decode(),
        "payload_text": _text(payload, whole=len(payload) == size),
    }


def _text(payload: bytes, whole: bool) -> str | None:
    """The payload as text, less a character that was cut off with the rest; None when it is not UTF-8."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(payload, final=whole)
    except UnicodeDecodeError:
        return None


def _us(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def _cursor_text(stored_at: datetime, log_id: int, offset: int) -> str:
    text = f"{_us(stored_at)}.{log_id}.{offset}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _cursor(given: str) -> tuple[datetime, int, int]:
    """What `_cursor_text` was made of. Raises InvalidParameter."""
    try:
        text = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode("ascii")
        stored_us, log_id, offset = map(int, text.split("."))
        stored_at = EPOCH + timedelta(microseconds=stored_us)
        plain = stored_us >= 0 and 0 <= log_id < 2**31 and 0 <= offset < 2**63
        if not plain or _cursor_text(stored_at, log_id, offset) != given:
            raise ValueError(given)
    except (ValueError, OverflowError):
        raise InvalidParameter("cursor", "must be the next_cursor of an earlier reply") from None
    return stored_at, log_id, offset
