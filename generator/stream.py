"""The plan's rows as messages, stamped with a time, and the count of what a correct pipeline makes of them.

State: the place in the plan, each log's watermark as far as this run moved it, each person's last page view,
the bursts under way, and the counts by class.

Invariants, which make the counts exact as long as a log keeps the order of the messages:
- a late event is late of a watermark that its log is sure to have by then: that of the ordinary events
  before it (others can only have raised it further, which makes it no less late);
- nobody but a bot has two page views in one second; a row that would be the second one becomes a click;
- a burst is counted by what was really stamped with its second; its user is seen in no other run.
"""

import random
from dataclasses import dataclass, field

import numpy as np

from generator.faults import ODD_SHAPES, REFUSED_SHAPES, REFUSED_WEIGHTS, Maker, Sample, canonical
from generator.plan import Page, Plan, Role, Shares
from generator.profiles import EVENT_TYPES, Pages, People
from hotpath.events import CLASS_COUNT, PAGE_VIEW, EventClass
from hotpath.partitioner import partition_for, partitions_for

_VIEW, _CLICK = 0, 1  # indexes into EVENT_TYPES
_BOT, _ODD = int(Role.BOT), int(Role.ODD)  # looking a member up costs as much as comparing it
_US = 1_000_000
_LATE_SPREAD_S = 3_600
"""Late events are up to an hour later than they may be; half of them by less than a minute."""


@dataclass
class Batch:
    """Messages in the order in which they must be produced: parallel lists. A null value is None."""

    keys: list[str | bytes | None] = field(default_factory=list)
    values: list[str | bytes | None] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class _Burst:
    """One bot at work: all its page views bear one second."""

    user_id: str
    session_id: str
    partition: int
    second: int
    stamped: int = 0


@dataclass(frozen=True)
class Scenario:
    """What a stream is made from; equal scenarios give equal streams."""

    seed: int
    users: int
    pages: int
    shares: Shares
    partitions: int
    run: str  # names this run's sessions, bots and guests
    partitioner: str = "murmur2"
    late_max_s: int = 300
    bot_page_views_max: int = 10


