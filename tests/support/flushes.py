"""What PostgresSink sends for a block, statement by statement, to a real or a simulated Postgres."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
from hypothesis import strategies as st

from hotpath.events import PAGE_VIEW, REFUSED, EventClass
from hotpath.shm.block import Block
from hotpath.workers import copy_format, history, postgres_sink
from tests.simulation.postgres import LogRow
from tests.support.blocks import NOON_US, Event, append_events, new_block
from tests.support.postgres_sides import Side

REFUSED_PAGE = "/\0"
"""No row of it gets past Postgres."""

_classes = st.sampled_from(
    [EventClass.ACCEPTED] * 5 + [EventClass.LATE, EventClass.BOT, EventClass.EMPTY, EventClass.FUTURE]
)
EVENTS = st.lists(
    st.tuples(
        _classes,
        st.integers(0, 1),  # offsets left out before it
        st.sampled_from([-400_000_000, -1, 0, 1, 999_999, 1_000_000, 10_000_000, 65_000_000]),
        st.sampled_from(["u", "v", "ü"]),
        st.sampled_from([PAGE_VIEW, PAGE_VIEW, "click"]),
        st.sampled_from([*(["/", "/a", "/ä"] * 8), REFUSED_PAGE]),
        st.sampled_from(["s", "t"]),
    ),
    min_size=1,
    max_size=6,
)


def _entry_with(entry: dict[str, int], deviations: dict[str, int]) -> dict[str, int]:
    return {name: value + deviations.get(name, 0) for name, value in entry.items()}


DEVIATIONS = st.one_of(
    st.just({}),
    st.just({}),
    st.just({}),
    st.dictionaries(
        st.sampled_from(["epoch", "first_offset", "next_offset", "received", "accepted", "log_id"]),
        st.sampled_from([1, -1, 7, -7]),
        max_size=1,
    ),
)


def flush(
    side: Side,
    index: int,
    rows: dict[int, LogRow],
    by_log: list,
    deviations: dict,
    commits: bool,
    apart: bool,
) -> list[Any]:
    """What PostgresSink sends for a block of some logs, in the transaction that is open or in one of its own."""
    held = [rows[log_id] for log_id in sorted(rows)][: len(by_log)]
    block = new_block([r.log_id for r in held], [r.next_offset for r in held], [r.epoch for r in held])
    block.logs["watermark_s"][: len(held)] = [r.watermark_s for r in held]
    for log_index, (row, events) in enumerate(zip(held, by_log, strict=False)):
        offset = row.next_offset
        for kind, gap, after_us, user, event_type, page, session in events:
            offset += gap
            payload = b"\0{" if kind in REFUSED or kind is EventClass.BOT else None
            at = (offset, log_index, kind, NOON_US + after_us, user, event_type, page, session, payload)
            copy_format.seal_rows(block, append_events(block, [Event(*at)]))
            offset += 1
    inside = side.blocks[index] is not None
    if not inside:
        side.begin(index, repeatable=False)
    done: list[Any] = []
    try:
        done.extend(statement() for statement in _statements(side, index, block, deviations, apart))
    except psycopg.Error as error:
        done.append((error.sqlstate or "")[:2])
        commits = False
    finally:
        if not inside:
            side.end(index, commits)
    return done


def _statements(
    side: Side, index: int, block: Block, deviations: dict, apart: bool
) -> list[Callable[[], Any]]:
    buffer = copy_format.CopyBuffer()
    found: list[Callable[[], Any]] = []

    def copy(name: str, rows: bytes | memoryview | None, saved: bool = False) -> None:
        if rows is not None:
            data = bytes(rows)
            found.append(
                lambda: _copy_apart(side, index, name, data) if saved else side.copy(index, name, data)
            )

    for event_class, name in postgres_sink.EVENT_TABLES:
        copy(name, copy_format.event_rows(block, event_class, buffer), apart)
        broken = [r for r in copy_format.rows_of(block, event_class).tolist() if _is_refused(block, r)]
        if apart and broken:
            postgres_sink.refuse_rows(block, broken)
            copy(name, copy_format.event_rows(block, event_class, buffer), apart)
    copy("copy_quarantine", copy_format.quarantine_rows(block))
    if (activity := copy_format.bot_activity_rows(block)) is not None:
        found.append(lambda: side.tell(index, "add_bot_activity", vars(activity)))
    copy("copy_history_minutes", history.minute_rows(block))
    copy("copy_history_pages", history.page_rows(block))
    entries = [_entry_with(entry, deviations) for entry in postgres_sink._entries(block)]
    parameters = {"entries": json.dumps(entries), "rules_id": 1}
    found.append(lambda: side.run(index, "advance_logs", parameters))
    return found


def _is_refused(block: Block, row: int) -> bool:
    return block.text(history.PAGE, row) == REFUSED_PAGE.encode()


def _copy_apart(side: Side, index: int, name: str, rows: bytes) -> str:
    """In a savepoint, as rows are that may be refused."""
    try:
        with side.connections[index].transaction():
            side.copy(index, name, rows)
    except psycopg.DataError as error:
        return (error.sqlstate or "")[:2]
    return "in"
