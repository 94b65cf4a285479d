"""All that Redis holds of a log's live generation, read beside live writers and readers.

Nothing here can freeze the log, so each piece is read by a script, of one moment by itself, and the whole lies
between two looks at the state: what was applied before the first is in it for certain, what was committed after
the last is not. What contradicts itself whatever the events were (a page's sum, a session without its user, a key
of a wrong type) is a fault and is named here; what the contents should have been is for `compare`.

Memory: one log at a time. Scripts take bounded pieces of one to three milliseconds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import redis
from redis.exceptions import ResponseError

from hotpath.errors import Unavailable
from hotpath.views import keys, store
from hotpath.views.link import Reply, run, script, state_script
from hotpath.views.store import LogState

USERS_PIECE = 200
PAGES_PIECE = 50
"""Each has 90 steps."""
KEYS_PIECE = 300
SCAN_COUNT = 1_000
PIPELINE_PIECES = 8
ATTEMPTS = 5
"""Reads of a log that is rebuilt each time meanwhile."""


@dataclass(frozen=True)
class Difference:
    """One place where Redis is not what it must be. `log` is topic/partition; the values are for people."""

    log: str
    view: str
    key: str
    expected: str
    found: str


@dataclass
class Found:
    """What a log's live generation holds.

    before, after: its state at the two looks; None when there is no usable one, and then nothing else is read.
    users: user_id -> last-seen step. sessions: (user_id, session_id) -> last-seen step.
    page_views: (step, page_url) -> page views, of the hashes. Ids and URLs as bytes.
    unread: `users` or `pages`, or `sessions of <user>`: could not be read, because of a fault that is named.
    """

    log_id: int
    log: str
    before: LogState | None = None
    after: LogState | None = None
    users: dict[bytes, int] = field(default_factory=dict)
    sessions: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    page_views: dict[tuple[int, bytes], int] = field(default_factory=dict)
    faults: list[Difference] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)

    def fault(self, view: str, key: str, expected: object, found: object) -> None:
        self.faults.append(Difference(self.log, view, key, str(expected), str(found)))


class _Moved(Exception):
    """Another generation went live."""


def text(value: bytes) -> str:
    """A member as people may read it."""
    return value.decode("utf-8", "backslashreplace")


def read_log(client: redis.Redis, prefix: str, log_id: int, log: str) -> Found:
    """Read one log. Raises redis' errors, and Unavailable when it is rebuilt again and again meanwhile."""
    for _ in range(ATTEMPTS):
        found = Found(log_id, log)
        found.before = _state(client, prefix, log_id)
        if found.before is None:
            found.fault("state", keys.current(prefix, log_id), "a live generation", "none")
            return found
        try:
            reader = _Reader(client, prefix, found, found.before.generation)
            reader.read_users()
            reader.read_pages()
        except _Moved:
            continue
        found.after = _state(client, prefix, log_id)
        if found.after is not None and found.after.generation == found.before.generation:
            for user, last_seen in reader.without_sessions:
                # Who has left the windows loses the sessions first, and is gone when trimming comes to it.
                if last_seen is None or last_seen > found.after.seen_step:
                    found.fault("sessions", text(user), "a session of each user", "none")
            return found
    raise Unavailable(f"the views of {log} were rebuilt {ATTEMPTS} times while they were read; try again")


def _state(client: redis.Redis, prefix: str, log_id: int) -> LogState | None:
    (reply,) = run(client, [state_script(prefix, log_id)])
    if isinstance(reply, ResponseError) and not store.is_broken(reply):
        raise reply
    return store.parse_state(reply)