class Stream:
    """Events of one run, without end."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.counts = [0] * CLASS_COUNT
        rng = np.random.default_rng(scenario.seed)
        pages = Pages(scenario.pages, rng)
        people = People(scenario.users, pages, rng)
        homes = partitions_for(
            [name.encode() for name in people.ids], scenario.partitions, scenario.partitioner
        )
        self._ids = people.ids
        self._urls = pages.urls
        self._types = list(EVENT_TYPES)
        self._plan = Plan(people, pages, homes, scenario.shares, scenario.bot_page_views_max, rng)
        self._page = self._plan.next_page()
        self._row = 0
        # Of their own, so that neither's draws depend on how the other's rows are cut into batches.
        self._chance = random.Random(scenario.seed)
        self._lateness = random.Random(scenario.seed)
        self._watermarks = np.zeros(scenario.partitions, np.int64)
        self._last_views = np.zeros(scenario.users, np.int64)
        self._first_rows = np.zeros(scenario.users, np.int64)
        self._bursts: dict[int, _Burst] = {}
        self._guests = 0

    def truth(self) -> dict[str, int]:
        """Class label to the number of messages taken so far that must end in it."""
        return {EventClass(index).label: count for index, count in enumerate(self.counts)}

    def take(self, times_us: np.ndarray, append_us: int | None = None) -> Batch:
        """The next messages, one for each of `times_us` (int64, microseconds since 1970, rising).

        `append_us` is the latest time at which they may be appended; the last of `times_us` if not given.
        """
        batch = Batch()
        at = 0
        while at < len(times_us):
            if self._row == len(self._page):
                self._page = self._plan.next_page()
                self._row = 0
                self._bursts.clear()
            count = min(len(times_us) - at, len(self._page) - self._row)
            times = times_us[at : at + count]
            self._add(batch, slice(self._row, self._row + count), times, append_us or int(times_us[-1]))
            self._row += count
            at += count
        return batch

    def _add(self, batch: Batch, rows: slice, times_us: np.ndarray, append_us: int) -> None:
        """Append the page's `rows`, which are stamped with `times_us`, to the batch."""
        page = self._page
        roles = page.roles[rows]
        seconds = times_us // _US
        people = page.people[rows]
        homes = page.partitions[rows]
        partitions = homes.tolist()
        types = self._spaced_views(page.types[rows], roles, people, seconds)
        stamps = self._stamps(seconds, roles, partitions)
        run = self.scenario.run
        keys: list[str | bytes | None] = [self._ids[person] for person in people.tolist()]
        values: list[str | bytes | None] = [
            f'{{"timestamp":"{stamp}","user_id":"{user}","event_type":"{self._types[kind]}",'
            f'"page_url":"{self._urls[url]}","session_id":"session-{run}-{session}"}}'
            for stamp, user, kind, url, session in zip(
                stamps,
                keys,
                types.tolist(),
                page.urls[rows].tolist(),
                page.sessions[rows].tolist(),
                strict=True,
            )
        ]
        self._count_people(roles, homes, seconds)
        special = np.flatnonzero(roles >= Role.BOT)
        for row, role in zip(special.tolist(), roles[special].tolist(), strict=True):
            at = rows.start + row
            if role == _BOT:
                made = self._bot(page, at, int(seconds[row]))
            elif role == _ODD:
                made = self._odd(page, at, int(times_us[row]), append_us)
            else:
                made = self._malformed(page, at, int(times_us[row]), append_us)
            keys[row], values[row], partitions[row] = made
        batch.keys += keys
        batch.values += values
        batch.partitions += partitions

    def _spaced_views(
        self, types: np.ndarray, roles: np.ndarray, people: np.ndarray, seconds: np.ndarray
    ) -> np.ndarray:
        """The event types, with each page view that would be its person's second of a second made a click."""
        types = types.copy()
        views = np.flatnonzero((types == _VIEW) & (roles == Role.PERSON))
        starts = np.flatnonzero(np.diff(seconds[views], prepend=-1))
        for rows in np.split(views, starts[1:]):
            viewers = people[rows]
            # Of several in a second the first one stays (the value assigned last), wherever a batch is cut.
            self._first_rows[viewers[::-1]] = rows[::-1]
            spaced = self._first_rows[viewers] == rows
            spaced &= self._last_views[viewers] != seconds[rows]
            types[rows[~spaced]] = _CLICK
            self._last_views[viewers] = seconds[rows]
        return types

    def _stamps(self, seconds: np.ndarray, roles: np.ndarray, partitions: list[int]) -> list[str]:
        """Each row's timestamp, late ones included."""
        different, which = np.unique(seconds, return_inverse=True)
        texts = [canonical(second * _US) for second in different.tolist()]
        stamps = [texts[index] for index in which.tolist()] if len(texts) > 1 else texts * len(seconds)
        for row in np.flatnonzero(roles == Role.LATE).tolist():
            spread = int(_LATE_SPREAD_S ** self._lateness.random())
            watermark = self._watermark_before(row, seconds, roles, partitions)
            stamps[row] = canonical((watermark - self.scenario.late_max_s - spread) * _US)
        return stamps

    def _watermark_before(
        self, row: int, seconds: np.ndarray, roles: np.ndarray, partitions: list[int]
    ) -> int:
        """The watermark of the row's log, as ordinary events before it made it; the plan sees to it that
        there is one."""
        earlier = range(row - 1, -1, -1)
        log = partitions[row]
        last = next((at for at in earlier if partitions[at] == log and roles[at] == Role.PERSON), None)
        return max(int(self._watermarks[log]), 0 if last is None else int(seconds[last]))

    def _count_people(self, roles: np.ndarray, partitions: np.ndarray, seconds: np.ndarray) -> None:
        ordinary = roles == Role.PERSON
        self.counts[EventClass.LATE] += int((roles == Role.LATE).sum())
        self.counts[EventClass.ACCEPTED] += int(ordinary.sum())
        np.maximum.at(self._watermarks, partitions[ordinary], seconds[ordinary])

    def _bot(self, page: Page, at: int, second: int) -> tuple[str, str, int]:
        number = int(page.bursts[at])
        burst = self._bursts.get(number)
        # A burst keeps the second in which it began. Only after a long stop (Kafka away) it begins another,
        # since the rest of it would be late.
        if burst is None or abs(second - burst.second) > self.scenario.late_max_s // 2:
            burst = self._bursts[number] = self._new_burst(number, second)
        burst.stamped += 1
        kept = burst.stamped <= self.scenario.bot_page_views_max
        self.counts[EventClass.ACCEPTED if kept else EventClass.BOT] += 1
        value = (
            f'{{"timestamp":"{canonical(burst.second * _US)}","user_id":"{burst.user_id}",'
            f'"event_type":"{PAGE_VIEW}","page_url":"{self._urls[page.urls[at]]}",'
            f'"session_id":"{burst.session_id}"}}'
        )
        return burst.user_id, value, burst.partition

    def _new_burst(self, number: int, second: int) -> _Burst:
        user_id = f"bot-{self.scenario.run}-{number}"
        partition = self._home(user_id.encode())
        return _Burst(user_id, f"session-{user_id}", partition, second)

    def _odd(self, page: Page, at: int, time_us: int, append_us: int) -> tuple[str, bytes, int]:
        self._guests += 1
        name = self._chance.choice(("guest", "gäst", "ゲスト"))
        user_id = f"{name}-{self.scenario.run}-{self._guests}"
        value = self._make(self._chance.choice(ODD_SHAPES), page, at, user_id, time_us, append_us)
        self.counts[EventClass.ACCEPTED] += 1
        return user_id, value, self._home(user_id.encode())

    def _malformed(
        self, page: Page, at: int, time_us: int, append_us: int
    ) -> tuple[str | bytes | None, bytes | None, int]:
        refused = self._chance.choices(list(REFUSED_WEIGHTS), list(REFUSED_WEIGHTS.values()))[0]
        user_id = self._ids[page.people[at]]
        key = self._chance.choices(
            (user_id.encode(), None, b"\xff\xfe" + user_id.encode(), b""), (7, 2, 0.7, 0.3)
        )
        maker = self._chance.choice(REFUSED_SHAPES[refused])
        value = self._make(maker, page, at, user_id, time_us, append_us)
        self.counts[refused] += 1
        return key[0], value, self._home(key[0])

    def _make(
        self, maker: Maker, page: Page, at: int, user_id: str, time_us: int, append_us: int
    ) -> bytes | None:
        event = {
            "timestamp": canonical(time_us),
            "user_id": user_id,
            "event_type": self._types[page.types[at]],
            "page_url": self._urls[page.urls[at]],
            "session_id": f"session-{self.scenario.run}-{page.sessions[at]}",
        }
        return maker(Sample(self._chance, time_us, append_us, event))

    def _home(self, key: bytes | None) -> int:
        """The key's partition, or any when it has none."""
        partition = partition_for(key, self.scenario.partitions, self.scenario.partitioner)
        return self._chance.randrange(self.scenario.partitions) if partition is None else partition
