"""Hypothesis strategies for messages: good events, events with a fault, and what is left of them after mutations.

The mutations know JSON: they work on its tokens, its strings' escapes, its numbers' borders, its nesting, on the
encoding of the text, and on the border between two messages.
"""

import codecs
import json
import re
from itertools import pairwise

from hypothesis import strategies as st

from tests.bad_inputs import BAD_INPUTS, GOOD_MESSAGE, NOW_US

FIELDS = ("timestamp", "user_id", "event_type", "page_url", "session_id")
SMALL_BAD = [bad.value for bad in BAD_INPUTS if len(bad.value or b"") < 5_000]

# Strings that are near a rule's border, or of several bytes a character.
TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "a", " a", "a ", "a b", "é", "\u20ac" * 42, "\u20ac" * 43, "x" * 128, "x" * 129]
    ),
    st.sampled_from(
        ["a\x00b", "\x1f", "\x7f", "\x01...", "/a b", "http://", "http:/", "https://é", "/", "h"]
    ),
    st.text(max_size=12),
)
SECONDS = st.sampled_from([0, 0, 0, 1, 59, 60, 61, -1, -10, -299, -300, -301, -302, -900])
ZONES = st.sampled_from(["Z", "z", "+00:00", "-00:00", ".5Z", ".999999999Z"])

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[a-zA-Z]+|.', re.DOTALL)
# Numbers that round to infinity, to the greatest double, to nothing; forms that JSON does not have.
NUMBERS = [
    *("-0", "-0.0", "0e999999", "-0E-999999", "1e308", "1.7976931348623157e308", "1.7976931348623158e308"),
    *("1.7976931348623159e308", "17976931348623158e292", "1e309", "-1e309", "1E400", "1e99999999999"),
    *("2.2250738585072014e-308", "4.9e-324", "2e-324", "1e-400", "0." + "0" * 400 + "1e401"),
    *("9" * 308, "9" * 309, "1" + "0" * 308, "1" + "0" * 309, "9" * 309 + "e-1", "-" + "9" * 400),
    *("9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616"),
    *(
        "-9223372036854775808",
        "-9223372036854775809",
        "01",
        "-01",
        "00",
        "1.",
        ".5",
        "-.5",
        "+1",
        "1e",
        "1e+",
    ),
    *("-", "--1", "0x1F", "1_000", "1e5.5", "NaN", "-NaN", "Infinity", "-Infinity", "inf", "nan", "١"),
]
STRINGS = [
    *(
        r'"\ud800"',
        r'"\udc00"',
        r'"\udbff\udfff"',
        r'"\udc00\ud800"',
        r'"\ud83d\ud83d\ude00"',
        r'"\uD83D\uDe00"',
    ),
    *(
        r'"\u0000"',
        r'"\u001f"',
        r'"\u007f"',
        r'"\u0080"',
        r'"\u0020a"',
        r'"\ufeff"',
        r'"\uffff"',
        r'"\ufffe"',
    ),
    *(r'"\/"', r'"\/\/"', r'"\b\f\n\r\t"', r'"\\"', r'"\""', r'"\x41"', r'"\u12"', r'"\u12g4"', r'"\u+123"'),
    *(
        r'"\a"',
        r'"\'"',
        r'"\v"',
        r'"\0"',
        r'"\U0001f600"',
        '"\\',
        '"',
        "'a'",
        '"\t"',
        '"\n"',
        '"\x00"',
        '"\x7f"',
    ),
    *('"\u2028"', '"\u0085"', '"\ufeff"', '"\U0010ffff"', '"\u00e9"', '"e\u0301"'),
]
LITERALS = ["null", "true", "false", "Null", "nul", "tru", "TRUE", "None", "undefined"]
MARKS = ["{", "}", "[", "]", ",", ":", "{}", "[]", "},{", "],[", ",,", "::", "//", "/**/", "#", ";"]
SPACES = [
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\xa0",
    "\u2003",
    "\u3000",
    "\ufeff",
    "\x00",
]
PIECES = [piece.encode() for piece in (*NUMBERS, *STRINGS, *LITERALS, *MARKS, *SPACES)]
BYTES = [
    *(b"", b"\x00", b'"', b"\\", b"}", b"]", b"[1,", b",", b" ", b"\xc3", b"\xed\xa0\x80", GOOD_MESSAGE),
    *(
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xe2\x82",
        b"\x80",
    ),
]
ENCODINGS = [
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-le",
    "latin-1",
    "cp1252",
    "utf-7",
    "utf-8-sig",
]
SHORT = [b"1", b"[1,2]", b'{"a":1,"b":2}', b'"a,b"', b"{}"]
HALVES = [
    b"[1",
    b"2]",
    b'{"a":1',
    b'"b":2}',
    b'"',
    b"1,2",
    b"[",
    b"]",
    b"1],[2",
    b"1,",
    b",2",
    b'"a":',
    b'"}',
    b"\\",
]


