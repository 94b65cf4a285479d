"""The vocabulary of events: their fields, the classes a message can end in, and the limits.

Everything here is a constant. The semantics are a function of the log alone: the same log gives the
same classes however it is cut into batches, restarted, or spread over workers.
"""

from enum import IntEnum

FIELDS = ("timestamp", "user_id", "event_type", "page_url", "session_id")
"""The five string fields of an event, in the order of its documentation."""

TEXT_FIELDS = FIELDS[1:]
"""The fields stored as text; `timestamp` becomes a number."""

PAGE_VIEW = "page_view"
"""The event type that is ranked by page and that bots are recognised by."""


class EventClass(IntEnum):
    """Where a message ends: the first of these, after ACCEPTED, whose rule it breaks."""

    ACCEPTED = 0
    TOO_LARGE = 1
    EMPTY = 2
    NOT_JSON = 3
    NOT_OBJECT = 4
    MISSING_FIELD = 5
    WRONG_TYPE = 6
    BAD_VALUE = 7
    BAD_TIMESTAMP = 8
    FUTURE = 9
    LATE = 10
    BOT = 11

    @property
    def label(self) -> str:
        """The name in the ledger's columns, in quarantine rows and in metrics: `too_large` and so on."""
        return self.name.lower()


CLASS_COUNT = len(EventClass)

REFUSED = tuple(c for c in EventClass if EventClass.TOO_LARGE <= c <= EventClass.FUTURE)
"""Classes of messages that never become events."""

QUARANTINED = (*REFUSED, EventClass.BOT)
"""Classes whose raw bytes are kept in the table `quarantine`."""

# Limits on the parts of a message (bytes are UTF-8 bytes).
MESSAGE_BYTES_MAX = 65_536
JSON_DEPTH_MAX = 1_024
ID_BYTES_MAX = 128
EVENT_TYPE_BYTES_MAX = 64
PAGE_URL_BYTES_MAX = 2_048
PAGE_URL_PREFIXES = ("/", "http://", "https://")
TIMESTAMP_BYTES_MAX = len("2024-03-15T14:30:00.123456789+05:30")
YEAR_MIN, YEAR_MAX = 2000, 2099
EPOCH_2000_US = 946_684_800_000_000
"""2000-01-01T00:00:00Z in microseconds since 1970: the least time an event can have."""
EPOCH_2100_US = 4_102_444_800_000_000
"""2100-01-01T00:00:00Z: the least time that is too great."""

STEP_S = 10
"""Seconds in a step, the resolution of the live views' windows."""

PAYLOAD_KEPT_BYTES = 1_024
"""How much of a refused message is kept in quarantine."""


class Detail(IntEnum):
    """Why a message was refused: which rule, broken by which field. Stored as text in `quarantine.detail`."""

    NONE = 0
    VALUE_TOO_LARGE = 1
    VALUE_NULL = 2
    VALUE_BLANK = 3
    JSON_INVALID = 4
    JSON_NOT_OBJECT = 5
    # From here on one entry per rule and field, in the order of FIELDS: BASE + FIELDS.index(field).
    MISSING = 10
    NOT_STRING = 20
    FIELD_EMPTY = 30
    CONTROL_CHARACTER = 40
    TOO_LONG = 50
    OUTER_SPACE = 60
    EVENT_TYPE_PATTERN = 70
    PAGE_URL_SPACE = 71
    PAGE_URL_PREFIX = 72
    TIMESTAMP_FORMAT = 80
    TIMESTAMP_NOT_REAL = 81
    TIMESTAMP_YEAR = 82
    TIMESTAMP_AHEAD = 83
    BOT_RATE = 90
    ROW_REFUSED = 91


def _detail_texts() -> dict[int, str]:
    texts = {
        Detail.NONE: "",
        Detail.VALUE_TOO_LARGE: f"the value is over {MESSAGE_BYTES_MAX} bytes",
        Detail.VALUE_NULL: "the value is null",
        Detail.VALUE_BLANK: "the value has no bytes but white space",
        Detail.JSON_INVALID: "the value is not one JSON text in UTF-8",
        Detail.JSON_NOT_OBJECT: "the JSON text is not an object",
        Detail.EVENT_TYPE_PATTERN: "event_type is not of the form [A-Za-z0-9_.-]{1,64}",
        Detail.PAGE_URL_SPACE: "page_url holds a space",
        Detail.PAGE_URL_PREFIX: "page_url begins with none of /, http://, https://",
        Detail.TIMESTAMP_FORMAT: "timestamp is not RFC 3339 with a zone",
        Detail.TIMESTAMP_NOT_REAL: "timestamp is not a real date and time",
        Detail.TIMESTAMP_YEAR: f"timestamp is outside the years {YEAR_MIN}-{YEAR_MAX} UTC",
        Detail.TIMESTAMP_AHEAD: "timestamp is too far ahead of the time the record was appended",
        Detail.BOT_RATE: "too many page views by this user in this second",
        Detail.ROW_REFUSED: "Postgres refused the row, which is kept as it was sent",
    }
    per_field = {
        Detail.MISSING: "{} is absent or null",
        Detail.NOT_STRING: "{} is not a string",
        Detail.FIELD_EMPTY: "{} is empty",
        Detail.CONTROL_CHARACTER: "{} has a control character",
        Detail.TOO_LONG: "{} is too long",
        Detail.OUTER_SPACE: "{} begins or ends with a space",
    }
    for base, text in per_field.items():
        for index, field in enumerate(FIELDS):
            texts[base + index] = text.format(field)
    return {int(code): text for code, text in texts.items()}


DETAIL_TEXTS = _detail_texts()
"""Detail code (uint8) to the sentence stored with a quarantined message."""
