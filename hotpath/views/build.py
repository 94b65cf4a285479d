"""Loads a generation of a log's views that nobody reads yet, with what Postgres says.

The pieces are sent by the same scripts as those of a live log, and are a chain as well: `applied` is `build:0`,
`build:1` ... and becomes the log's next offset with the last piece, so that a lost one can not go unnoticed.
"""

from collections import defaultdict

import redis

from hotpath.views import store
from hotpath.views.fold import PAIRS_MAX, CountPiece, LogChanges
from hotpath.views.link import Command, run
from hotpath.views.store import LogState, Outcome


class Build:
    """A generation being built, whose state `store.create_generation` has begun.

    Buffers what it is told and sends it in pieces. Raises redis' errors; after one the generation is of no use.
    """

    def __init__(self, client: redis.Redis, prefix: str, state: LogState, log_id: int) -> None:
        """state: what the generation's state will be when it is finished."""
        self._client = client
        self._prefix = prefix
        self._log_id = log_id
        self._state = state
        self.generation = state.generation
        self._pieces = 0
        self._seen: list = []
        self._counts: dict[int, list] = defaultdict(list)
        self._pairs = 0

    def touch(self, user: str, session: str, step: int) -> None:
        """A user's session was last seen in `step`; each pair once."""
        self._seen += (user.encode(), session.encode(), step)
        if len(self._seen) >= 3 * store.TOUCH_ENTRIES_MAX:
            self._send(self._next_link())

    def count(self, step: int, page: str, views: int) -> None:
        """A page has `views` page views in `step`; each pair once."""
        self._counts[step] += (page.encode(), views)
        self._pairs += 1
        if self._pairs >= PAIRS_MAX:
            self._send(self._next_link())

    def finish(self) -> None:
        """Send the rest, and with it `applied`: from here on the generation may go live."""
        self._send(str(self._state.applied))

    def _next_link(self) -> str:
        return f"{store.BUILDING}{self._pieces + 1}"

    def _send(self, target: str) -> None:
        piece = CountPiece(0, 0, [[step, increments] for step, increments in self._counts.items()])
        changes = LogChanges(self._log_id, 0, 0, self._state.watermark_s, self._seen, [piece])
        chain = (f"{store.BUILDING}{self._pieces}", target)
        commands: list[Command] = store.change_commands(
            self._prefix, self.generation, changes, "building", chain
        )
        replies = run(self._client, commands)
        outcome = store.outcome_of(replies)
        if outcome is not Outcome.APPLIED:
            raise redis.exceptions.ResponseError(f"a rebuild was refused: {outcome.value}, {replies[-1]}")
        self._pieces += 1
        self._seen, self._counts, self._pairs = [], defaultdict(list), 0
