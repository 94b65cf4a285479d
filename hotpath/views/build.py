"""Loads a generation of a log's views that nobody reads yet, with what Postgres says.

The pieces are sent by the same scripts as those of a live log, and are a chain as well: `applied` is `build:0`,
`build:1` ... and becomes the log's next offset with the last piece, so that a lost one can not go unnoticed. From
there the chain may go on, to a later offset.
"""

from collections import defaultdict

from hotpath.views import packed, store
from hotpath.views.fold import PAIRS_MAX, CountPiece, LogChanges, Seen, in_rounds, session_of
from hotpath.views.link import Stream
from hotpath.views.store import LogState


class Build:
    """A generation being built, whose state `store.create_generation` has begun.

    Buffers what it is told and sends it in pieces, over a stream that is shared with other builds: what was refused
    is known when that is drained. Raises redis' errors; after one the generation is of no use.
    """

    def __init__(self, stream: Stream, prefix: str, state: LogState, log_id: int) -> None:
        """state: what the generation's state is to be when it has been loaded."""
        self._stream = stream
        self._prefix = prefix
        self._log_id = log_id
        self.generation = state.generation
        self.applied = state.applied
        """The offset that the generation has reached, or will have with what is being sent."""
        self._watermark_s = state.watermark_s
        self._pieces = 0
        self._link = f"{store.BUILDING}0"
        self._seen: list = []
        self._counts: dict[int, list] = defaultdict(list)
        self._pairs = 0

    def touch(self, user: str, session: str, step: int) -> None:
        """A user's session was last seen in `step`."""
        self._seen += (user.encode(), session_of(session), step)
        if len(self._seen) >= 3 * store.TOUCH_ENTRIES_MAX:
            self._send()

    def count(self, step: int, page: str, views: int) -> None:
        """A page has `views` more page views in `step`."""
        self._counts[step] += (page.encode(), views)
        self._pairs += 1
        if self._pairs >= PAIRS_MAX:
            self._send()

    def finish(self, applied: int, watermark_s: int) -> None:
        """Send the rest, and with it `applied`: all below is there once the stream is drained."""
        self.applied, self._watermark_s = applied, watermark_s
        self._send(str(applied))

    def _send(self, target: str | None = None) -> None:
        self._pieces += 1
        before, self._link = self._link, target or f"{store.BUILDING}{self._pieces}"
        piece = CountPiece(0, 0, packed.pack(list(self._counts.items())))
        seen = Seen.of(in_rounds(self._seen))
        changes = LogChanges(self._log_id, 0, 0, self._watermark_s, seen, [piece])
        chain = (before, self._link)
        for command in store.change_commands(self._prefix, self.generation, changes, "building", chain):
            self._stream.send(command)
        self._seen, self._counts, self._pairs = [], defaultdict(list), 0
