"""Bot counts shared between workers, for topics whose logs share users (`bot_counters=redis`).

Each log tells how many page views of a user in a second it has seen so far, and learns what the others have. The
figure is cumulative, so that a range of offsets read twice counts once. When Redis is away counting goes on with what
this log has seen alone, and says so; the result then depends on when that was, which is why such topics cannot be
verified exactly. Its keys lie anywhere: Redis must not be a cluster.
"""

import logging
import time

import numpy as np
import redis

from hotpath.settings import PipelineSettings
from hotpath.views import keys, link

log = logging.getLogger(__name__)

PAIRS_MAX = 500
"""(user, second) pairs of one script: 1 to 2 ms."""
TTL_SLACK_S = 600
"""How much longer than an event may be late, in time that passes, counts are kept: a worker may be behind."""
RETRY_S = 1.0
LOG_INTERVAL_S = 30.0


class SharedBots:
    """Owns a connection to Redis; for one thread."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._prefix = settings.redis_prefix
        self._ttl_s = settings.late_max_s + settings.future_max_s + TTL_SLACK_S
        self._client = link.connect(settings.redis_url, settings.redis_timeout_s)
        self._retry_at = 0.0
        self._warned_at = -LOG_INTERVAL_S
        self.away = False
        """Whether the last exchange fell back to local counts."""

    def others(
        self, log_id: int, users: list[bytes], seconds: np.ndarray, own_counts: np.ndarray
    ) -> np.ndarray:
        """How many page views the other logs have of each (user, second): int64, zeros while Redis is away.

        users: user_id of each pair, UTF-8; seconds, own_counts: int64, own_counts being all that this log has seen
        of the pair so far, these included. Each pair once.
        """
        if time.monotonic() < self._retry_at or not users:
            return np.zeros(len(users), np.int64)
        names = [
            keys.shared_bots(self._prefix, second, user)
            for user, second in zip(users, seconds.tolist(), strict=True)
        ]
        counts = own_counts.tolist()
        commands = [
            link.raw_script(
                "share_bots",
                names[at : at + PAIRS_MAX],
                [str(log_id), self._ttl_s, counts[at : at + PAIRS_MAX]],
            )
            for at in range(0, len(names), PAIRS_MAX)
        ]
        try:
            replies = link.run(self._client, commands)
            error = link.error_of(replies)
            if error is not None:
                raise error
        except (redis.RedisError, OSError) as error:
            self._lose(error)
            return np.zeros(len(users), np.int64)
        self.away = False
        return np.array([count for reply in replies for count in reply], np.int64)

    def close(self) -> None:
        self._client.close()

    def _lose(self, error: Exception) -> None:
        self.away = True
        self._retry_at = time.monotonic() + RETRY_S
        self._client.connection_pool.disconnect()
        if time.monotonic() - self._warned_at > LOG_INTERVAL_S:
            self._warned_at = time.monotonic()
            log.warning("Redis is away: bots are told by what each log has seen alone: %s", error)
