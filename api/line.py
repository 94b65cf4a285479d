"""Fills the line of the active users from Postgres, once, so that a new process does not begin with an empty chart.

What it costs is bounded: it is left out where too many events would have to be read. Its points are a minute apart and
exact: at the last step of a minute, a window of whole minutes holds the events of these minutes and no others.
"""

import contextlib
from datetime import timedelta

from api.errors import NotAvailable
from api.history import EPOCH
from api.live import LiveNumbers
from api.postgres import Postgres
from api.rates import LINE_S
from api.settings import ApiSettings
from hotpath.events import STEP_S

MINUTE_S = 60
EVENTS_MAX = 3_000_000
"""About a second of Postgres."""


async def fill_line(live: LiveNumbers, postgres: Postgres, settings: ApiSettings) -> None:
    """Wait for the first reading, then add what the line would have held before it."""
    window_s = settings.active_users_window_s
    if window_s % MINUTE_S:
        return
    as_of_us = await live.first_as_of_us()
    until_s = as_of_us // 1_000_000 // MINUTE_S * MINUTE_S
    first_s = until_s - LINE_S + MINUTE_S
    given = {
        "since": EPOCH + timedelta(seconds=first_s - window_s),
        "until": EPOCH + timedelta(seconds=until_s),
        "first": first_s // MINUTE_S,
        "last": until_s // MINUTE_S,
        "minutes": window_s // MINUTE_S,
    }
    with contextlib.suppress(NotAvailable):
        async with postgres.reader() as reader:
            accepted = (await reader.rows("accepted_between", given))[0][0]
            if accepted <= EVENTS_MAX:
                rows = await reader.rows("active_users_by_minute", given)
                live.line.fill([((minute * MINUTE_S - STEP_S) * 1_000_000, users) for minute, users in rows])
