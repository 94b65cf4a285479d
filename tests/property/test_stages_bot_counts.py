"""Bot counts against a dict, through freezing, forgetting, loading and growing."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotpath.hash_table import HashTable
from hotpath.workers import bots
from hotpath.workers.bots import BotCounts

LATE_MAX_S = 30
START_S = 1_710_000_000


class Model:
    """The same in a dict that never forgets."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts: Counter[tuple[int, int]] = Counter()

    def count(self, users: list[int], seconds: list[int]) -> list[bool]:
        kept = []
        for key in zip(users, seconds, strict=True):
            kept.append(self.counts[key] < self.limit)
            self.counts[key] += kept[-1]
        return kept


# Users are few, 0 among them; 8 of them share the low bits that choose a slot.
USERS = st.one_of(st.integers(0, 6), st.integers(0, 7).map(lambda n: n << 40))
ROWS = st.lists(st.tuples(USERS, st.integers(0, LATE_MAX_S)), max_size=60)
STEPS = st.lists(st.tuples(ROWS, st.integers(0, 12), st.booleans()), max_size=12)


@pytest.fixture(autouse=True, scope="module")
def small_tables():
    """Tables that grow, parts that are cut and parts that are frozen within a few dozen rows."""
    patch = pytest.MonkeyPatch()
    patch.setattr(HashTable.__init__, "__defaults__", (4,))
    patch.setattr(bots, "ROWS_MAX", 7)
    patch.setattr(bots, "FREEZE_KEYS_MIN", 3)
    yield
    patch.undo()


@settings(max_examples=300, deadline=None)
@given(limit=st.integers(1, 4), steps=STEPS)
def test_counts_agree_with_a_dict(limit, steps):
    counts, model = BotCounts(limit, LATE_MAX_S), Model(limit)
    watermark_s = START_S
    for rows, advance, forget in steps:
        users = [user for user, _ in rows]
        # Nothing that is late is ever counted: all of it is within LATE_MAX_S of the watermark.
        seconds = [watermark_s - behind for _, behind in rows]
        kept = counts.count(np.array(users, np.int64), np.array(seconds, np.int64))
        assert kept.tolist() == model.count(users, seconds)
        watermark_s += advance
        if forget:
            counts.forget(watermark_s)
            assert all((number + 1) * 8 > watermark_s - LATE_MAX_S for number in counts.epochs)


@settings(max_examples=200, deadline=None)
@given(limit=st.integers(1, 4), before=ROWS, after=STEPS)
def test_loaded_counts_continue_those_of_the_former_owner(limit, before, after):
    names = [f"user_{number}" for number in range(20)]
    model = Model(limit)

    def rows_at(rows, watermark_s):
        users = [names[user % 20] for user, _ in rows]
        return users, [watermark_s - behind for _, behind in rows]

    model.count(*rows_at(before, START_S))
    stored = dict(model.counts)
    counts = BotCounts(limit, LATE_MAX_S, taken_over_at_s=START_S)
    watermark_s = START_S
    for rows, advance, forget in after:
        users, seconds = rows_at(rows, watermark_s)
        for second in counts.missing_seconds(np.array(seconds, np.int64)):
            assert second <= START_S
            found = {user: count for (user, at), count in stored.items() if at == second and count}
            counts.load(second, list(found), list(found.values()))
        assert counts.missing_seconds(np.array(seconds, np.int64)) == []
        hashes = np.array([hash(user) for user in users], np.int64)
        kept = counts.count(hashes, np.array(seconds, np.int64))
        assert kept.tolist() == model.count(users, seconds)
        watermark_s += advance
        if forget:
            counts.forget(watermark_s)
