"""One peer, from its start until its table holds what it must: when rows came, what they cost, whether they are right.

Rates and CPU count from the first rows that were seen committed to the last, and leave those first rows out: starting
an interpreter or a JVM is no part of either. Exact counts are taken only near the end (before, the table's size tells
how far it is), so that counting costs the peers next to nothing; the end is known to within COUNT_PAUSE_S.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from bench.harness import CpuMeter
from bench.peers.truth import Digest, digest, stored_bytes, without_duplicates
from hotpath.errors import Unavailable

LOOK_PAUSE_S = 0.05
COUNT_PAUSE_S = 0.2
COUNT_FROM_SHARE = 0.97
"""Counting a table of two million rows takes a tenth of a second: it begins when so much seems to be there."""
SETTLE_S = 1.0
"""So long without another row, and a peer counts as through if every message is there: repeats come at once."""
LATE_S = 20.0
"""Longer than any peer's checkpoints are apart."""


@dataclass(frozen=True)
class Race:
    """What was seen of one peer."""

    rows_at_first: int
    first_row_s: float  # since its start
    seconds: float  # from the first rows seen to the last
    rows: int
    cpu_us: dict[str, float | None]
    """Per row after the first ones: of `peer` and of each server."""

    @property
    def rows_per_s(self) -> float | None:
        """None when most rows were there at the first look: too few to tell."""
        after = self.rows - self.rows_at_first
        return after / self.seconds if after > self.rows_at_first else None


@dataclass(frozen=True)
class Finding:
    """How what a peer stored compares with what it must have stored."""

    right: bool
    duplicates: int
    missing: int
    said: str


def watch(
    dsn: str,
    wanted: Digest,
    bytes_per_row: float,
    pids: dict[str, int | None],
    alive: Callable[[], None],
    progress: Callable[[int], None],
    timeout_s: float,
) -> Race:
    """Look on until `events` holds as many rows as wanted. `alive` raises when the peer has ended.

    Raises Unavailable when the rows have not come after `timeout_s`.
    """
    began = time.perf_counter()
    with psycopg.connect(dsn, autocommit=True) as connection:

        def wait_a_moment(pause_s: float) -> None:
            alive()
            if time.perf_counter() - began > timeout_s:
                raise Unavailable(f"{_count(connection):,} of {wanted.rows:,} rows came in {timeout_s:g} s")
            time.sleep(pause_s)

        while not connection.execute("SELECT EXISTS (SELECT FROM events)").fetchone()[0]:
            wait_a_moment(LOOK_PAUSE_S)
        first = _count(connection)
        first_at, meter = time.perf_counter(), CpuMeter(pids)
        while (size := stored_bytes(connection)) < COUNT_FROM_SHARE * wanted.rows * bytes_per_row:
            progress(min(round(size / bytes_per_row), wanted.rows))
            wait_a_moment(LOOK_PAUSE_S)
        rows = _count(connection)
        while rows < wanted.rows:
            progress(rows)
            wait_a_moment(COUNT_PAUSE_S)
            rows = _count(connection)
        seconds = time.perf_counter() - first_at
        return Race(first, first_at - began, seconds, rows, meter.us_per(max(rows - first, 1)))


def settle(dsn: str, wanted: Digest) -> None:
    """Return when no more rows come and every message is there; without some of them after LATE_S."""
    began = time.monotonic()
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows, since = _count(connection), began
        while True:
            time.sleep(COUNT_PAUSE_S)
            if (now := _count(connection)) != rows:
                rows, since = now, time.monotonic()
            elif time.monotonic() - since > SETTLE_S:
                # As many rows as wanted may be some of them twice, while others wait for a checkpoint.
                late = time.monotonic() - began > LATE_S
                if late or without_duplicates(connection).rows >= wanted.rows:
                    return
                since = time.monotonic()


def find(dsn: str, wanted: Digest) -> Finding:
    """Compare what is stored with what must be."""
    with psycopg.connect(dsn) as connection:
        stored = digest(connection)
        once = stored if stored == wanted else without_duplicates(connection)
    duplicates, missing = stored.rows - once.rows, wanted.rows - once.rows
    if stored == wanted:
        return Finding(True, 0, 0, "every row, once")
    if once == wanted:
        return Finding(True, duplicates, 0, f"every row, {duplicates:,} of them twice or more")
    return Finding(
        False, duplicates, missing, f"wrong: {missing:,} rows missing or others, {duplicates:,} twice"
    )


def _count(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT count(*) FROM events").fetchone()[0]
