"""Every write to the views: what is sent to Redis, and what its answers mean. Layout: the package's docstring.

Changes of a log go out as one run of commands: last-seen updates in small pieces, then page views piece by
piece, each by compare-and-apply. The last answer alone tells whether all of them are in: the pieces are a chain,
and the first link of page views waits for the last-seen updates (their ticket).
"""

import itertools
import re
import secrets
from dataclasses import dataclass
from enum import Enum

import msgpack
import numpy as np
import redis
from redis.exceptions import ResponseError

from hotpath.views import keys, packed
from hotpath.views.fold import LogChanges, Seen
from hotpath.views.link import Command, Reply, run, script
from hotpath.views.slots import Raise, Slots

TOUCH_ENTRIES_MAX = 500
"""(user, session) pairs of one script: 2.1 ms where all users are new, 2.6 where steps rise, 3.8 where all get another
session. Twice as many pass 5 ms, which is too long for readers."""
TRIM_PAGES = 1_000
TRIM_USERS = 500
"""What one call of `trim.lua` takes away or looks at: 1.1 ms where nobody has left, 1.9 where all have, 3.3 where one
of two sessions has."""
SWEEP_TICKS = 60
"""Over how many ticks a sweep over all users of a log is spread: half of the distance between two. As fast as it could
go, one took a fifth of Redis, for half a minute."""
SWEEP_STEPS = 12
"""How far seen_step moves between two sweeps over all users of a log. Who has left stays up to two minutes longer, 0.4
of the window. A user costs 1 to 2 us, and up to 7 where one of several sessions has left: every minute, sweeps took an
eighth of Redis at 100,000 events/s of a million people."""
SCRUB_USERS = 2_000
SCRUB_USERS_MAX = 1_000
"""Users that a worker has `scrub.lua` look at a second, over all its logs, and the most in one call, at 1 to 2 us each.
10,000 users over 4 logs of 2 workers take 3 s, 1,000,000 over 16 logs four minutes with 2 workers (0.4 to 0.8 % of
Redis) and one with 8."""
SCRUB_START = (b"", b"0")
"""Where a look at everything begins: the user to go on after, the cursor of steps."""
DROP_KEYS = 500
"""Keys that one call of `drop.lua` unlinks; Redis frees them in the background."""
SCAN_COUNT = 1_000
LAYOUT = 4
"""What the keys of a generation are; one of another layout counts as none, and is rebuilt. Stands in state.lua too."""

BUILDING = "build:"
"""`applied` of a generation that is being built; nothing makes such a one live."""

_PROCESS = secrets.token_hex(8)
_NUMBERS = itertools.count()
_BROKEN_ERROR = re.compile(r"WRONGTYPE|not an integer|not a valid float|not a float|overflow|malformed")


class Outcome(Enum):
    """What became of a run of changes."""

    APPLIED = "applied"
    ELSEWHERE = "elsewhere"  # the log's views are not where they were believed to be: look again
    BROKEN = "broken"  # a key is not what it must be: only a new generation helps
    REFUSED = "refused"  # Redis takes no writes now (out of memory, read-only, loading ...): try later


@dataclass(frozen=True)
class LogState:
    """The hash `state` of a log's live generation, and its number."""

    generation: int
    applied: int
    base_step: int
    seen_step: int
    watermark_s: int
    complete_until_us: int
    log_end: int


def parse_state(reply: Reply) -> LogState | None:
    """The state in a reply of `state.lua`; None when the log has no (usable) live generation."""
    if isinstance(reply, ResponseError) or not reply:
        return None
    try:
        return LogState(*map(int, reply))
    except ValueError:
        return None


