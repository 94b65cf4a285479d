"""Messages that a pipeline must refuse, one maker per way to be wrong, and good ones that look odd.

A maker takes a `Sample` and returns the value of a message. Which class it must end in stands beside it in
REFUSED_SHAPES; ODD_SHAPES are all accepted. Makers hold no state: all chance comes from the sample.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import orjson

from hotpath.events import (
    EVENT_TYPE_BYTES_MAX,
    FIELDS,
    ID_BYTES_MAX,
    JSON_DEPTH_MAX,
    MESSAGE_BYTES_MAX,
    PAGE_URL_BYTES_MAX,
    EventClass,
)

_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Sample:
    """What a maker draws from: chance, the time of the event, and a good event to spoil."""

    chance: random.Random
    time_us: int  # microseconds since 1970
    append_us: int  # the latest time at which the broker may append the message
    event: dict[str, str]

    def changed(self, **fields: object) -> bytes:
        """The event with other fields, as JSON."""
        return orjson.dumps({**self.event, **fields})

    def text(self) -> str:
        return orjson.dumps(self.event).decode()

    def any_field(self) -> str:
        return self.chance.choice(FIELDS)

    def any_text_field(self) -> str:
        return self.chance.choice(FIELDS[1:])


Maker = Callable[[Sample], bytes | None]


def canonical(time_us: int) -> str:
    """`2024-03-15T14:30:00Z`: the form that nearly all events use."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _padded(sample: Sample) -> bytes:
    return sample.changed(padding="x" * sample.chance.randint(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + 4_096))


def _spoilt(old: str, new: str) -> Maker:
    """The event's JSON with `old` replaced once: for texts that no JSON writer produces."""
    return lambda sample: sample.text().replace(old, new, 1).encode()


def _raw(*values: bytes) -> Maker:
    return lambda sample: sample.chance.choice(values)


def _nested_too_deep(sample: Sample) -> bytes:
    return sample.text()[:-1].encode() + b',"extra":' + b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX + b"}"


def _without_a_field(sample: Sample) -> bytes:
    missing = sample.any_field()
    return orjson.dumps({name: value for name, value in sample.event.items() if name != missing})


def _with(**choices: tuple[object, ...]) -> Maker:
    """The event with one of its fields replaced by one of that field's `choices`."""

    def make(sample: Sample) -> bytes:
        field = sample.chance.choice(list(choices))
        return sample.changed(**{field: sample.chance.choice(choices[field])})

    return make


def _of_another_type(sample: Sample) -> bytes:
    value = sample.chance.choice((42, 1.5, True, [], {}, ["text"], {"id": "text"}))
    return sample.changed(**{sample.any_field(): value})


def _with_a_control_character(sample: Sample) -> bytes:
    field = sample.any_field()
    character = sample.chance.choice("\x00\x01\x09\x0a\x1f\x7f")
    return sample.changed(**{field: sample.event[field][:4] + character + sample.event[field][4:]})


def _in_the_future(sample: Sample) -> bytes:
    # A day at least: no backlog of ours, nor a clock that is off by hours, makes it an event of the present.
    ahead_us = sample.chance.randint(_DAY_US, 3_650 * _DAY_US)
    return sample.changed(timestamp=canonical(sample.append_us + ahead_us))


_BAD_TIMES = (
    "2016-12-31T23:59:60Z",
    "2023-02-29T12:00:00Z",
    "2024-13-01T00:00:00Z",
    "2024-01-01T24:00:00Z",
    "2024-01-01T12:60:00Z",
    "0000-01-01T00:00:00Z",
    "1999-12-31T23:59:59Z",
    "2100-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "10000-01-01T00:00:00Z",
    "2024-03-15T14:30:00",
    "2024-03-15 14:30:00Z",
    "2024-03-15",
    "2024-03-15T14:30Z",
    "2024-03-15T14:30:00.Z",
    "2024-03-15T14:30:00.1234567890Z",
    "2024-03-15T14:30:00+0530",
    "2024-03-15T14:30:00+24:00",
    " 2024-03-15T14:30:00Z",
    "2024-3-15T14:30:00Z",
    "15/03/2024 14:30:00",
    "1710513000",
    "now",
    "NaT",
    "2024",
)

