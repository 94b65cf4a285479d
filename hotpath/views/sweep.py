"""Deletes what nobody will read or trim any more: keys that no list has, and keys of logs that no longer count.

For operators: it looks at every key of the server. Nobody may be building a generation of the logs meanwhile.
"""

from collections.abc import Iterator
from itertools import islice

import redis

from hotpath.views import store

SCAN_COUNT = 1_000
KEYS_AT_ONCE = 500


def logs_with_keys(client: redis.Redis, prefix: str) -> set[int]:
    """Every log that has keys, whether it counts or not."""
    return {log_id for piece in _keys(client, prefix) for log_id, _, _ in piece}


def sweep(client: redis.Redis, prefix: str, logs: dict[int, bool]) -> int:
    """Delete all keys of generations that are not live, of logs that count (True) or all keys of those that do not.

    Other logs' keys stay. Returns how many keys were deleted.
    """
    live = {i: store.live_generation(client, prefix, i) if counts else "" for i, counts in logs.items()}
    deleted = 0
    for piece in _keys(client, prefix):
        doomed = []
        for log_id, part, name in piece:
            of_log = part in (b"current", b"generations")
            kept = of_log or part.partition(b":")[0].decode(errors="replace") == live.get(log_id)
            if log_id in logs and not (kept and logs[log_id]):
                doomed.append(name)
        if doomed:
            deleted += client.unlink(*doomed)
    return deleted


def _keys(client: redis.Redis, prefix: str) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """(log_id, rest of its name, name) of every key of a log, in pieces."""
    head = f"{prefix}:{{".encode()
    found = client.scan_iter(match=f"{prefix}:{{*", count=SCAN_COUNT)
    while names := list(islice(found, KEYS_AT_ONCE)):
        piece = []
        for name in names:
            owner, _, part = name[len(head) :].partition(b"}:")
            if owner.isdigit():
                piece.append((int(owner), part, name))
        yield piece
