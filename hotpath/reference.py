"""The semantics of events, one message at a time: what every other implementation is compared with.

Written for being read beside the definition, with the standard library alone, and sharing no code with the
pipeline: the classes are plain strings, the limits are written out again. Slow (about 20 µs a message) and meant to
be: tests and `hotpath verify` hold the vectorised stages against it.
"""

import json
import math
import re
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

FIELDS = ("timestamp", "user_id", "event_type", "page_url", "session_id")
TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """Raised with the class in which a message ends."""


@dataclass(frozen=True)
class Outcome:
    """Where one message ends."""

    event_class: str
    time_us: int | None = None
    """Of accepted, late and bot events."""
    texts: tuple[bytes, ...] | None = None
    """user_id, event_type, page_url and session_id of those."""


@dataclass
class Log:
    """What classes of later messages depend on."""

    watermark_s: int = 0
    page_views: dict[tuple[bytes, int], int] = field(default_factory=dict)
    """Accepted page views by (user_id, second)."""

    def forget(self, late_max_s: int) -> None:
        """Drop the counts of seconds in which any event would be late."""
        oldest = self.watermark_s - late_max_s
        self.page_views = {key: count for key, count in self.page_views.items() if key[1] >= oldest}


class Reference:
    """Section by section what becomes of the messages of several logs."""

    def __init__(self, future_max_s: int = 60, late_max_s: int = 300, bot_page_views_max: int = 10) -> None:
        self.future_max_s = future_max_s
        self.late_max_s = late_max_s
        self.bot_page_views_max = bot_page_views_max
        self.logs: dict[int, Log] = {}

    def classify(self, log_number: int, value: bytes | None, append_time_us: int) -> Outcome:
        """What becomes of the next message of a log."""
        outcome = self.judge(value, append_time_us)
        if outcome.event_class != "accepted":
            return outcome
        return self.place(self.logs.setdefault(log_number, Log()), outcome)

    def judge(self, value: bytes | None, append_time_us: int) -> Outcome:
        """What becomes of a message as far as it alone decides: late and bot events are still accepted."""
        try:
            event = parse_event(value)
            check_values(event)
            time_us = parse_timestamp(event["timestamp"])
        except Refused as refused:
            return Outcome(str(refused))
        if time_us > append_time_us + self.future_max_s * 1_000_000:
            return Outcome("future")
        return Outcome("accepted", time_us, tuple(event[name].encode() for name in FIELDS[1:]))

    def place(self, log: Log, event: Outcome) -> Outcome:
        """What becomes of an accepted event by what stands before it in its log; the log goes on from there."""
        second = event.time_us // 1_000_000
        if log.watermark_s and log.watermark_s - second > self.late_max_s:
            return replace(event, event_class="late")
        log.watermark_s = max(log.watermark_s, second)
        user_id, event_type = event.texts[:2]
        if event_type == b"page_view":
            key = (user_id, second)
            if log.page_views.get(key, 0) >= self.bot_page_views_max:
                return replace(event, event_class="bot")
            log.page_views[key] = log.page_views.get(key, 0) + 1
        return event


def parse_event(value: bytes | None) -> dict[str, str]:
    """The object of a message, its five fields checked to be strings."""
    if value is not None and len(value) > 65_536:
        raise Refused("too_large")
    if value is None or all(byte in b" \t\n\r" for byte in value):
        raise Refused("empty")
    document = parse_json(value)
    if not isinstance(document, dict):
        raise Refused("not_object")
    if any(document.get(name) is None for name in FIELDS):
        raise Refused("missing_field")
    if not all(isinstance(document[name], str) for name in FIELDS):
        raise Refused("wrong_type")
    return document


def parse_json(value: bytes) -> object:
    """One RFC 8259 text in UTF-8, no deeper than 1,024, without lone surrogates and infinite numbers."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("not_json") from None
    # Nothing is deeper than it has brackets, so that hardly a message is walked through for it.
    if text.count("[") + text.count("{") > 1_024 and depth(text) > 1_024:
        raise Refused("not_json")
    recursion_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        document = json.loads(
            text,
            parse_int=finite,
            parse_float=finite,
            parse_constant=refuse_constant,
            object_pairs_hook=checked_object,
        )
        refuse_surrogates(document)
        return document
    except ValueError:
        raise Refused("not_json") from None
    finally:
        sys.setrecursionlimit(recursion_limit)


def finite(number: str) -> float:
    """Numbers are read as doubles: none of the five fields may be one anyway."""
    parsed = float(number)
    if math.isinf(parsed):
        raise ValueError("overflows a double")
    return parsed


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def checked_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The last of duplicate names wins; surrogates are looked for in all of them.

    Objects inside have been checked when they were made; what is in arrays directly is looked through here.
    """
    for name, value in pairs:
        refuse_surrogates(name)
        refuse_surrogates(value)
    return dict(pairs)


def refuse_surrogates(value: object) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            item.encode()  # a lone surrogate has no UTF-8: UnicodeEncodeError, which is a ValueError
        elif isinstance(item, list):
            pending.extend(item)


def depth(text: str) -> int:
    """How deep arrays and objects are nested in a JSON text; of other texts, anything."""
    deepest = now = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            now += 1
            deepest = max(deepest, now)
        elif character in "]}":
            now -= 1
    return deepest


def check_values(event: dict[str, str]) -> None:
    for name in FIELDS:
        text = event[name]
        if text == "" or CONTROL.search(text):
            raise Refused("bad_value")
    for name in ("user_id", "session_id"):
        text = event[name]
        if len(text.encode()) > 128 or text[0] == " " or text[-1] == " ":
            raise Refused("bad_value")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", event["event_type"]):
        raise Refused("bad_value")
    page_url = event["page_url"]
    if len(page_url.encode()) > 2_048 or " " in page_url:
        raise Refused("bad_value")
    if not page_url.startswith(("/", "http://", "https://")):
        raise Refused("bad_value")


def parse_timestamp(text: str) -> int:
    """Microseconds since 1970."""
    match = TIMESTAMP.fullmatch(text)
    if match is None:
        raise Refused("bad_timestamp")
    *numbers, fraction, _, sign, hours, minutes = match.groups()
    try:
        local = datetime(*map(int, numbers), tzinfo=UTC)
    except ValueError:  # the year 0000 too
        raise Refused("bad_timestamp") from None
    offset = timedelta()
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise Refused("bad_timestamp")
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (1 if sign == "+" else -1)
    try:
        moment = local - offset
    except OverflowError:
        raise Refused("bad_timestamp") from None
    if not 2000 <= moment.year <= 2099:
        raise Refused("bad_timestamp")
    microseconds = int(((fraction or "") + "000000")[:6])
    return (moment - EPOCH) // timedelta(microseconds=1) + microseconds
