"""What a fault is."""

import random
from typing import ClassVar

from tests.chaos.world import World


class NotPossibleHere(Exception):
    """This machine does not allow the fault; the message says why."""


class Fault:
    """One thing that breaks. A seed decides everything about it: it draws from `chance` when it is made.

    The runner calls `inject`, lets `hold_s` seconds pass, calls `check` (what must hold while it lasts), and `end`.
    From then on the pipeline has to recover by itself, what
    `recovered` asks for included.
    """

    touches: ClassVar[frozenset[str]] = frozenset()
    """What it breaks: two faults at a time have none of these in common."""
    alone: ClassVar[bool] = False
    """Whether nothing else may break meanwhile."""
    weight: ClassVar[float] = 1.0
    """How often it is drawn."""
    hold_s = 0.0

    def __init__(self, chance: random.Random, full: bool = True) -> None:
        """`full`: as long and as large as it gets; else the same in a few seconds."""
        self.chance = chance
        self.full = full
        self.draw()

    def draw(self) -> None:
        """Decide what is left to chance."""

    @property
    def name(self) -> str:
        """How it is called in the table."""
        words = "".join(
            f" {letter.lower()}" if letter.isupper() else letter for letter in type(self).__name__
        )
        return words.strip()

    def inject(self, world: World) -> None:
        """Break it. Raises NotPossibleHere."""
        raise NotImplementedError

    def check(self, world: World) -> None:
        """Assert what must be true while it is broken."""

    def end(self, world: World) -> None:
        """Mend it; the pipeline's recovery is not this fault's to bring about."""

    def recovered(self, world: World) -> bool:
        """Whether the pipeline has made good what only this fault knows of; asked until it has, after `end`."""
        return True
