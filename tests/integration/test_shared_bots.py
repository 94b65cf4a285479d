"""Bot counts that workers share through Redis."""

import time

import numpy as np
import redis

from hotpath.settings import PipelineSettings
from hotpath.views.shared_bots import PAIRS_MAX, SharedBots


def others(shared: SharedBots, log_id: int, pairs: list[tuple[bytes, int, int]]) -> list[int]:
    users, seconds, counts = zip(*pairs, strict=True)
    return shared.others(log_id, list(users), np.array(seconds), np.array(counts)).tolist()


def test_a_log_learns_what_the_others_count_and_repeating_changes_nothing(redis_url):
    shared = SharedBots(PipelineSettings(redis_url=redis_url))
    assert others(shared, 1, [(b"u", 100, 4), (b"v", 100, 1)]) == [0, 0]
    assert others(shared, 2, [(b"u", 100, 3), (b"u", 101, 9)]) == [4, 0]
    assert others(shared, 2, [(b"u", 100, 3)]) == [4]
    assert others(shared, 2, [(b"u", 100, 1)]) == [4], "an older figure lowers nothing"
    assert others(shared, 3, [(b"u", 100, 1)]) == [7]
    assert others(shared, 1, [(b"u", 100, 6)]) == [4]
    shared.close()


def test_more_pairs_than_one_script_takes_keep_their_order(redis_url):
    shared = SharedBots(PipelineSettings(redis_url=redis_url))
    pairs = [(b"u-%d" % i, i % 3, i + 1) for i in range(2 * PAIRS_MAX + 7)]
    assert set(others(shared, 1, pairs)) == {0}
    assert others(shared, 2, pairs) == [count for _, _, count in pairs]
    shared.close()


def test_counts_expire(redis_url):
    settings = PipelineSettings(redis_url=redis_url)
    shared = SharedBots(settings)
    others(shared, 1, [(b"u", 100, 4)])
    with redis.Redis.from_url(redis_url) as client:
        (name,) = client.keys("hotpath:bots:*")
        assert settings.late_max_s < client.ttl(name) <= settings.late_max_s + settings.future_max_s + 600
    shared.close()


def test_without_redis_a_log_counts_alone_and_says_so(another_redis):
    server = another_redis()
    shared = SharedBots(PipelineSettings(redis_url=server.url))
    others(shared, 1, [(b"u", 100, 4)])
    assert not shared.away
    server.kill()
    started = time.monotonic()
    assert others(shared, 2, [(b"u", 100, 3)]) == [0]
    assert shared.away
    assert others(shared, 2, [(b"u", 100, 3)]) == [0]
    assert time.monotonic() - started < 2
    shared.close()
