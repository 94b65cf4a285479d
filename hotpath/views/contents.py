"""All that Redis holds of a log's live generation, read beside live writers and readers.

Nothing here can freeze the log, so each piece is read by a script, of one moment by itself, and the whole lies
between two looks at the state: what was applied before the first is in it for certain, what was committed after
the last is not. What contradicts itself whatever the events were (a page's sum, a user without sessions, a key
of a wrong type) is a fault and is named here; what the contents should have been is for `compare`.

Memory: one log at a time. Scripts take bounded pieces of one to three milliseconds.
"""

from collections import Counter
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
    users: user_id -> last-seen step, the newest of their sessions. sessions: (user_id, session_id) -> last-seen step.
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


@dataclass
class Newest:
    """How many users have a record, and how many were last seen in each step."""

    records: int
    users: dict[int, int]


def sessions_of(record: bytes) -> list[tuple[bytes, int]]:
    """(session_id, slot) of a record of `seen`; empty when it is none."""
    found, at = [], 0
    while at + 5 < len(record):
        end = at + 5 + record[at + 4]
        found.append((record[at + 5 : end], int.from_bytes(record[at : at + 4], "little")))
        at = end
    return found if at == len(record) and all(session for session, _ in found) else []


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
            if reader.newest is not None and found.unread <= {"pages"}:
                _compare_newest(found, *reader.newest)
                _compare_slots(found, reader.slots, reader.free)
            return found
    raise Unavailable(f"the views of {log} were rebuilt {ATTEMPTS} times while they were read; try again")


def _compare_newest(found: Found, before: Newest, after: Newest) -> None:
    """Hold the numbers of users by newest step against the users' records, which were read between the two.

    While a log moves, the users seen after any step inside the window only become more.
    """
    of_records = Counter(found.users.values())
    least = most = recounted = 0
    for step in sorted(before.users.keys() | after.users.keys() | of_records.keys(), reverse=True):
        if step <= found.after.seen_step:
            break
        least += before.users.get(step, 0)
        most += after.users.get(step, 0)
        recounted += of_records[step]
        if not least <= recounted <= most:
            here = str(least) if least == most else f"{least} to {most}"
            found.fault(
                "newest", f"users last seen in step {step} or later", f"{recounted}, as in `seen`", here
            )
            return
    if sum(after.users.values()) != after.records:
        found.fault(
            "newest", "users of all steps", f"{after.records}, as in `seen`", sum(after.users.values())
        )


def _compare_slots(found: Found, slots: dict[tuple[bytes, bytes], int], free: list[bytes]) -> None:
    """Hold the sessions' slots against each other, and against those that the next ones will get.

    Only of sessions inside the window: another's slot may have been given away while they were read.
    """
    owners: dict[int, str] = {}
    for pair, slot in slots.items():
        if found.sessions[pair] > found.after.seen_step:
            name = " ".join(map(text, pair))
            if slot in owners:
                found.fault("slots", f"slot {slot}", f"that of {owners[slot]} alone", f"that of {name}, too")
            owners[slot] = name
    for member in free:
        if not member.isdigit():
            found.fault("free", text(member), "the number of a slot", "another member")
        elif int(member) in owners:
            found.fault("free", f"slot {int(member)}", "a slot of nobody", f"that of {owners[int(member)]}")


def _state(client: redis.Redis, prefix: str, log_id: int) -> LogState | None:
    (reply,) = run(client, [state_script(prefix, log_id)])
    store.refuse([reply])
    return store.parse_state(reply)


def pieces(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
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
        self.newest: tuple[Newest, Newest] | None = None
        """Before and after the users were read; None when they cannot be."""
        self.slots: dict[tuple[bytes, bytes], int] = {}
        """(user_id, session_id) -> slot."""
        self.free: list[bytes] = []
        """The list `free`, once all users were read."""

    def read_users(self) -> None:
        types = {
            "users": "zset",
            "seen": "hash",
            "slots": "string",
            "free": "list",
            "newest": "hash",
            "ranked": "zset",
        }
        wrong = [name for name, wanted in types.items() if not self._typed(name, wanted)]  # each is named
        if wrong:
            self._found.unread.add("users")
            return
        before, known, client = self._newest(), set(), self._client
        for name, scan in (
            ("seen", client.hscan_iter),
            ("users", client.zscan_iter),
            ("ranked", client.zscan_iter),
        ):
            members = (user for user, _ in scan(self._key(name), count=SCAN_COUNT))
            for users, answer in self._ask("contents_users", _new(members, known), USERS_PIECE):
                if answer is None:
                    self._found.unread.add("users")
                    return
                for user, entry in zip(users, answer, strict=True):
                    self._add_user(user, *entry)
        self.free = client.lrange(self._key("free"), 0, -1)
        after = self._newest()
        if before is not None and after is not None:
            self.newest = before, after
        else:
            self._found.fault("newest", "users by step", "numbers", "something else")

    def _newest(self) -> Newest | None:
        """The counts of `newest`, of one moment; None when they are no numbers."""
        ((_, answer),) = self._ask("contents_newest", [b""], 1)
        try:
            records, *flat = map(int, answer or [b"none"])
        except ValueError:
            return None
        return Newest(records, dict(zip(flat[::2], flat[1::2], strict=True)))

    def _add_user(self, user: bytes, score: bytes, record: bytes, rank: bytes, *steps: int | bytes) -> None:
        """`score` in users, `record` in seen, `rank` in ranked, steps of its sessions: empty where there is none."""
        found = self._found
        if not (score or record or rank):
            return  # trimmed meanwhile
        if score != b"0":
            found.fault("users", text(user), "a member with score 0", text(score) or "none")
        sessions = sessions_of(record)
        if not sessions:
            found.fault("seen", text(user), "a record of sessions", repr(record)[1:] if record else "none")
        for (_, slot), step in zip(sessions, steps, strict=False):
            if step == b"":
                found.fault("slots", f"slot {slot} of {text(user)}", "a step", "none")
        if record and (not sessions or b"" in steps):
            found.unread.add(f"sessions of {text(user)}")
            return
        if sessions:
            found.users[user] = max(steps)
        for (session, slot), step in zip(sessions, steps, strict=False):
            if (user, session) in found.sessions:
                found.fault("seen", text(user), "each session once", f"{text(session)} twice")
            found.sessions[(user, session)] = step
            self.slots[(user, session)] = slot
        wanted = str(-len(sessions)) if len(sessions) > 1 else "none"
        here = str(int(float(rank))) if rank else "none"
        if wanted != here:
            found.fault("ranked", text(user), wanted, here)

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
        for batch in pieces(pieces(values, size), PIPELINE_PIECES):
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