def _pieces(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(values)
    while piece := list(islice(rest, size)):
        yield piece


def _new(members: Iterable[bytes], known: set[bytes]) -> Iterator[bytes]:
    """Members that are not known yet; they are from then on. (A scan may give the same one twice.)"""
    for member in members:
        if member not in known:
            known.add(member)
            yield member


class _Reader:
    """Reads one generation into a Found."""

    def __init__(self, client: redis.Redis, prefix: str, found: Found, generation: int) -> None:
        self._client = client
        self._prefix = prefix
        self._found = found
        self._generation = generation
        self.without_sessions: list[tuple[bytes, int | None]] = []
        """Users and their last-seen steps."""

    def read_users(self) -> None:
        lists = ("users", "ranked", "fading")
        if not all(self._typed(name, "zset") for name in lists):
            self._found.unread.add("users")
            return
        known: set[bytes] = set()
        for name in lists:
            members = (user for user, _ in self._client.zscan_iter(self._key(name), count=SCAN_COUNT))
            for users, answer in self._ask("contents_users", _new(members, known), USERS_PIECE):
                if answer is None:
                    self._found.unread.add("users")
                    return
                for user, entry in zip(users, answer, strict=True):
                    self._add_user(user, entry)

    def _add_user(self, user: bytes, entry: list[bytes]) -> None:
        if not entry:
            return  # trimmed meanwhile
        found = self._found
        last_seen, rank, fading = (int(float(score)) if score else None for score in entry[:3])
        if last_seen is None:
            found.fault("users", text(user), "a last-seen step, as the user is ranked", "none")
        else:
            found.users[user] = last_seen
        if entry[3:] == [b"BROKEN"]:
            self._wrong_type("sessions", f"sessions:{text(user)}")
            found.unread.add(f"sessions of {text(user)}")
            return
        steps = [int(float(step)) for step in entry[4::2]]
        for session, step in zip(entry[3::2], steps, strict=True):
            found.sessions[(user, session)] = step
        if not steps:
            self.without_sessions.append((user, last_seen))
            return
        if last_seen is not None and max(steps) != last_seen:
            found.fault("users", text(user), f"{max(steps)}, as its sessions say", last_seen)
        several = len(steps) > 1
        if rank != (-len(steps) if several else None):
            found.fault(
                "ranked", text(user), -len(steps) if several else "none", "none" if rank is None else rank
            )
        if (fading is None) == several or (several and fading > min(steps)):
            wanted = f"at most {min(steps)}" if several else "none"
            found.fault("fading", text(user), wanted, "none" if fading is None else fading)

    def read_pages(self) -> None:
        if not all(self._typed(name, "zset") for name in ("pages", "steps")):
            self._found.unread.add("pages")
            return
        known: set[bytes] = set()
        for step, _ in self._client.zscan_iter(self._key("steps"), count=SCAN_COUNT):
            if not step.isdigit():
                self._found.fault("steps", text(step), "the number of a step", "another member")
                continue
            name = self._key(f"pages:{int(step)}")
            if not self._typed(f"pages:{int(step)}", "hash"):
                self._found.unread.add("pages")
                continue
            for page, views in self._client.hscan_iter(name, count=SCAN_COUNT):
                known.add(page)
                if views.isdigit():
                    self._found.page_views[(int(step), page)] = int(views)
                else:
                    self._found.fault(f"pages:{int(step)}", text(page), "a count", text(views))
        for page, _ in self._client.zscan_iter(self._key("pages"), count=SCAN_COUNT):
            known.add(page)
        self._compare_sums(known)

    def _compare_sums(self, pages: set[bytes]) -> None:
        for asked, answer in self._ask("contents_pages", pages, PAGES_PIECE):
            if answer is None:
                return
            for page, stored, counted in zip(asked, answer[::2], answer[1::2], strict=True):
                if stored != counted:
                    self._found.fault("pages", text(page), f"{counted}, the sum of its steps", stored)

    def _ask(
        self, name: str, values: Iterable[bytes], size: int
    ) -> Iterator[tuple[list[bytes], list[Reply] | None]]:
        """Values in pieces, each with the script's answer; None once a key is of a wrong type, which is noted."""
        for batch in _pieces(_pieces(values, size), PIPELINE_PIECES):
            commands = [
                script(name, self._prefix, self._found.log_id, self._generation, piece) for piece in batch
            ]
            for piece, reply in zip(batch, run(self._client, commands), strict=True):
                if isinstance(reply, ResponseError):
                    raise reply
                if reply[0] == b"MOVED":
                    raise _Moved
                if reply[0] == b"BROKEN":
                    self._wrong_type(text(reply[1]).partition(":")[0], text(reply[1]))
                    yield piece, None
                    return
                yield piece, reply[1:]

    def _typed(self, part: str, wanted: str) -> bool:
        found = self._client.type(self._key(part)).decode()
        if found in (wanted, "none"):
            return True
        self._wrong_type(part.partition(":")[0], part)
        return False

    def _wrong_type(self, view: str, part: str) -> None:
        name = self._key(part)
        self._found.fault(view, name, "another type", self._client.type(name).decode())

    def _key(self, part: str) -> str:
        return keys.part(self._prefix, self._found.log_id, self._generation, part)


def keyspace_faults(
    client: redis.Redis, prefix: str, logs: dict[int, str], rebuilding: set[int]
) -> Iterator[Difference]:
    """Keys that no reader would miss: leftovers of other generations and logs, keys that nothing lists.

    One pass over all keys of the server. logs: log_id -> topic/partition of the logs that count. rebuilding: logs
    whose rebuild lock is held, which may have other generations. Faults that `read_log` names are not repeated.
    """
    head = f"{prefix}:{{".encode()
    live = {log_id: store.live_generation(client, prefix, log_id) for log_id in logs}
    for found in _pieces(client.scan_iter(match=f"{prefix}:{{*", count=SCAN_COUNT), KEYS_PIECE):
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
