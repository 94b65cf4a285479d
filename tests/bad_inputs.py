"""Messages that bite, each with the class in which it must end: data for tests of stages and of the pipeline.

`BAD_INPUTS` holds messages whose class is their own affair; `SEQUENCES` holds messages whose classes depend on
each other, to be sent in this order to one log. Times are relative to `NOW_US`, the append time of all.
"""

import gzip
import json
from dataclasses import dataclass

NOW_US = 1_710_513_000_000_000
"""2024-03-15T14:30:00Z."""

GOOD = {
    "timestamp": "2024-03-15T14:30:00Z",
    "user_id": "usr_1",
    "event_type": "page_view",
    "page_url": "/products/1",
    "session_id": "sess_1",
}


@dataclass(frozen=True)
class BadInput:
    """A message and the class that it must end in."""

    name: str
    value: bytes | None
    event_class: str
    among_good: str
    """Its class behind good events of `NOW_US`: the same, but for events that are late by then."""


def message(**fields: object) -> bytes:
    """A good event with some fields replaced, as compact JSON in UTF-8."""
    return json.dumps({**GOOD, **fields}, ensure_ascii=False, separators=(",", ":")).encode()


def without(field: str) -> bytes:
    return json.dumps({name: text for name, text in GOOD.items() if name != field}).encode()


def raw(field: str, json_text: str) -> bytes:
    """A good event with the JSON text of one field written out."""
    fields = {name: json.dumps(text) for name, text in GOOD.items()} | {field: json_text}
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}").encode()


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    """A good event with so many arrays or objects in one another in a further field."""
    return raw("extra", opening * depth + ("1" if opening != "[" else "") + closing * depth)


GOOD_MESSAGE = message()
_OPEN, _CLOSE = GOOD_MESSAGE[:-1], GOOD_MESSAGE[1:]
_FILL = "x" * 65_536


def _rows(event_class: str, **values: bytes | None) -> list[BadInput]:
    return [BadInput(name, value, event_class, event_class) for name, value in values.items()]


def _each(event_class: str, name: str, values: list[bytes]) -> list[BadInput]:
    return _rows(event_class, **{f"{name}_{index}": value for index, value in enumerate(values)})


def _stamps(event_class: str, texts: list[str], among_good: str | None = None) -> list[BadInput]:
    return [
        BadInput(f"timestamp {text!r}", message(timestamp=text), event_class, among_good or event_class)
        for text in texts
    ]


def _pages(event_class: str, texts: list[str]) -> list[BadInput]:
    return _rows(event_class, **{f"page_url {text[:40]!r}": message(page_url=text) for text in texts})


