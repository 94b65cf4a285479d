"""What the live views of one log must hold, from the log itself: gathered chunk by chunk while it is proven.

Only what lies inside the windows is kept: sessions and page views of steps above the borders that Redis had when it
was read. State: two pairs of dictionaries (see views/compare.py), of what was applied then and of what came later.
"""

import numpy as np

from hotpath.events import TEXT_FIELDS, EventClass
from hotpath.shm.block import Block
from hotpath.views.compare import Expected
from hotpath.views.contents import Found
from hotpath.views.keys import STEP_US

_USER, _PAGE, _SESSION = (TEXT_FIELDS.index(name) for name in ("user_id", "page_url", "session_id"))
_STEP_MULTIPLIER = np.int64(-7046029254386353131)  # odd: spreads steps over a hash's bits


class ExpectedViews:
    """`found`: what Redis held of the log, which is read from its beginning up to `next_offset`."""

    def __init__(self, found: Found, next_offset: int) -> None:
        applied = found.before.applied if found.before else 0
        self._expected = Expected(applied, next_offset, 0)
        borders = found.after or found.before
        self._seen_step = borders.seen_step if borders else 0
        self._base_step = borders.base_step if borders else 0

    def add(self, block: Block) -> None:
        """Take in a block of the log."""
        count = block.rows
        rows = np.flatnonzero(block.classes[:count] == EventClass.ACCEPTED)
        steps = block.times_us[rows] // STEP_US
        inside = steps > min(self._seen_step, self._base_step)
        if not inside.any():
            return
        rows, steps = rows[inside], steps[inside]
        arena = block.arena[: block.arena_used].tobytes()
        expected = self._expected
        for applied, sessions, page_views in (
            (True, expected.sessions, expected.page_views),
            (False, expected.later_sessions, expected.later_page_views),
        ):
            part = (block.offsets[rows] < expected.applied) == applied
            if part.any():
                self._add_sessions(block, arena, rows[part], steps[part], sessions)
                self._add_page_views(block, arena, rows[part], steps[part], page_views)

    def finish(self, watermark_s: int) -> Expected:
        """All of it; `watermark_s`: the log's at its end."""
        self._expected.watermark_s = watermark_s
        return self._expected

    def _add_sessions(
        self,
        block: Block,
        arena: bytes,
        rows: np.ndarray,
        steps: np.ndarray,
        sessions: dict[tuple[bytes, bytes], int],
    ) -> None:
        wanted = steps > self._seen_step
        rows, steps = rows[wanted], steps[wanted]
        firsts, order, starts = _groups(block.session_hashes[rows])
        newest = np.maximum.reduceat(steps[order], starts).tolist() if rows.size else []
        users = _texts(block, arena, _USER, rows[firsts])
        ids = _texts(block, arena, _SESSION, rows[firsts])
        for user, session, step in zip(users, ids, newest, strict=True):
            pair = (user, session)
            if sessions.get(pair, 0) < step:
                sessions[pair] = step

    def _add_page_views(
        self,
        block: Block,
        arena: bytes,
        rows: np.ndarray,
        steps: np.ndarray,
        page_views: dict[tuple[int, bytes], int],
    ) -> None:
        wanted = block.page_views[rows] & (steps > self._base_step)
        rows, steps = rows[wanted], steps[wanted]
        firsts, _, starts = _groups(block.page_hashes[rows] ^ steps * _STEP_MULTIPLIER)
        counts = np.diff(starts, append=rows.size).tolist()
        pages = _texts(block, arena, _PAGE, rows[firsts])
        for step, page, views in zip(steps[firsts].tolist(), pages, counts, strict=True):
            pair = (step, page)
            page_views[pair] = page_views.get(pair, 0) + views


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of equal keys (int64, n): an index of one of each, an order that gathers them, where each begins there."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: keys.size])
    return order[starts], order, starts


def _texts(block: Block, arena: bytes, field: int, rows: np.ndarray) -> list[bytes]:
    starts = block.text_starts(field, rows)
    ends = starts + block.lengths[field, rows]
    return [arena[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
