"""What needs a memory of the last seconds or minutes: rates, and the line of the active users."""

import collections
import math
import time
from collections.abc import Callable, Hashable, Mapping

from hotpath.views.keys import step_of

RATE_OVER_S = 5.0
"""Rates are means over at least so many seconds: a flush interval is not to be seen in them."""
LINE_S = 900
"""How far back the line of the active users goes; its points are a step apart at least."""


class Rate:
    """How many a second counters grew by lately, in sum."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: collections.deque[tuple[float, dict[Hashable, int]]] = collections.deque()

    def add(self, counters: Mapping[Hashable, int]) -> None:
        """What the counters are now. One that is new, or fell, counts from the next time on."""
        now = self._clock()
        self._samples.append((now, dict(counters)))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_OVER_S:
            self._samples.popleft()

    def per_s(self) -> float | None:
        """The mean since the latest sample that is RATE_OVER_S old, or since the first; None when it is unknown."""
        if len(self._samples) < 2:
            return None
        (since, before), (until, now) = self._samples[0], self._samples[-1]
        grown = sum(max(0, count - before[name]) for name, count in now.items() if name in before)
        return round(grown / max(until - since, 0.001), 1)


class ActiveUsersLine:
    """The active users of the last 15 minutes, the latest of each step."""

    def __init__(self) -> None:
        self._points: collections.deque[tuple[int, int]] = collections.deque()

    def add(self, as_of_us: int, users: int) -> None:
        """What they were at `as_of_us`, which never moves back."""
        if self._points and step_of(self._points[-1][0]) == step_of(as_of_us):
            self._points.pop()
        self._points.append((as_of_us, users))
        while self._points[0][0] <= as_of_us - LINE_S * 1_000_000:
            self._points.popleft()

    def fill(self, points: list[tuple[int, int]]) -> None:
        """Add (as_of, users), rising, from before what is there."""
        first_us = self._points[0][0] if self._points else math.inf
        newest_us = self._points[-1][0] if self._points else 0
        earlier = [point for point in points if newest_us - LINE_S * 1_000_000 < point[0] < first_us]
        self._points.extendleft(reversed(earlier))

    def points(self) -> list[tuple[int, int]]:
        """(as_of in microseconds since 1970, users), the oldest first."""
        return list(self._points)
