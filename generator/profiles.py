"""The people and the pages of the mock web site.

State: who is on the site now, in which sessions, on which page. All of it follows from the seed and from how
many events were asked for so far, never from the clock.

Invariants: `People.turns` goes round: nobody has a second turn before almost everybody present had the
chance of one, so that at any rate below the number of people nobody views two pages in the same second.
"""

import numpy as np

PRESENT_SHARE = 0.7
"""People on the site at a time; the others are away and come back when somebody leaves."""
EVENTS_PER_SESSION = 20
"""Mean length of a session, in events of its person."""
LEAVES_SHARE = 0.5
"""Of the sessions that end, how many end because the person leaves (the others open a new one at once)."""
TWO_SESSIONS_SHARE = 0.2
"""People with a second session in parallel (phone and desk): 1.2 sessions each."""
TURN_SHARE_MIN = 0.2
"""The calmest person takes part in this share of the rounds, the busiest in all."""
ROUND_JITTER = 0.05
"""How far, as a share of a round, turns stray from their order."""
ZIPF_EXPONENT = 1.0

SECTIONS = ("products", "category", "blog", "help", "offers", "brands", "search", "account")
TOPICS = ("electronics", "books", "garden", "kitchen", "outdoor", "music", "toys", "shoes", "office", "sport")
FIRST_PAGES = ("/", "/cart", "/checkout", "/login", "/products", "/offers", "/search", "/account", "/help")

EVENT_TYPES = {
    "page_view": 0.70,
    "click": 0.14,
    "scroll": 0.09,
    "search": 0.03,
    "add_to_cart": 0.02,
    "login": 0.008,
    "logout": 0.005,
    "purchase": 0.007,
}
"""Event types and their shares. The first must stay `page_view`, the second is what replaces one."""


class Pages:
    """A fixed set of pages, drawn by Zipf's law: the page of rank r with weight 1 / r."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.urls = page_urls(count, rng)
        weights = 1 / np.arange(1, count + 1) ** ZIPF_EXPONENT
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Indexes into `urls`: int32, `count` of them."""
        ranks = np.searchsorted(self._cumulative, rng.random(count), side="right")
        return np.minimum(ranks, len(self.urls) - 1).astype(np.int32)


def page_urls(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different paths, the most popular first."""
    urls = list(FIRST_PAGES[:count])
    left = count - len(urls)
    sections = rng.integers(len(SECTIONS), size=left).tolist()
    topics = rng.integers(len(TOPICS), size=left).tolist()
    urls += [
        f"/{SECTIONS[section]}/{TOPICS[topic]}/{number}"
        for number, (section, topic) in enumerate(zip(sections, topics, strict=True), 1)
    ]
    return urls


class People:
    """Who is on the site, taking turns."""

    def __init__(self, count: int, pages: Pages, rng: np.random.Generator) -> None:
        digits = len(str(count - 1))
        self.ids = [f"user-{number:0{digits}d}" for number in range(count)]
        self._rng = rng
        self._pages = pages
        everybody = rng.permutation(count).astype(np.int32)
        present = max(1, int(count * PRESENT_SHARE))
        self._present = everybody[:present]
        self._away = everybody[present:]
        self._turn_shares = rng.uniform(TURN_SHARE_MIN, 1, present)
        self._sessions = np.arange(2 * present, dtype=np.int64).reshape(present, 2)
        self._next_session = 2 * present
        self._parallel = rng.random(present) < TWO_SESSIONS_SHARE
        self._on_page = pages.draw(present, rng)
        self._type_steps = np.cumsum(list(EVENT_TYPES.values()))
        self._order = np.empty(0, np.int64)

    def turns(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The next `count` events: people (int32, into `ids`), session numbers (int64), event types (int8,
        into EVENT_TYPES) and pages (int32, into the pages' `urls`)."""
        places = self._take_places(count)
        rng = self._rng
        people = self._present[places]
        which = self._parallel[places] & (rng.random(count) < 0.5)
        sessions = self._sessions[places, which.astype(np.int8)]
        types = np.searchsorted(self._type_steps, rng.random(count) * self._type_steps[-1], side="right")
        views = types == 0
        self._on_page[places[views]] = self._pages.draw(int(views.sum()), rng)
        pages = self._on_page[places]
        self._end_sessions(places[rng.random(count) < 1 / EVENTS_PER_SESSION])
        return people, sessions, types.astype(np.int8), pages

    def _take_places(self, count: int) -> np.ndarray:
        """Whose turn it is: indexes into the people present."""
        rounds, waiting = [self._order], len(self._order)
        while waiting < count:
            members = np.flatnonzero(self._rng.random(len(self._present)) < self._turn_shares)
            jitter = self._rng.uniform(0, ROUND_JITTER * len(self._present), len(members))
            rounds.append(members[np.argsort(members + jitter)])
            waiting += len(members)
        order = np.concatenate(rounds)
        self._order = order[count:]
        return order[:count]

    def _end_sessions(self, places: np.ndarray) -> None:
        """End the sessions at `places`; some of their people leave, and as many come back."""
        places = np.unique(places)
        leaving = places[self._rng.random(len(places)) < LEAVES_SHARE][: len(self._away)]
        coming, self._away = self._away[: len(leaving)], self._away[len(leaving) :]
        self._away = np.concatenate([self._away, self._present[leaving]])
        self._present[leaving] = coming
        fresh = np.arange(self._next_session, self._next_session + 2 * len(places), dtype=np.int64)
        self._sessions[places] = fresh.reshape(-1, 2)
        self._next_session += len(fresh)
        self._parallel[leaving] = self._rng.random(len(leaving)) < TWO_SESSIONS_SHARE
