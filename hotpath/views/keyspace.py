"""Keys that no reader would miss: leftovers of other generations and logs, keys that nothing lists."""

from collections.abc import Iterator

import redis
from redis.exceptions import ResponseError

from hotpath.views import keys, store
from hotpath.views.contents import SCAN_COUNT, Difference, pieces, text
from hotpath.views.link import run, script

KEYS_PIECE = 300


def keyspace_faults(
    client: redis.Redis, prefix: str, logs: dict[int, str], rebuilding: set[int]
) -> Iterator[Difference]:
    """What is wrong with keys, in one pass over all of the server.

    logs: log_id -> topic/partition of the logs that count. rebuilding: logs
    whose rebuild lock is held, which may have other generations. Faults that `read_log` names are not repeated.
    """
    head = f"{prefix}:{{".encode()
    live = {log_id: store.live_generation(client, prefix, log_id) for log_id in logs}
    for found in pieces(client.scan_iter(match=f"{prefix}:{{*", count=SCAN_COUNT), KEYS_PIECE):
        asked: dict[int, list[bytes]] = {}
        for name in found:
            owner, _, rest = name[len(head) :].partition(b"}:")
            generation, _, part = rest.partition(b":")
            log_id = int(owner) if owner.isdigit() else -1
            if log_id not in logs:
                yield Difference(text(owner), "keys", text(name), "none: no log that counts", "a key")
            elif rest == b"current" or rest == b"generations":
                continue
            elif generation.decode(errors="replace") != live[log_id]:
                if log_id not in rebuilding and client.exists(name):
                    yield Difference(
                        logs[log_id], "keys", text(name), f"generation {live[log_id] or 'none'}", "leftover"
                    )
            else:
                asked.setdefault(log_id, []).append(part)
        yield from _faults_of_keys(client, prefix, logs, live, asked)


_FAULTS = {
    b"type": ("another type", "a wrong type"),
    b"orphan": ("listed by its generation", "not listed"),
    b"unknown": ("none: no such part", "a key"),
}


def _faults_of_keys(
    client: redis.Redis,
    prefix: str,
    logs: dict[int, str],
    live: dict[int, str],
    asked: dict[int, list[bytes]],
) -> Iterator[Difference]:
    commands = [
        script("contents_keys", prefix, log_id, int(live[log_id]), parts) for log_id, parts in asked.items()
    ]
    for (log_id, parts), reply in zip(asked.items(), run(client, commands), strict=True):
        if isinstance(reply, ResponseError):
            raise reply
        for part, fault in zip(parts, reply[1:], strict=False):  # none when another generation went live
            if fault:
                name = keys.part(prefix, log_id, int(live[log_id]), "") + text(part)
                yield Difference(logs[log_id], "keys", name, *_FAULTS[fault])
