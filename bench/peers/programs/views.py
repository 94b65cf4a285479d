"""The three live figures in Redis, as people keep them: sorted sets, folded over a batch, in one pipeline.

    PREFIX:users                  user_id by last-seen step      active users: ZCOUNT
    PREFIX:pages:STEP             page_url by its page views     top pages: ZUNION of the steps in the window
    PREFIX:sessions:USER          session_id by last-seen step   sessions of a user: ZRANGE BYSCORE

What is read twice is counted twice.
"""

from collections import defaultdict

import redis
from checks import Row

STEP_S = 10
SESSIONS_WINDOW_S, PAGES_WINDOW_S = 300, 900
COMMANDS_MAX = 5_000
"""Commands of one pipeline."""


class Views:
    """A connection."""

    def __init__(self, url: str, prefix: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._prefix = prefix

    def add(self, rows: list[Row]) -> None:
        """Bring accepted events in."""
        users: dict[str, int] = {}
        sessions: dict[str, dict[str, int]] = defaultdict(dict)
        pages: dict[tuple[int, str], int] = defaultdict(int)
        for time, user_id, event_type, page_url, session_id in rows:
            step = int(time.timestamp()) // STEP_S
            users[user_id] = max(step, users.get(user_id, 0))
            seen = sessions[user_id]
            seen[session_id] = max(step, seen.get(session_id, 0))
            if event_type == "page_view":
                pages[step, page_url] += 1
        pipe = self._client.pipeline(transaction=False)
        pipe.zadd(f"{self._prefix}:users", users, gt=True)
        newest = max(users.values())
        pipe.zremrangebyscore(f"{self._prefix}:users", "-inf", newest - SESSIONS_WINDOW_S // STEP_S)
        for step in {step for step, _ in pages}:
            pipe.expire(f"{self._prefix}:pages:{step}", PAGES_WINDOW_S + STEP_S)
        for (step, page_url), views in pages.items():
            pipe.zincrby(f"{self._prefix}:pages:{step}", views, page_url)
        for user_id, seen in sessions.items():
            key = f"{self._prefix}:sessions:{user_id}"
            pipe.zadd(key, seen, gt=True)
            pipe.expire(key, SESSIONS_WINDOW_S + STEP_S)
            if len(pipe) > COMMANDS_MAX:
                pipe.execute()
        pipe.execute()

    def close(self) -> None:
        self._client.close()