REFUSED_SHAPES: dict[EventClass, tuple[Maker, ...]] = {
    EventClass.TOO_LARGE: (_padded, _raw(b"[" * (MESSAGE_BYTES_MAX + 1))),
    EventClass.EMPTY: (lambda sample: None, _raw(b""), _raw(b" ", b" \n\t", b"\r\n")),
    EventClass.NOT_JSON: (
        _raw(b"hello", b"<event/>", b"user_id=1&page_url=/", b"{", b"}", b'{"a":1', b'"b":2}', b"[1", b"2]"),
        _raw(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", b"\x00\x00\x00\x00\x01\x08\x02\x12\x04user"),
        lambda sample: b"\xef\xbb\xbf" + sample.text().encode(),
        lambda sample: sample.text().encode("utf-16"),
        lambda sample: sample.text().encode("utf-32"),
        lambda sample: sample.changed(referrer="café").decode().encode("latin-1"),
        lambda sample: sample.text().encode()[: sample.chance.randint(2, 60)],
        lambda sample: sample.text().encode() + b"x",
        lambda sample: sample.text().encode() * 2,
        lambda sample: sample.text().encode() + b"\n" + sample.text().encode(),
        lambda sample: sample.text().encode() + b"," + sample.text().encode(),
        lambda sample: sample.text().replace('"', "'").encode(),
        _spoilt("}", ",}"),
        _spoilt("}", "/* by hand */}"),
        _spoilt("}", ',"n":NaN}'),
        _spoilt("}", ',"n":-Infinity}'),
        _spoilt("}", ',"n":01}'),
        _spoilt("}", ',"n":+1}'),
        _spoilt("}", ',"n":0x1F}'),
        _spoilt("}", ',"n":1e999}'),
        _spoilt("}", ',"n":"\\ud800"}'),
        _spoilt("}", ',"n":"\\x41"}'),
        _spoilt("}", ',"n":"a\nb"}'),
        _spoilt("}", ',"n":"a\x00b"}'),
        _nested_too_deep,
    ),
    EventClass.NOT_OBJECT: (
        _raw(b"null", b"true", b"42", b'"text"', b"[]", b"-1.5e3", b' "text" '),
        lambda sample: b"[" + sample.text().encode() + b"]",
    ),
    EventClass.MISSING_FIELD: (
        _raw(b"{}", b'{"user":"u","type":"page_view"}'),
        _without_a_field,
        lambda sample: sample.changed(**{sample.any_field(): None}),
    ),
    EventClass.WRONG_TYPE: (
        _of_another_type,
        lambda sample: sample.changed(timestamp=sample.time_us // 1_000_000),
    ),
    EventClass.BAD_VALUE: (
        lambda sample: sample.changed(**{sample.any_field(): ""}),
        _with_a_control_character,
        _with(
            user_id=(" user", "user ", "u" * (ID_BYTES_MAX + 1), "€" * (ID_BYTES_MAX // 3 + 1)),
            session_id=(" session", "session ", "s" * (ID_BYTES_MAX + 1)),
            event_type=("page view", "käufe", "page_view!", "e" * (EVENT_TYPE_BYTES_MAX + 1)),
            page_url=(
                "javascript:alert(1)",
                "data:text/html,x",
                "products/electronics",
                "ftp://example.com/",
                "HTTP://example.com/",
                "/a b",
                "/" + "p" * PAGE_URL_BYTES_MAX,
            ),
        ),
    ),
    EventClass.BAD_TIMESTAMP: (_with(timestamp=_BAD_TIMES),),
    EventClass.FUTURE: (_in_the_future,),
}
"""Each class of refused messages, and the ways to make one."""

REFUSED_WEIGHTS = {refused: 0.02 if refused is EventClass.TOO_LARGE else 1.0 for refused in REFUSED_SHAPES}
"""How often each class is drawn. A message over the limit weighs as much as 500 others: they stay rare, so
that one in a hundred malformed messages does not become half of the traffic's bytes."""


def _with_a_fraction(sample: Sample) -> bytes:
    digits = sample.chance.randint(1, 9)
    fraction = "".join(sample.chance.choices("0123456789", k=digits))
    return sample.changed(timestamp=f"{canonical(sample.time_us)[:-1]}.{fraction}Z")


def _with_an_offset(sample: Sample) -> bytes:
    hours, minutes = sample.chance.choice(((5, 30), (-8, 0), (0, 0), (14, 0), (-3, -30)))
    zone = timezone(timedelta(hours=hours, minutes=minutes))
    return sample.changed(timestamp=datetime.fromtimestamp(sample.time_us // 1_000_000, zone).isoformat())


def _with_the_fields_shuffled(sample: Sample) -> bytes:
    names = list(sample.event)
    sample.chance.shuffle(names)
    return orjson.dumps({name: sample.event[name] for name in names}, option=orjson.OPT_INDENT_2)


ODD_SHAPES: tuple[Maker, ...] = (
    _with_a_fraction,
    _with_an_offset,
    _with_the_fields_shuffled,
    lambda sample: sample.changed(timestamp=canonical(sample.time_us).lower()),
    lambda sample: sample.changed(referrer="https://example.com/?q=café", viewport=[1280, 720], tags={}),
    lambda sample: b" \r\n" + sample.text().encode() + b"\t\n",
    lambda sample: sample.changed(page_url="/" + "p" * (PAGE_URL_BYTES_MAX - 1)),
    lambda sample: sample.changed(session_id=sample.event["session_id"].ljust(ID_BYTES_MAX, "s")),
    lambda sample: sample.changed(session_id=sample.event["session_id"] + "-é\u2028👩‍👩‍👧"),
    _with(page_url=("http://[::1", "/%00", "/%ZZ", "/';DROP-TABLE-events", "/\\N", "/{x}:*", "/ü/日本")),
    _spoilt("{", '{"user_id":"overwritten","session_id":null,'),
    lambda sample: sample.text()[:-1].encode() + b',"extra":' + b"[" * 1_023 + b"]" * 1_023 + b"}",
)
"""Ways of writing a good event that only look wrong; each must be accepted."""
