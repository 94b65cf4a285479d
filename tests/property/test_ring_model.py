"""The ring against a model: three lists. Tiny rings, so that every wrap happens."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hotpath.shm.block import BlockShape
from hotpath.shm.ring import Ring

SHAPE = BlockShape(rows_max=2, arena_bytes=64, logs_max=1)


class RingModel(RuleBasedStateMachine):
    """Blocks are numbered in the order of publishing; the model knows which number each side must see next."""

    @initialize(slots=st.integers(1, 4))
    def make(self, slots):
        self.slots = slots
        self.ring = Ring(SHAPE, slots, np.zeros(4, np.int64), bytearray(Ring.nbytes(SHAPE, slots)))
        self.number = 0
        self.uncommitted: list[int] = []
        self.unapplied: list[int] = []  # published while attached and not yet applied
        self.detached = False

    def _held(self) -> int:
        """Slots that must not be overwritten: from the oldest block anyone still needs."""
        needed = self.uncommitted + ([] if self.detached else self.unapplied)
        return self.number - min(needed) if needed else 0

    @rule()
    def publish(self):
        block = self.ring.claim()
        if self._held() >= self.slots:
            assert block is None
            return
        block.offsets[0] = self.number
        block.rows = 1
        self.ring.publish()
        self.uncommitted.append(self.number)
        if not self.detached:
            self.unapplied.append(self.number)
        self.number += 1

    @rule()
    def commit(self):
        block = self.ring.to_commit()
        if not self.uncommitted:
            assert block is None
            return
        assert block.offsets[0] == self.uncommitted.pop(0)
        self.ring.release_committed()

    @rule(blocks_max=st.integers(1, 3))
    def apply(self, blocks_max):
        blocks = self.ring.to_apply(blocks_max)
        ready = [n for n in self.unapplied if n not in self.uncommitted][:blocks_max]
        assert [block.offsets[0] for block in blocks] == ([] if self.detached else ready)
        if blocks:
            self.unapplied = [n for n in self.unapplied if n not in ready]
            self.ring.release_applied(len(blocks))

    @precondition(lambda self: not self.detached)
    @rule()
    def detach(self):
        self.ring.detach()
        self.detached = True
        self.unapplied.clear()

    @precondition(lambda self: self.detached)
    @rule()
    def attach(self):
        self.ring.attach()
        self.detached = False

    @invariant()
    def never_more_than_its_slots(self):
        if hasattr(self, "ring"):
            assert 0 <= self.ring.used <= self.slots
            assert self.ring.used == self._held()


RingModel.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestRing = RingModel.TestCase