BAD_INPUTS: list[BadInput] = [
    *_rows("empty", tombstone=None, no_bytes=b"", white_space=b" \n\t\r"),
    *_rows(
        "too_large",
        ten_megabytes=message(extra="x" * 10_000_000),
        many_names=json.dumps(GOOD | {f"name_{n}": n for n in range(200_000)}).encode(),
        a_million_brackets=b"[" * 1_000_000,
        one_byte_over=message(extra=_FILL)[: 65_536 - 2] + b'"} ',
        white_space_over=b" " * 65_537,
    ),
    *_rows(
        "not_json",
        gzip=gzip.compress(GOOD_MESSAGE, mtime=0),
        protobuf=b"\x0a\x05usr_1\x12\x09page_view\x1a\x01/",
        utf16=GOOD_MESSAGE.decode().encode("utf-16"),
        utf32=GOOD_MESSAGE.decode().encode("utf-32"),
        bom=b"\xef\xbb\xbf" + GOOD_MESSAGE,
        latin1=message(user_id="XX").replace(b"XX", b"caf\xe9"),
        truncated_utf8=message(user_id="é").replace("é".encode(), b"\xc3"),
        utf8_surrogate=message(user_id="XX").replace(b"XX", b"\xed\xa0\x80"),
        overlong_utf8=message(user_id="XX").replace(b"XX", b"\xc0\xaf"),
        lone_surrogate=raw("user_id", r'"\ud800"'),
        lone_low_surrogate=raw("user_id", r'"\ude00x"'),
        lone_surrogate_then_pair=raw("user_id", r'"\ud83d\ud83d\ude00"'),
        lone_surrogate_in_a_name=raw(r"\ud800", "1"),
        lone_surrogate_overwritten=b'{"user_id":"\\ud800",' + _CLOSE,
        lone_surrogate_alone=b'"\\ud800"',
        lone_surrogate_in_an_array=b'[["\\ud800"]]',
        lone_surrogate_deep=raw("extra", r'[{"a":["\udfff"]}]'),
        raw_nul=message(user_id="XX").replace(b"XX", b"a\x00"),
        raw_newline=message(user_id="XX").replace(b"XX", b"a\n"),
        raw_control=message(user_id="XX").replace(b"XX", b"\x01"),
        trailing_letter=GOOD_MESSAGE + b"x",
        trailing_nul=GOOD_MESSAGE + b"\x00",
        two_objects=GOOD_MESSAGE * 2,
        two_objects_lines=GOOD_MESSAGE + b"\n" + GOOD_MESSAGE,
        two_objects_comma=GOOD_MESSAGE + b"," + GOOD_MESSAGE,
        three_objects_comma=b",".join([GOOD_MESSAGE] * 3),
        open_object=_OPEN,
        rest_of_object=_CLOSE,
        open_array=b"[1",
        rest_of_array=b"2]",
        closes_and_opens=b'1],["x"',
        open_array_in_object=_OPEN + b',"extra":[1',
        comma=b",",
        bracket=b"]",
        quote=b'"',
        backslash=b'{"a":"\\',
        trailing_comma=_OPEN + b",}",
        single_quotes=GOOD_MESSAGE.replace(b'"', b"'"),
        comment=b"/* hello */" + GOOD_MESSAGE,
        line_comment=GOOD_MESSAGE + b"// hello",
        nan=raw("extra", "NaN"),
        infinity=raw("extra", "Infinity"),
        minus_infinity=raw("extra", "-Infinity"),
        leading_zero=raw("extra", "01"),
        plus_one=raw("extra", "+1"),
        hexadecimal=raw("extra", "0x1F"),
        bare_point=raw("extra", "1."),
        overflow=raw("extra", "1e999"),
        overflow_of_digits=raw("extra", "9" * 400),
        no_break_space="\u00a0".encode() + GOOD_MESSAGE,
        form_feed=b"\x0c" + GOOD_MESSAGE,
        nested_1024=nested(1_024),
        nested_objects_1024=nested(1_024, '{"a":', "}"),
        brackets_only=b"[" * 60_000,
    ),
    *_rows(
        "accepted",
        good=GOOD_MESSAGE,
        emoji_escaped=raw("user_id", r'"\ud83d\ude00"'),
        emoji_family=message(user_id="👨‍👩‍👧‍👦"),
        line_separator=message(user_id="a\u2028b"),
        right_to_left=message(session_id="a\u202eb"),
        zero_width_joiner=message(page_url="/\u200d"),
        no_break_space_outside=message(user_id="\u00a0a\u00a0"),
        space_inside_id=message(user_id="a b", session_id="c  d"),
        c1_control=message(user_id="a\u0085b"),
        user_id_128=message(user_id="u" * 128),
        user_id_126_of_3=message(user_id="\u20ac" * 42),
        session_id_128=message(session_id="é" * 64),
        composed=message(user_id="\u00e9"),
        decomposed=message(user_id="e\u0301"),
        leading_space=b" \n\r\t" + GOOD_MESSAGE,
        trailing_space=GOOD_MESSAGE + b"\n\n",
        nested_1023=nested(1_023),
        nested_objects_1023=nested(1_023, '{"a":', "}"),
        duplicate_name=b'{"user_id":"a",' + _CLOSE,
        duplicate_wrong_then_right=b'{"user_id":42,' + _CLOSE,
        great_integer=raw("extra", "9" * 300),
        tiny_number=raw("extra", "1e-999"),
        escaped_names=GOOD_MESSAGE.replace(b"user_id", b"\\u0075ser_id"),
        event_type_64=message(event_type="a.B-c_9" + "x" * 57),
        page_url_2048=message(page_url="/" + "p" * 2_047),
        just_not_too_large=message(extra="")[:-2] + b"x" * (65_536 - len(message(extra=""))) + b'"}',
        delete_in_another_field=message(extra="\x7f"),
    ),
    *_pages(
        "accepted",
        ["http://[::1", "/%00", "/%ZZ", "/';DROP", "/\\N", "/{x}:*", "/", "http://", "https://x/é", "//x"],
    ),
    *_pages(
        "bad_value",
        [
            *(
                "javascript:alert(1)",
                "data:text/html,x",
                "products/x",
                "/a b",
                "/'; DROP TABLE",
                " /a",
                "/a ",
            ),
            *(
                "/" + "p" * 2_048,
                "/" + "é" * 1_024,
                "http:/",
                "http:",
                "h",
                "HTTP://x",
                "https:/x",
                "ftp://x",
                "?",
            ),
        ],
    ),
    *_rows(
        "bad_value",
        escaped_nul=raw("user_id", r'"x\u0000y"'),
        escaped_separator=raw("session_id", r'"a\u001fb"'),
        escaped_newline=raw("page_url", r'"/a\n"'),
        escaped_one=raw("user_id", r'"\u0001..."'),
        delete=message(user_id="a\x7f"),
        control_in_event_type=raw("event_type", r'"page_view\n"'),
        control_in_timestamp=raw("timestamp", r'"2024-03-15T14:30:00Z\n"'),
        delete_in_timestamp=message(timestamp="2024-03-15T14:30:00\x7f"),
        user_id_129=message(user_id="u" * 129),
        user_id_129_of_3=message(user_id="\u20ac" * 43),
        session_id_130=message(session_id="é" * 65),
        outer_space=message(user_id=" a"),
        outer_space_behind=message(session_id="a "),
        only_a_space=message(user_id=" "),
        event_type_65=message(event_type="x" * 65),
        event_type_space=message(event_type="page view"),
        event_type_accent=message(event_type="pagé"),
        **{f"{field}_empty": message(**{field: ""}) for field in GOOD},
        bad_value_before_bad_timestamp=message(user_id="", timestamp="now"),
    ),
    *_each("not_object", "top_level", [b"null", b"true", b"42", b'"s"', b"[]", b"[" + GOOD_MESSAGE + b"]"]),
    *_each("missing_field", "absent", [b"{}", b'{"a":{}}', *(without(field) for field in GOOD)]),
    *_each("missing_field", "null", [raw(field, "null") for field in GOOD]),
    *_rows(
        "missing_field",
        missing_before_wrong_type=json.dumps({"timestamp": 1}).encode(),
        null_wins=_OPEN + b',"user_id":null}',
    ),
    *_each(
        "wrong_type",
        "value",
        [raw(field, text) for field in GOOD for text in ("42", "1.0", "true", "false", "[]", "{}", "0")],
    ),
    *_rows("wrong_type", epoch_number=raw("timestamp", "1710513000"), type_before_value=raw("user_id", "1")),
    *_stamps(
        "bad_timestamp",
        [
            *("2016-12-31T23:59:60Z", "2023-02-29T00:00:00Z", "2024-03-15T24:00:00Z", "2024-13-01T00:00:00Z"),
            *("2100-02-29T00:00:00Z", "2024-04-31T00:00:00Z", "2024-00-10T00:00:00Z", "2024-01-00T00:00:00Z"),
            *("2024-03-15T14:60:00Z", "0000-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z"),
            *("9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z", "2024-03-15T14:30:00", "2024-03-15 14:30:00Z"),
            *("now", "NaT", "2024", "1710513000", "1710513000.5", " 2024-03-15T14:30:00Z"),
            *(
                "2024-03-15T14:30:00Z ",
                "2024-03-15T14:30Z",
                "2024-03-15",
                "2024-3-15T14:30:00Z",
                "20240315T143000Z",
            ),
            *("2024-03-15T14:30:00.Z", "2024-03-15T14:30:00.1234567890Z", "2024-03-15T14:30:00,5Z"),
            *("2024-03-15T14:30:00+0530", "2024-03-15T14:30:00+05", "2024-03-15T14:30:00+24:00"),
            *("2024-03-15T14:30:00+05:60", "2024-03-15T14:30:00.+05:30", "2024-03-15T14:30:00~05:30"),
            *(
                "2024-03-15T14:30:00ZZ",
                "2024-03-15T14:30:00Z+00:00",
                "+024-03-15T14:30:00Z",
                "2024-03-15T14:30:0-1Z",
            ),
            *("２０２４-03-15T14:30:00Z", "2024-03-15T14:30:00\u2212", "2024‐03‐15T14:30:00Z", "z", "Z", "é"),
            *(
                "2000-01-01T00:29:59+00:30",
                "2099-12-31T23:30:00-00:30",
                "2024-03-15T14:30:00.123456789012+05:30",
            ),
        ],
    ),
    *_stamps(
        "accepted",
        [
            *("2024-03-15T19:59:00+05:30", "2024-03-15T14:29:00-00:00", "2024-03-15T14:30:00+00:00"),
            *(
                "2024-03-15t14:30:00Z",
                "2024-03-15T14:30:00z",
                "2024-03-15T14:30:00.000z",
                "2024-03-15T14:31:00Z",
            ),
            *(f"2024-03-15T14:29:59.{'123456789'[:digits]}Z" for digits in range(1, 10)),
            *(f"2024-03-15T13:29:59.{'987654321'[:digits]}-01:00" for digits in range(1, 10)),
            *("2024-03-16T14:29:00+23:59", "2024-03-14T14:31:00-23:59", "2024-03-15T14:30:59Z"),
        ],
    ),
    *_stamps(
        "accepted",
        [
            *("2000-01-01T00:00:00Z", "1999-12-31T23:30:00-01:00", "2000-02-29T12:00:00Z"),
            *("2024-02-29T00:00:00Z", "2024-03-15T14:24:59.999999Z"),
        ],
        among_good="late",
    ),
    *_stamps(
        "future",
        [
            "2024-03-15T14:31:01Z",
            "2024-03-15T14:31:00.000001Z",
            "2034-03-15T14:30:00Z",
            "2099-12-31T23:59:59Z",
        ],
    ),
]