def change_commands(
    prefix: str,
    generation: int,
    changes: LogChanges,
    mode: str = "live",
    chain: tuple[str, str] | None = None,
    slots: Slots | None = None,
) -> list[Command]:
    """The commands that bring `changes` into a generation; send them in this order, in one pipeline.

    `chain` overrides the first and next offsets of changes with a single piece (a generation being built). `slots`:
    what is known of those; it is then what Redis has once all of this is applied.
    """
    commands: list[Command] = []
    known = slots is not None and slots.ticket is not None
    began = ticket = slots.ticket if known else ""
    if known:
        for piece in slots.raise_(changes.slots, changes.slot_steps):
            before, ticket = ticket, new_ticket()
            commands.append(
                raise_command(prefix, changes.log_id, generation, before, ticket, slots.count, piece)
            )
    touches, ticket = touch_commands(prefix, changes.log_id, generation, ticket, changes.seen, mode)
    commands += touches
    if known:
        slots.ticket = ticket
    awaited = ticket if ticket != began else ""
    for index, piece in enumerate(changes.pieces):
        last = index == len(changes.pieces) - 1
        span = chain or (str(piece.first_offset), str(piece.next_offset))
        # The watermark is of all changes, so that it comes with the last of them.
        watermark_s = changes.watermark_s if last else 0
        payload = packed.array(5, *map(packed.pack, (*span, awaited, watermark_s)), piece.counts)
        commands.append(script("apply", prefix, changes.log_id, generation, payload, mode))
    return commands


def new_ticket() -> str:
    """A name for a state of `slots` that nobody ever gives to another."""
    return f"{_PROCESS}-{next(_NUMBERS)}"


def raise_command(
    prefix: str, log_id: int, generation: int, before: str, after: str, slots: int, piece: Raise
) -> Command:
    """Raises steps of known slots, of `slots` that there are; tickets: of the state before and after it."""
    return script("raise", prefix, log_id, generation, [before, after, slots, piece.newest, piece.runs])


def touch_commands(
    prefix: str, log_id: int, generation: int, ticket: str, seen: Seen, mode: str
) -> tuple[list[Command], str]:
    """Last-seen updates by name, in pieces, from the state with this ticket on ('': any); the ticket of the last."""
    commands = []
    start = 0
    while start < len(seen):
        count = _distinct(seen.user_hashes[start : start + TOUCH_ENTRIES_MAX])
        stop = start + count
        before, ticket = ticket, new_ticket()
        payload = packed.array(
            5,
            packed.pack(before),
            packed.pack(ticket),
            packed.array(count, seen.users.part(start, stop)),
            packed.array(count, seen.sessions.part(start, stop)),
            packed.numbers(seen.steps[start:stop]),
        )
        commands.append(script("touch", prefix, log_id, generation, payload, mode))
        start = stop
    return commands, ticket


def _distinct(users: np.ndarray) -> int:
    """How many of the first users (int64 hashes) are different from each other."""
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    repeated = order[1:][ordered[1:] == ordered[:-1]]
    return int(repeated.min(initial=users.size))


