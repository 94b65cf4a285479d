"""The ring: a fixed number of blocks that one producer fills and two consumers empty, in order.

Storage and turn-taking are two things. The blocks are storage; four cursors are the turns. A cursor counts blocks
since the worker's start and never wraps (slot = count mod slots), so "full", "empty" and "how far behind" are
subtractions. Each cursor has one writer, which stores it last, after everything that it announces::

    PUBLISHED   producer           blocks handed to the sinks
    COMMITTED   Postgres sink      blocks that are in Postgres
    APPLIED     Redis sink         blocks that are in Redis, too
    DETACHED    Redis sink         1 while Redis is away and its cursor does not hold the producer back

Invariants: APPLIED <= COMMITTED <= PUBLISHED while attached; PUBLISHED - COMMITTED <= slots; the Redis sink is
handed only blocks that Postgres has committed; a slot is claimed again only when every attached consumer has
released it.

Memory order: a cursor is stored after the data it announces, and x86-64 does not reorder stores with stores nor
loads with loads. Within one process the interpreter's lock orders them on every machine.
"""

import numpy as np

from hotpath.shm.block import Block, BlockShape

PUBLISHED, COMMITTED, APPLIED, DETACHED = range(4)


class Ring:
    """`slots` blocks over `buffer`, with turn-taking in `cursors` (int64[4], see above)."""

    def __init__(
        self, shape: BlockShape, slots: int, cursors: np.ndarray, buffer: memoryview | bytearray, at: int = 0
    ) -> None:
        """Map `nbytes(shape, slots)` bytes of `buffer` from byte `at` on; cursors keep what they hold."""
        self.slots = slots
        self._cursors = cursors
        self._blocks = [Block(shape, buffer, at + slot * shape.nbytes) for slot in range(slots)]

    @staticmethod
    def nbytes(shape: BlockShape, slots: int) -> int:
        """Bytes of all slots."""
        return shape.nbytes * slots

    @property
    def published(self) -> int:
        return int(self._cursors[PUBLISHED])

    @property
    def committed(self) -> int:
        return int(self._cursors[COMMITTED])

    @property
    def applied(self) -> int:
        return int(self._cursors[APPLIED])

    @property
    def detached(self) -> bool:
        return bool(self._cursors[DETACHED])

    @property
    def used(self) -> int:
        """Slots that cannot be claimed: published and not yet released by every attached consumer."""
        released = self.committed if self.detached else min(self.committed, self.applied)
        return self.published - released

    # The producer's side.

    def claim(self) -> Block | None:
        """The next block to fill, cleared; None while the ring is full. Claiming again gives the same block."""
        if self.used >= self.slots:
            return None
        block = self._blocks[self.published % self.slots]
        block.clear()
        return block

    def publish(self) -> None:
        """Hand the claimed block to the sinks."""
        assert self.used < self.slots, "published a block that was never claimed"
        self._cursors[PUBLISHED] += 1

    # The Postgres sink's side.

    def to_commit(self) -> Block | None:
        """The oldest block that is not in Postgres; None when there is none."""
        return self._blocks[self.committed % self.slots] if self.committed < self.published else None

    def release_committed(self) -> None:
        """Say that the block `to_commit` gave is in Postgres."""
        assert self.committed < self.published, "committed a block that was never published"
        self._cursors[COMMITTED] += 1

    # The Redis sink's side.

    def to_apply(self, blocks_max: int = 1) -> list[Block]:
        """The oldest committed blocks that are not in Redis, in their order; none while detached."""
        if self.detached:
            return []
        end = min(self.committed, self.applied + blocks_max)
        return [self._blocks[number % self.slots] for number in range(self.applied, end)]

    def release_applied(self, blocks: int = 1) -> None:
        """Say that so many of the blocks `to_apply` gave are in Redis."""
        ready = self.committed - self.applied
        assert not self.detached and blocks <= ready, "applied a block that was never committed"
        self._cursors[APPLIED] += blocks

    def detach(self) -> None:
        """Let the Redis sink's cursor go: Redis is away, and Postgres must not wait for it."""
        self._cursors[DETACHED] = 1

    def attach(self) -> None:
        """Take part again, from the next block to be published on.

        Blocks published before are skipped: they may be overwritten already. What they held is the gap that
        the Redis sink fills from Postgres, in front of the first block it is handed.
        """
        self._cursors[APPLIED] = self._cursors[PUBLISHED]
        self._cursors[DETACHED] = 0

    # Nobody's side.

    def discard(self) -> None:
        """Empty the ring: blocks that are not committed are forgotten. Only while no sink runs."""
        self._cursors[COMMITTED] = self._cursors[APPLIED] = self._cursors[PUBLISHED]
        self._cursors[DETACHED] = 0
