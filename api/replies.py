"""What replies have in common: JSON by orjson, CSV for spreadsheets, and under what a live number holds."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response

from api.live import Served

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet would run as a formula."""
AS_OF_HEADER, LAG_HEADER = "X-As-Of", "X-Lag-Events"
"""What a table says of itself, also where it has no rows."""
NEXT_CURSOR_HEADER = "X-Next-Cursor"


class JsonReply(Response):
    """A JSON body. Never cached by others: the numbers are live, and sharing reads is this process's job."""

    media_type = "application/json"

    def __init__(self, body: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> None:
        """body: what becomes JSON, or bytes that are JSON already."""
        super().__init__(body, status_code, {"Cache-Control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else orjson.dumps(content)


class CsvReply(Response):
    """Rows as CSV (RFC 4180, UTF-8), for download; `name` is the file's. The conditions are in headers."""

    media_type = "text/csv"

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        as_of: str,
        lag_events: int | None,
    ) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}.csv"',
            AS_OF_HEADER: as_of,
            **({} if lag_events is None else {LAG_HEADER: str(lag_events)}),
        }
        super().__init__(text.getvalue(), headers=headers)


def _cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe before it."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value


def utc(time_us: int) -> str:
    """RFC 3339 in UTC of microseconds since 1970, with as many digits as it needs."""
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{time_us % 1_000_000:06}".rstrip("0").rstrip(".")
    return f"{moment}{fraction}Z"


def conditions(served: Served) -> dict[str, Any]:
    """What every live number is given with: its as_of, events not yet in it, whether it is old, and how old."""
    return {
        "as_of": utc(served.reading.head.as_of_us),
        "lag_events": served.reading.head.lag_events,
        "stale": served.stale,
        **({"age_s": served.age_s} if served.stale else {}),
    }