@st.composite
def timestamps(draw) -> str:
    seconds = 14 * 3_600 + 30 * 60 + draw(SECONDS)
    hour, minute, second = seconds // 3_600, seconds // 60 % 60, seconds % 60
    return f"2024-03-15T{hour:02d}:{minute:02d}:{second:02d}{draw(ZONES)}"


@st.composite
def good_events(draw) -> dict[str, object]:
    return {
        "timestamp": draw(timestamps()),
        "user_id": draw(st.sampled_from(["usr_1", "usr_2", "ü"])),
        "event_type": draw(st.sampled_from(["page_view", "page_view", "page_view", "click"])),
        "page_url": draw(st.sampled_from(["/", "/products/1", "https://é"])),
        "session_id": draw(st.sampled_from(["s", "sess_1"])),
    }


@st.composite
def mutated_events(draw) -> dict[str, object]:
    event = draw(good_events())
    for field in draw(st.lists(st.sampled_from([*FIELDS, "extra"]), min_size=1, max_size=3)):
        fault = draw(st.sampled_from(["drop", "text", "text", "text", "value"]))
        if fault == "drop":
            event.pop(field, None)
        elif fault == "text":
            event[field] = draw(TEXTS)
        else:
            event[field] = draw(
                st.sampled_from([None, True, 0, 1.5, 10**30, [], {}, ["a"], {"user_id": "a"}])
            )
    return event


@st.composite
def encoded(draw, events: st.SearchStrategy) -> bytes:
    event = draw(events)
    space = draw(st.sampled_from(["", "", " ", "\n"]))
    text = json.dumps(event, ensure_ascii=draw(st.booleans()), separators=("," + space, ":"))
    return (space + text + space).encode("utf-8", "surrogatepass")


SOURCES = st.one_of(
    encoded(good_events()), encoded(mutated_events()), st.sampled_from([v for v in SMALL_BAD if v])
)


@st.composite
def broken_bytes(draw) -> bytes:
    """A message with a piece of it cut out, and something put in its place."""
    value = draw(encoded(good_events()))
    start = draw(st.integers(0, len(value)))
    stop = draw(st.integers(start, min(len(value), start + 20) if draw(st.booleans()) else len(value)))
    return value[:start] + draw(st.sampled_from(BYTES)) + value[stop:]


@st.composite
def mutated_tokens(draw) -> bytes:
    """A message with tokens of its JSON replaced, doubled, dropped, swapped, or something put between them."""
    tokens = TOKEN.findall(draw(SOURCES))
    for _ in range(draw(st.integers(1, 3))):
        if not tokens:
            break
        at, other = (draw(st.integers(0, len(tokens) - 1)) for _ in range(2))
        change = draw(st.sampled_from(["replace", "replace", "insert", "double", "drop", "swap"]))
        if change == "replace":
            tokens[at] = draw(st.sampled_from(PIECES))
        elif change == "insert":
            tokens.insert(at, draw(st.sampled_from(PIECES)))
        elif change == "double":
            tokens[at:at] = tokens[min(at, other) : max(at, other) + 1]
        elif change == "drop":
            del tokens[at]
        else:
            tokens[at], tokens[other] = tokens[other], tokens[at]
    return b"".join(tokens)


@st.composite
def extended_objects(draw) -> bytes:
    """A good event with further members, some under names that are there already, before, after or inside it."""
    names = [*FIELDS, "extra", "", "user\\u005fid", "\\u0075ser_id", "USER_ID", "\\ud83d\\ude00", "\\ud83d"]
    members = [
        f'"{draw(st.sampled_from(names))}":{draw(st.sampled_from([*NUMBERS, *STRINGS, *LITERALS, "{}", "[[]]"]))}'
        for _ in range(draw(st.integers(1, 3)))
    ]
    added = ",".join(members).encode()
    body = draw(encoded(good_events())).strip()[1:-1]
    parts = [added, body] if draw(st.booleans()) else [body, added]
    return b"{" + b",".join(parts) + b"}"


@st.composite
def nested(draw) -> bytes:
    """Arrays, objects, and both in turn, about as deep as is allowed, alone or in a good event."""
    pairs = [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ('{"user_id":[', "]}"), ("[0,", ",0]")]
    opening, closing = draw(st.sampled_from(pairs))
    each = opening.count("[") + opening.count("{")
    levels = draw(st.sampled_from([1, 2, 30, 1_021, 1_022, 1_023, 1_024, 1_025])) // each
    inner = draw(st.sampled_from(["1", "null", '"\\ud800"', "", "[]", "{}", '"["', '"]"', "1e999"]))
    text = (opening * levels + inner + closing * levels).encode()
    if draw(st.booleans()):
        return draw(encoded(good_events())).strip()[:-1] + b',"extra":' + text + b"}"
    return text


