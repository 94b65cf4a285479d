"""Bot counts: limits, memory, and what is loaded after a log was taken over. See also the property tests."""

import numpy as np
import pytest

from hotpath.events import EventClass
from hotpath.settings import Rules
from hotpath.shm.block import Block
from hotpath.workers.bots import _SECOND_MULTIPLIER, EPOCH_BITS, BotCounts, classify_bots
from tests.bad_inputs import NOW_US, message
from tests.support.stages import Message, StageRunner, rows_of

NOW_S = NOW_US // 1_000_000


def count(counts: BotCounts, user_hashes: list[int] | np.ndarray, second: int) -> np.ndarray:
    hashes = np.asarray(user_hashes, np.int64)
    return counts.count(hashes, np.full(hashes.size, second))


def test_a_million_views_of_one_user_count_as_the_limit():
    counts = BotCounts(10, 300)
    kept = sum(int(count(counts, np.full(100_000, 7), NOW_S).sum()) for _ in range(10))
    assert kept == 10
    assert counts.nbytes < 200_000  # room for one batch of other users


def test_highest_limit_does_not_overflow_its_counts():
    limit = Rules.model_fields["bot_page_views_max"].metadata[1].le
    counts = BotCounts(limit, 300)
    kept = sum(int(count(counts, np.full(20_000, 7), NOW_S).sum()) for _ in range(10))
    assert kept == limit == 60_000


def test_user_whose_key_would_mark_an_empty_slot_is_counted():
    with np.errstate(over="ignore"):
        unlucky = int(np.int64(NOW_S) * _SECOND_MULTIPLIER)
    counts = BotCounts(3, 300)
    assert count(counts, [unlucky] * 5, NOW_S).tolist() == [True] * 3 + [False] * 2
    # Whoever is given the first slot of the table does not inherit what was counted there.
    assert count(counts, [unlucky ^ 2**40], NOW_S).all()


def test_memory_follows_the_window_not_the_run():
    rng = np.random.default_rng(1)
    counts, sizes = BotCounts(10, 300), []
    for second in range(NOW_S, NOW_S + 1_200):
        count(counts, rng.integers(-(2**62), 2**62, 1_000), second)
        counts.forget(second)
        sizes.append(counts.nbytes)
    assert max(sizes[600:]) <= 1.05 * max(sizes[300:600])
    # 10 bytes for each user and second of the window, and some more for the epochs that are still tables.
    assert sizes[-1] / 300_000 < 14


def test_trickle_into_an_old_epoch_does_not_keep_it_a_table():
    counts = BotCounts(10, 300)
    rng = np.random.default_rng(1)
    count(counts, rng.integers(-(2**62), 2**62, 50_000), NOW_S)
    count(counts, [1], NOW_S + 100)
    for late_user in range(50):  # never untouched when it is looked at
        count(counts, [late_user], NOW_S)
        counts.forget(NOW_S + 100)
    epoch = counts.epochs[NOW_S >> EPOCH_BITS]
    assert epoch.frozen_keys.size >= 50_000
    assert epoch.nbytes < 11 * 50_000


def test_forgetting_waits_until_all_of_an_epoch_can_only_be_late():
    counts = BotCounts(1, 300)
    second = (NOW_S >> EPOCH_BITS << EPOCH_BITS) + 7
    count(counts, [5], second)
    counts.forget(second + 300)
    assert not count(counts, [5], second).any()
    counts.forget(second + 301)
    assert not counts.epochs


def test_seconds_after_the_take_over_need_no_loading():
    counts = BotCounts(10, 300, taken_over_at_s=NOW_S)
    assert counts.missing_seconds(np.array([NOW_S + 1, NOW_S + 2])) == []
    assert counts.missing_seconds(np.array([NOW_S + 1, NOW_S, NOW_S - 5, NOW_S])) == [NOW_S - 5, NOW_S]


def test_loaded_seconds_are_not_asked_for_again():
    counts = BotCounts(10, 300, taken_over_at_s=NOW_S)
    counts.load(NOW_S, ["a", "b"], [10, 9])
    counts.load(NOW_S, ["a"], [0])  # as when two chunks ask for the same second
    assert counts.missing_seconds(np.array([NOW_S])) == []
    assert count(counts, [hash("a"), hash("b"), hash("b"), hash("c")], NOW_S).tolist() == [
        False,
        True,
        False,
        True,
    ]


def test_counts_loaded_from_under_a_higher_limit_are_cut_to_this_one():
    counts = BotCounts(10, 300, taken_over_at_s=NOW_S)
    counts.load(NOW_S, ["a"], [2**16])
    assert not count(counts, [hash("a")] * 3, NOW_S).any()


def test_log_without_a_watermark_has_nothing_to_load():
    assert BotCounts(10, 300).missing_seconds(np.array([1, NOW_S])) == []


def test_recall_is_asked_once_per_second_and_log():
    asked = []

    def recall(log, seconds):
        asked.append((log, seconds))
        return [(second, ["usr_1"], [9]) for second in seconds if log == 1]

    runner = StageRunner(2, watermarks=[NOW_S, NOW_S], recall=recall)
    messages = [Message(log, offset, message(), NOW_US) for offset in range(3) for log in (0, 1)]
    rows = rows_of(runner.block([messages[:2], messages[2:]]))
    assert asked == [(0, [NOW_S]), (1, [NOW_S])]
    assert [row.event_class for row in rows if row.log == 0] == ["accepted"] * 3
    assert [row.event_class for row in rows if row.log == 1] == ["accepted", "bot", "bot"]


def test_counts_that_nobody_can_load_stop_the_worker():
    block = Block.private(1, 100)
    block.rows = 1
    block.page_views[0], block.classes[0], block.times_us[0] = True, EventClass.ACCEPTED, NOW_US
    with pytest.raises(LookupError, match="1 seconds"):
        classify_bots(block, slice(0, 1), [BotCounts(10, 300, taken_over_at_s=NOW_S)])


def test_logs_do_not_share_counts():
    runner = StageRunner(2)
    messages = [Message(log, offset, message(), NOW_US) for offset in range(12) for log in (0, 1)]
    rows = rows_of(runner.block([messages]))
    for log in (0, 1):
        assert [row.event_class for row in rows if row.log == log] == ["accepted"] * 10 + ["bot"] * 2
