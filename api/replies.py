"""What replies have in common: JSON by orjson, and under which as_of and lag a number holds."""

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response

from api.live import Served


class JsonReply(Response):
    """A JSON body. Never cached by others: the numbers are live, and sharing reads is this process's job."""

    media_type = "application/json"

    def __init__(self, body: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(body, status_code, {"Cache-Control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def utc(time_us: int) -> str:
    """RFC 3339 in UTC of microseconds since 1970, with as many digits as it needs."""
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{time_us % 1_000_000:06}".rstrip("0").rstrip(".")
    return f"{moment}{fraction}Z"


def conditions(served: Served, window_s: int) -> dict[str, Any]:
    """What every number is given with: its window, its as_of, events not yet in it, and whether it is old."""
    return {
        "window_s": window_s,
        "as_of": utc(served.reading.head.as_of_us),
        "lag_events": served.reading.head.lag_events,
        "stale": served.stale,
    }