@st.composite
def escaped(draw) -> bytes:
    """A message with characters written as escapes, in either case of hexadecimal, or as half of one."""
    text = draw(SOURCES).decode("utf-8", "replace")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        character = text[at : at + 1].encode("utf-16-be", "surrogatepass").hex()
        escapes = "".join("\\u" + character[start : start + 4] for start in range(0, len(character), 4))
        escapes = draw(
            st.sampled_from([escapes, escapes.upper().replace("U", "u"), escapes[:-1], escapes[:6]])
        )
        text = text[:at] + escapes + text[at + 1 :]
    return text.encode("utf-8", "replace")


@st.composite
def reencoded(draw) -> bytes:
    """A message in another encoding, or with some bytes of UTF-8 damaged."""
    value = draw(SOURCES)
    if draw(st.booleans()):
        text = value.decode("utf-8", "replace")
        return codecs.encode(text, draw(st.sampled_from(ENCODINGS)), "replace")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value)))
        value = value[:at] + draw(st.sampled_from(BYTES)) + value[at + draw(st.integers(0, 1)) :]
    return value


@st.composite
def sized(draw) -> bytes:
    """A message whose size, or whose longest string, is about what is allowed."""
    value = draw(encoded(good_events())).strip()
    if draw(st.booleans()):
        size = draw(st.sampled_from([65_535, 65_536, 65_537]))
        fill = draw(st.sampled_from([b" ", b"\n", b"x", "\u20ac".encode()]))
        if fill.isspace():
            return value + fill * (size - len(value))
        room = size - len(value) - len(b',"extra":""')
        return value[:-1] + b',"extra":"' + (fill * (room // len(fill))).ljust(room, b".") + b'"}'
    field = draw(st.sampled_from(FIELDS))
    size = draw(st.sampled_from([1, 2, 35, 36, 63, 64, 65, 126, 127, 128, 129, 2_047, 2_048, 2_049]))
    fill = draw(st.sampled_from(["x", "é", "\u20ac", "😀", "\u007f", " "]))
    start = draw(st.sampled_from(["", "/", "http://", "https://"]))
    text = (start + fill * size).encode()[:size].decode("utf-8", "ignore")
    return json.dumps(json.loads(value) | {field: text}, ensure_ascii=draw(st.booleans())).encode()


@st.composite
def split(draw) -> list[bytes]:
    """One message in several pieces, as neighbours: only a parser that joins them would understand."""
    value = draw(st.one_of(SOURCES, st.just(b"[1,2]"), st.just(b'{"a":1,"b":2}'), mutated_tokens()))
    at = sorted(draw(st.lists(st.integers(0, len(value)), min_size=1, max_size=3)))
    pieces = [value[start:stop] for start, stop in pairwise([0, *at, len(value)])]
    if draw(st.booleans()):  # cut at a comma, as the pieces of an array would be
        pieces = [piece.strip(b",") for piece in pieces]
    return pieces


@st.composite
def recut(draw) -> list[bytes]:
    """Messages joined by commas and cut at as many others: as an array they parse, and to the right number."""
    texts = draw(st.lists(st.one_of(SOURCES, st.sampled_from(SHORT)), min_size=2, max_size=5))
    pieces = b",".join(texts).split(b",")
    bounds = draw(st.lists(st.integers(0, len(pieces)), min_size=len(texts) - 1, max_size=len(texts) - 1))
    bounds = [0, *sorted(bounds), len(pieces)]
    return [b",".join(pieces[start:stop]) for start, stop in pairwise(bounds)]


VALUES = st.one_of(
    encoded(good_events()),
    encoded(good_events()),
    encoded(mutated_events()),
    broken_bytes(),
    st.sampled_from(SMALL_BAD),
    st.binary(max_size=30),
    st.sampled_from(HALVES),
    mutated_tokens(),
    extended_objects(),
    escaped(),
    reencoded(),
)
RARE_VALUES = st.one_of(nested(), sized())
"""Large ones: worth a place now and then."""

LOG_COUNT = 3
APPEND_TIMES_US = st.sampled_from(
    [NOW_US, NOW_US, NOW_US, NOW_US - 1, NOW_US - 60_000_000, NOW_US + 1_000_000]
)
MESSAGES = st.lists(st.tuples(st.integers(0, LOG_COUNT - 1), VALUES), max_size=40)


@st.composite
def logs_of_messages(draw) -> list[tuple[int, bytes | None, int]]:
    """(log, value, append time) of some messages, among them neighbours that were one, and some large ones."""
    runs = st.one_of(
        st.lists(VALUES, min_size=1, max_size=12),
        st.lists(VALUES, min_size=1, max_size=12),
        st.lists(encoded(good_events()), min_size=1, max_size=12),
        split(),
        recut(),
        RARE_VALUES.map(lambda value: [value]),
    )
    found = []
    for values in draw(st.lists(runs, max_size=5)):
        log, append_time_us = draw(st.integers(0, LOG_COUNT - 1)), draw(APPEND_TIMES_US)
        found += [(log, value, append_time_us) for value in values]
    return found
