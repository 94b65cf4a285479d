"""How many events are due: a schedule of tokens, kept without bursts.

State: since when the schedule runs, and how much of it is used up. Takes the time as an argument, so it needs
no clock of its own.

Invariants: over any stretch the tokens handed out are at most what is due by the schedule; one look hands out
at most CATCH_UP_FACTOR times what fell due since the look before; a backlog of more than FORGIVEN_S is given up.
"""

TICK_S = 0.005
"""Pause between looks: batches of 50 at 10,000 events/s, small against the second that views care about."""
CATCH_UP_FACTOR = 2.0
"""How much faster than asked a backlog is worked off."""
FORGIVEN_S = 5.0
"""A backlog older than this is an outage, not a hiccup: it is not made up for."""


class Pace:
    """Tokens at a rate, `rate` events a second; 0 hands out `unlimited_batch` at each look."""

    def __init__(self, rate: float, now: float, unlimited_batch: int = 2_048) -> None:
        self._unlimited_batch = unlimited_batch
        self.set_rate(rate, now)

    def set_rate(self, rate: float, now: float) -> None:
        """Go on at another rate from `now` (seconds of a monotonic clock) on; what was owed is forgotten."""
        self.rate = rate
        self._since = now
        self._looked = now
        self._taken = 0

    def due(self, now: float) -> int:
        """How many events to send now."""
        if not self.rate:
            return self._unlimited_batch
        owed = (now - self._since) * self.rate - self._taken
        forgiven = owed - FORGIVEN_S * self.rate
        if forgiven > 0:
            self._since += forgiven / self.rate
            owed -= forgiven
        # At a low rate a look sees less than one token; then one may always go.
        cap = max(1.0, CATCH_UP_FACTOR * self.rate * max(now - self._looked, TICK_S))
        count = int(min(owed, cap, CATCH_UP_FACTOR * self.rate * 0.1 + 1))
        self._looked = now
        self._taken += count
        return count

    def pause_s(self, now: float) -> float:
        """How long to wait before the next look, seconds."""
        if not self.rate:
            return 0.0
        next_token = self._since + (self._taken + 1) / self.rate
        return min(max(next_token - now, TICK_S), 0.1)
