"""Who does what, in which order: everything about a run that chance decides, from the seed alone.

A plan is cut into pages of PAGE_ROWS rows, one row per message, made one after the other; no page depends on
the clock or on how fast the pages are used up. State: the people, the shares still owed, and which
partitions have had an ordinary event.

Invariants: a late row's partition had a row of an ordinary person before it, in this page or an earlier one
(so its log has a watermark to be behind of); the rows of one burst lie within 2 * BURST_SPREAD_ROWS rows of
each other and in one page.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from generator.profiles import Pages, People

PAGE_ROWS = 4_096
"""Rows made at once: enough to make numpy's calls cheap (0.1 µs a row), few enough to stay in the L2 cache."""
BURST_SPREAD_ROWS = 30
"""How far a bot's page views are mixed with other people's events."""
BURST_OVER_MIN, BURST_OVER_MAX = 5, 30
"""By how many page views a bot exceeds what is kept of one second."""
ODD_SHARE = 0.002
"""Share of good events that are written in an unusual way, each by a guest of its own."""


class Role(IntEnum):
    """What kind of message a row is."""

    PERSON = 0
    LATE = 1
    BOT = 2
    ODD = 3
    MALFORMED = 4


@dataclass(frozen=True)
class Shares:
    """Shares of all messages, 0 to 1: bot events (those past the allowed number), malformed and late ones."""

    bots: float
    malformed: float
    late: float


@dataclass(frozen=True)
class Page:
    """Columns of one page of the plan; `people` and what follows says nothing on rows that need none of it."""

    roles: np.ndarray  # int8, Role
    bursts: np.ndarray  # int32: number of the burst within the run, on rows of bots
    people: np.ndarray  # int32, into People.ids
    partitions: np.ndarray  # int32, of the person
    sessions: np.ndarray  # int64
    types: np.ndarray  # int8, into EVENT_TYPES
    urls: np.ndarray  # int32, into Pages.urls

    def __len__(self) -> int:
        return len(self.roles)


class Plan:
    """Pages of rows, without end."""

    def __init__(
        self,
        people: People,
        pages: Pages,
        partitions_of_people: np.ndarray,
        shares: Shares,
        burst_allowed: int,
        rng: np.random.Generator,
    ) -> None:
        """`burst_allowed`: page views of one user in one second that are kept."""
        self._people = people
        self._pages = pages
        self._partitions = partitions_of_people
        self._shares = shares
        self._allowed = burst_allowed
        self._rng = rng
        self._bots_owed = 0.0
        self._late_owed = 0.0
        self._next_burst = 0
        self._seen = np.zeros(int(partitions_of_people.max()) + 1, np.bool_)

    def next_page(self) -> Page:
        """The next PAGE_ROWS rows (a few more when bots are so many that a burst passes the end)."""
        roles, bursts = self._cast()
        people, sessions, types, urls = self._people.turns(len(roles))
        partitions = self._partitions[people]
        bots = roles == Role.BOT
        urls[bots] = self._pages.draw(int(bots.sum()), self._rng)
        self._make_late(roles, partitions)
        return Page(roles, bursts, people, partitions, sessions, types, urls)

    def _cast(self) -> tuple[np.ndarray, np.ndarray]:
        """Roles and burst numbers of a page's rows; late ones are chosen later."""
        sizes = self._burst_sizes()
        singles = max(0, PAGE_ROWS - int(sizes.sum()))
        # Bursts and single rows are shuffled as units, then each burst is mixed with its neighbours.
        unit_bursts = np.full(len(sizes) + singles, -1, np.int32)
        unit_bursts[: len(sizes)] = np.arange(len(sizes))
        units = self._rng.permutation(len(unit_bursts))
        unit_sizes = np.concatenate([sizes, np.ones(singles, np.int64)])
        bursts = np.repeat(unit_bursts[units], unit_sizes[units])
        places = np.arange(len(bursts)) + self._rng.uniform(0, BURST_SPREAD_ROWS, len(bursts))
        bursts = bursts[np.argsort(places)]
        bots = bursts >= 0
        bursts[bots] += self._next_burst
        self._next_burst += len(sizes)

        roles = np.full(len(bursts), Role.PERSON, np.int8)
        # Shares are of all messages; the rows that are left to choose from are fewer.
        left = max(1e-9, singles / len(bursts))
        chance = self._rng.random(len(bursts))
        malformed = min(1.0, self._shares.malformed / left)
        roles[chance < malformed] = Role.MALFORMED
        roles[chance > 1 - ODD_SHARE * (1 - malformed)] = Role.ODD
        roles[bots] = Role.BOT
        return roles, bursts

    def _burst_sizes(self) -> np.ndarray:
        """Page views of each burst of a page, so many that the share of bot events is kept in the long run."""
        self._bots_owed += self._shares.bots * PAGE_ROWS
        sizes = []
        while self._bots_owed > 0 and self._shares.bots:
            over = int(self._rng.integers(BURST_OVER_MIN, BURST_OVER_MAX, endpoint=True))
            sizes.append(self._allowed + over)
            self._bots_owed -= over
        return np.array(sizes, np.int64)

    def _make_late(self, roles: np.ndarray, partitions: np.ndarray) -> None:
        """Turn rows of people into late ones, where their partition already had an event."""
        self._late_owed += self._shares.late * len(roles)
        ordinary = np.flatnonzero(roles == Role.PERSON)
        firsts = np.full(len(self._seen), len(roles))
        np.minimum.at(firsts, partitions[ordinary], ordinary)
        firsts[self._seen] = -1
        fit = ordinary[ordinary > firsts[partitions[ordinary]]]
        # At random, and rounded down: what is left is owed to the next page.
        count = min(int(self._late_owed), len(fit))
        late = self._rng.choice(fit, count, replace=False)
        roles[late] = Role.LATE
        self._late_owed -= count
        # A row that turned late gives its log no watermark; the first of a partition never turns.
        self._seen[partitions[roles == Role.PERSON]] = True
