"""What the views of a log must hold, as Postgres says: the plain data that `compare` takes."""

import psycopg

from hotpath.errors import Unavailable
from hotpath.events import STEP_S
from hotpath.sql import QUERIES
from hotpath.views.compare import Expected
from hotpath.views.contents import Found


def expected_of(connection: psycopg.Connection, found: Found) -> Expected:
    """What must be there of a log that was read from Redis before; `connection` is one of `postgres.connect`.

    One snapshot, taken now: nothing that Redis held can be newer. Raises psycopg's errors, and Unavailable when
    the log no longer counts.
    """
    applied = found.before.applied if found.before else 0
    with connection.transaction():
        position = connection.execute(QUERIES["log_positions"], {"log_ids": [found.log_id]}).fetchone()
        if position is None:
            raise Unavailable(
                f"{found.log} no longer counts: it was given up, or is gone from partition_state"
            )
        _, next_offset, _, watermark_s = position
        expected = Expected(applied, next_offset, watermark_s)
        if found.after is not None:
            span = {"log_id": found.log_id, "applied": applied, "step_s": STEP_S}
            _read_sessions(connection, expected, span | {"from_s": (found.after.seen_step + 1) * STEP_S})
            _read_page_views(connection, expected, span | {"from_s": (found.after.base_step + 1) * STEP_S})
    return expected


def _read_sessions(connection: psycopg.Connection, expected: Expected, span: dict[str, int]) -> None:
    for user, session, step, later in connection.execute(QUERIES["expected_sessions"], span):
        pair = (user.encode(), session.encode())
        if step is not None:
            expected.sessions[pair] = step
        if later != step:
            expected.later_sessions[pair] = later


def _read_page_views(connection: psycopg.Connection, expected: Expected, span: dict[str, int]) -> None:
    for step, page, views, later in connection.execute(QUERIES["expected_page_views"], span):
        pair = (step, page.encode())
        if views:
            expected.page_views[pair] = views
        if later:
            expected.later_page_views[pair] = later
