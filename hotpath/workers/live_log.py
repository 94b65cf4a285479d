"""What a worker knows of the live views of one of its logs: the Redis sink's, and its upkeep's."""

from dataclasses import dataclass, field
from enum import Enum

from hotpath.views import store
from hotpath.views.slots import Slots
from hotpath.views.store import LogState


class Phase(Enum):
    """See redis_sink.py."""

    UNKNOWN = 0
    LIVE = 1
    HEALING = 2


@dataclass
class LiveLog:
    """One log; `row` is its row of the log status."""

    row: int
    log_id: int
    phase: Phase = Phase.UNKNOWN
    state: LogState | None = None
    complete_until_us: int = 0
    complete_at: int = 0
    """The offset up to which all must be applied for `complete_until_us` to be true."""
    applied_at_tick: int = -1
    due_at_tick: int = -1
    """Where the views were to be at the last tick: before the oldest block that waits."""
    scrubbed: tuple[bytes, bytes] = store.SCRUB_START
    """How far the present generation's keys were looked through."""
    slots: Slots = field(default_factory=Slots)
    """What the present generation is known to have; empty unless the phase is LIVE."""

    def learn(self, until_us: int, applied: int) -> None:
        """The views are complete until then when all below `applied` is in them."""
        if until_us > self.complete_until_us:
            self.complete_until_us, self.complete_at = until_us, applied