@dataclass(frozen=True)
class Sequence:
    """Messages for one log, whose classes depend on the ones before."""

    name: str
    values: list[bytes]
    classes: list[str]


_SAME_INSTANT = ["Z", "z", "+00:00", "-00:00", ".000Z", ".000000000Z", ".0+00:00"]


def _at(seconds_ago: int, **fields: object) -> bytes:
    minutes, seconds = divmod(30 * 60 - seconds_ago, 60)
    return message(timestamp=f"2024-03-15T14:{minutes:02d}:{seconds:02d}Z", **fields)


SEQUENCES = [
    Sequence(
        "25 equal page views",
        [GOOD_MESSAGE] * 25,
        ["accepted"] * 10 + ["bot"] * 15,
    ),
    Sequence(
        "the same instant in many forms",
        [message(timestamp=f"2024-03-15T14:30:00{zone}") for zone in _SAME_INSTANT] * 2,
        ["accepted"] * 10 + ["bot"] * 4,
    ),
    Sequence(
        "other events do not count, and are never bots",
        [GOOD_MESSAGE, message(event_type="click")] * 15,
        [name for n in range(15) for name in ("accepted" if n < 10 else "bot", "accepted")],
    ),
    Sequence(
        "behind the watermark",
        [_at(0), _at(300), _at(301), message(timestamp="2019-01-01T00:00:00Z"), _at(0, user_id="usr_2")],
        ["accepted", "accepted", "late", "late", "accepted"],
    ),
    Sequence(
        "refused events raise no watermark",
        [
            _at(900),
            message(user_id=""),
            message(timestamp="2024-03-15T14:40:00Z"),
            b"{",
            _at(1_200),
            _at(1_201),
        ],
        ["accepted", "bad_value", "future", "not_json", "accepted", "late"],
    ),
    Sequence(
        "bots do raise the watermark",
        [*[_at(700)] * 10, *[_at(300)] * 11, _at(600), _at(601)],
        [*["accepted"] * 20, "bot", "accepted", "late"],
    ),
    Sequence(
        "late page views are not counted",
        [_at(0), *[_at(400)] * 12, *[_at(250)] * 11],
        ["accepted", *["late"] * 12, *["accepted"] * 10, "bot"],
    ),
    Sequence(
        "halves of objects do not meet",
        [b'{"a":1', b'"b":2}', b"[1", b"2]", GOOD_MESSAGE, b'"', b'"', b"[", b"]", GOOD_MESSAGE],
        ["not_json"] * 4 + ["accepted"] + ["not_json"] * 4 + ["accepted"],
    ),
]
