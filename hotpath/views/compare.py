"""Compares what Redis holds of a log with what it must hold, and names every difference.

What it must hold comes as plain data from either of two sources: Postgres (`expected`), or the log itself. A log may
move while it is read, so the contents must lie between two sums: of all events below the offset that was applied
before the first look, and of those plus everything that may have come since. At rest the two are one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hotpath.views.contents import Difference, Found, text


@dataclass
class Expected:
    """What the views of a log must hold, as far as the windows need.

    applied: `sessions` and `page_views` are of the accepted events at offsets below this: `found.before.applied`.
    sessions: (user_id, session_id) -> last-seen step, of steps above `found.after.seen_step`.
    page_views: (step, page_url) -> page views, of steps above `found.after.base_step`.
    later_sessions, later_page_views: the same of the accepted events from there up to `reach`, an offset that was
    committed to Postgres no earlier than the reading ended; empty when nothing came.
    watermark_s: greatest second below `reach` (accepted or bot); 0 before any.
    reach: see above; at most that much may be applied.
    """

    applied: int
    reach: int
    watermark_s: int
    sessions: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    page_views: dict[tuple[int, bytes], int] = field(default_factory=dict)
    later_sessions: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    later_page_views: dict[tuple[int, bytes], int] = field(default_factory=dict)


def compare(found: Found, expected: Expected) -> Iterator[Difference]:
    """Every difference, what contradicts itself first. Needs `found.after`, unless the log has no generation."""
    yield from found.faults
    if found.after is None:
        return
    yield from _compare_state(found, expected)
    if "users" not in found.unread:
        yield from _compare_users(found, expected)
        yield from _compare_sessions(found, expected)
    if "pages" not in found.unread:
        yield from _compare_page_views(found, expected)


def _compare_state(found: Found, expected: Expected) -> Iterator[Difference]:
    state = found.after
    if state.applied > expected.reach:
        yield Difference(found.log, "state", "applied", f"at most {expected.reach}", str(state.applied))
    if state.applied == expected.reach and state.watermark_s != expected.watermark_s:
        yield Difference(found.log, "state", "watermark_s", str(expected.watermark_s), str(state.watermark_s))
    elif state.watermark_s > expected.watermark_s:
        yield Difference(
            found.log, "state", "watermark_s", f"at most {expected.watermark_s}", str(state.watermark_s)
        )


def _compare_users(found: Found, expected: Expected) -> Iterator[Difference]:
    least, most = _newest_by_user(expected.sessions), _newest_by_user(expected.later_sessions)
    floor = found.after.seen_step
    if not most and found.users == least:
        return
    for user in least.keys() | most.keys() | found.users.keys():
        if f"sessions of {text(user)}" in found.unread:
            continue
        here = found.users.get(user, 0)
        low = least.get(user, 0)
        high = max(low, most.get(user, 0))
        yield from _outside(found.log, "users", text(user), low, high, here, floor)


def _newest_by_user(sessions: dict[tuple[bytes, bytes], int]) -> dict[bytes, int]:
    newest: dict[bytes, int] = {}
    for (user, _), step in sessions.items():
        newest[user] = max(step, newest.get(user, 0))
    return newest


def _compare_sessions(found: Found, expected: Expected) -> Iterator[Difference]:
    floor = found.after.seen_step
    if not expected.later_sessions and found.sessions == expected.sessions:
        return
    pairs = expected.sessions.keys() | expected.later_sessions.keys() | found.sessions.keys()
    for pair in pairs:
        user, session = pair
        if f"sessions of {text(user)}" in found.unread:
            continue
        here = found.sessions.get(pair, 0)
        low = expected.sessions.get(pair, 0)
        high = max(low, expected.later_sessions.get(pair, 0))
        yield from _outside(found.log, "sessions", f"{text(user)} {text(session)}", low, high, here, floor)


def _outside(
    log: str, view: str, key: str, low: int, high: int, here: int, floor: int
) -> Iterator[Difference]:
    """The difference when a last-seen step is not between `low` and `high`; up to `floor` it may be anything."""
    if low <= here <= high or max(here, low) <= floor:
        return
    wanted = str(low or "none") if low == high else f"{low or 'none'} to {high}"
    yield Difference(log, view, key, wanted, str(here or "none"))


def _compare_page_views(found: Found, expected: Expected) -> Iterator[Difference]:
    floor = found.after.base_step
    if not expected.later_page_views and found.page_views == expected.page_views:
        return
    pairs = expected.page_views.keys() | expected.later_page_views.keys() | found.page_views.keys()
    for pair in pairs:
        step, page = pair
        if step <= floor:
            continue
        here = found.page_views.get(pair, 0)
        low = expected.page_views.get(pair, 0)
        high = low + expected.later_page_views.get(pair, 0)
        if not low <= here <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            yield Difference(found.log, "pages", f"{text(page)} in step {step}", wanted, str(here))