def outcome_of(replies: list[Reply]) -> Outcome:
    """What became of the changes of one log, from the replies to all their commands."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            return Outcome.BROKEN if is_broken(reply) else Outcome.REFUSED
        if reply[0] == b"BROKEN":
            return Outcome.BROKEN
    return Outcome.APPLIED if replies[-1][0] in (b"OK", b"ALREADY") else Outcome.ELSEWHERE


def places_of(replies: list[Reply], steps: np.ndarray) -> np.ndarray | None:
    """Where sessions that were raised by name stand, as `Slots.learn` takes it; None when not all were applied.

    steps: int64, to which each of them was raised.
    """
    if any(isinstance(reply, ResponseError) or reply[0] != b"OK" for reply in replies):
        return None
    places = np.full((steps.size, 3), -1, np.int64)
    start = 0
    for reply in replies:
        if len(reply) < 3:
            continue
        slots, had = msgpack.unpackb(reply[2])
        piece = places[start : start + len(slots)]
        piece[:, 0] = piece[:, 1] = slots
        piece[:, 2] = steps[start : start + len(slots)]
        if had:
            entries = np.array(had[0::3]) - 1
            piece[entries, 1], piece[entries, 2] = had[1::3], had[2::3]
        start += len(slots)
    return places


def is_broken(error: ResponseError) -> bool:
    """Whether an error reply means that stored data is not what it must be (else Redis cannot take writes)."""
    return bool(_BROKEN_ERROR.search(str(error)))


def refuse(replies: list[Reply]) -> None:
    """Raise an error reply that means that Redis cannot work now."""
    for reply in replies:
        if isinstance(reply, ResponseError) and not is_broken(reply):
            raise reply


def publish_command(
    prefix: str, log_id: int, state: LogState, complete_until_us: int, log_end: int
) -> Command:
    """Raises complete_until_us (if `applied` is still state's) and log_end."""
    payload = [str(state.applied), complete_until_us, log_end]
    return script("publish", prefix, log_id, state.generation, payload)


def trim_command(
    prefix: str, log_id: int, generation: int, base_step: int, seen_step: int, ticket: str
) -> Command:
    """Takes one piece of what lies at or before these steps away: see `trims_on` and `forget_freed` for its answer.

    ticket: of `slots` once some of them are free.
    """
    payload = [base_step, seen_step, TRIM_PAGES, TRIM_USERS, SWEEP_STEPS, ticket]
    return script("trim", prefix, log_id, generation, payload)


def trims_on(reply: Reply, calls: int) -> bool:
    """Whether trimming a log goes on at once, after so many calls in this tick: a sweep over users takes its time."""
    if reply[1] == b"SWEEP":
        return calls * TRIM_USERS * SWEEP_TICKS < reply[2]
    return reply[1] == b"1"


def forget_freed(slots: Slots, reply: Reply, ticket: str) -> None:
    """Have `slots` know what trimming answered; ticket: as it was sent."""
    if len(reply) < 4 or not reply[3] or slots.ticket is None:
        return
    if reply[4].decode() == slots.ticket:
        slots.free(np.array(reply[3], np.int64), ticket)
    else:
        slots.clear()


def slots_command(prefix: str, log_id: int, generation: int, slots_max: int) -> Command:
    """Reads the first slots; answers {'OK', ticket, count, bytes}, as `Slots.load` takes them."""
    return script("read_slots", prefix, log_id, generation, [slots_max])


def scrub_command(
    prefix: str, log_id: int, generation: int, cursors: tuple[bytes, bytes], logs: int
) -> Command:
    """Looks whether one piece of the log's keys is what it must be; answers {'OK', user, cursor}: where to go on.

    logs: how many share the worker's time.
    """
    users = min(SCRUB_USERS_MAX, max(1, SCRUB_USERS // logs))
    return script("scrub", prefix, log_id, generation, [*cursors, users])


def create_generation(client: redis.Redis, prefix: str, log_id: int, state: LogState) -> None:
    """Begin generation `state.generation` with the fields of `state`; `applied` says that it is being built."""
    fields = {
        "applied": f"{BUILDING}0",
        "base_step": state.base_step,
        "seen_step": state.seen_step,
        "swept": state.seen_step,
        "watermark_s": state.watermark_s,
        "complete_until_us": state.complete_until_us,
        "log_end": state.log_end,
        "touched": new_ticket(),
        "layout": LAYOUT,
    }
    with client.pipeline(transaction=True) as pipeline:
        pipeline.sadd(keys.generations(prefix, log_id), state.generation)
        pipeline.hset(keys.part(prefix, log_id, state.generation, "state"), mapping=fields)
        pipeline.execute()


def live_generation(client: redis.Redis, prefix: str, log_id: int) -> str:
    """The log's live generation, whatever its state; '' when there is none."""
    name = keys.current(prefix, log_id)
    if client.type(name) != b"string":
        return ""
    return (client.get(name) or b"").decode()  # it may be gone by now


def generations(client: redis.Redis, prefix: str, log_id: int) -> set[str]:
    """All generations of the log that have keys. A key of another type holds none, and is removed."""
    known = keys.generations(prefix, log_id)
    if client.type(known) not in (b"set", b"none"):
        client.unlink(known)
    return {member.decode() for member in client.smembers(known)}


class Switch(Enum):
    """What became of an attempt to make a generation live."""

    LIVE = "live"
    MOVED = "moved"  # somebody else was faster
    BEHIND = "behind"  # the live one has applied more


def switch(client: redis.Redis, prefix: str, log_id: int, old: str, new: int, force: bool = False) -> Switch:
    """Make `new` live if `old` still is, with what was published of it; `force` even where it has applied less."""
    (reply,) = run(client, [script("switch", prefix, log_id, new, [old, force])])
    if isinstance(reply, ResponseError):
        raise reply
    if reply[0] == b"BEHIND":
        return Switch.BEHIND
    return Switch.LIVE if reply[0] in (b"OK", b"ALREADY") else Switch.MOVED


def drop_others(client: redis.Redis, prefix: str, log_id: int) -> None:
    """Delete every generation of the log that is not live: what rebuilds replaced or left unfinished."""
    known = keys.generations(prefix, log_id)
    live = live_generation(client, prefix, log_id)
    for generation in map(int, generations(client, prefix, log_id) - {live}):
        reply: Reply = [b"OK", b"1"]
        while reply == [b"OK", b"1"]:
            (reply,) = run(client, [script("drop", prefix, log_id, generation, [DROP_KEYS])])
        if isinstance(reply, ResponseError) or reply[0] == b"BROKEN":
            _drop_by_scan(client, prefix, log_id, str(generation))
        elif reply[0] == b"MOVED":
            continue  # it went live meanwhile
        client.srem(known, generation)


def drop_all(client: redis.Redis, prefix: str, log_id: int) -> None:
    """Delete every key of a log, its live generation first of all: from then on no script writes to that.

    What still names the others goes last, so that a second call goes on where a first one broke off.
    """
    current, known = keys.current(prefix, log_id), keys.generations(prefix, log_id)
    live = live_generation(client, prefix, log_id)
    if client.type(known) == b"set":
        if live:
            client.sadd(known, live)
        client.unlink(current)
        drop_others(client, prefix, log_id)
    else:
        client.set(known, b"lost")
        client.unlink(current)
        _drop_by_scan(client, prefix, log_id, "*")
        client.unlink(known)


def logs_left(client: redis.Redis, prefix: str, log_ids: list[int]) -> list[int]:
    """Those of the logs that have keys, as `drop_all` leaves none."""
    with client.pipeline(transaction=False) as pipeline:
        for log_id in log_ids:
            pipeline.exists(keys.current(prefix, log_id), keys.generations(prefix, log_id))
        return [log_id for log_id, found in zip(log_ids, pipeline.execute(), strict=True) if found]


def _drop_by_scan(client: redis.Redis, prefix: str, log_id: int, generation: str) -> None:
    """Delete a generation ('*': all) whose own lists are lost: finds its keys among all, a piece at a time."""
    cursor = 0
    pattern = keys.part(prefix, log_id, generation, "*")
    while True:
        cursor, found = client.scan(cursor, match=pattern, count=SCAN_COUNT)
        if found:
            client.unlink(*found)
        if cursor == 0:
            return


def write_logs(client: redis.Redis, prefix: str, logs: dict[int, str]) -> bool:
    """Make `logs` (log_id -> topic/partition) the complete list of logs that count; whether it was another one."""
    name = keys.logs(prefix)
    wanted = {str(log_id).encode(): text.encode() for log_id, text in logs.items()}
    if client.type(name) == b"hash" and client.hgetall(name) == wanted:
        return False
    with client.pipeline(transaction=True) as pipeline:
        pipeline.delete(name)
        if wanted:
            pipeline.hset(name, mapping=wanted)
        pipeline.execute()
    return True
