"""Which faults a world has, and how often: every seed makes a choice of its own, as real days do.

A seed in three has a kind of fault not at all, so that rare protocols run to their end between others' faults.
"""

import random
from dataclasses import dataclass
from enum import Enum


class Lost(Enum):
    """What a lost connection leaves of the statement or commands under way."""

    BEFORE = "before"  # never arrived
    LATER = "later"  # arrives when the client has long given up
    MIDWAY = "midway"  # some of the commands worked
    AFTER = "after"  # worked; the reply was lost


@dataclass
class Rates:
    """Chances per exchange with a store; chances per step of the world's disturber are in `world`."""

    postgres_lost: float = 0.0
    postgres_error: float = 0.0
    redis_lost: float = 0.0
    redis_error: float = 0.0
    redis_slow: float = 0.0


class Faults:
    """Answers the stores' questions whether something goes wrong now; `stop` ends all of it."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance

        def rate(most: float) -> float:
            return 0.0 if chance.random() < 1 / 3 else most * chance.random() ** 2

        self.rates = Rates(rate(0.2), rate(0.1), rate(0.2), rate(0.05), rate(0.05))
        self.on = True

    def stop(self) -> None:
        self.on = False

    def postgres_lost(self) -> Lost | None:
        if self.on and self._random.random() < self.rates.postgres_lost:
            return self._random.choice((Lost.BEFORE, Lost.LATER, Lost.AFTER))
        return None

    def postgres_error(self) -> bool:
        return self.on and self._random.random() < self.rates.postgres_error

    def redis_lost(self) -> Lost | None:
        if self.on and self._random.random() < self.rates.redis_lost:
            return self._random.choice(list(Lost))
        return None

    def redis_error(self) -> bool:
        return self.on and self._random.random() < self.rates.redis_error

    def redis_slow(self) -> bool:
        return self.on and self._random.random() < self.rates.redis_slow
