"""Names of the keys in Redis, and the arithmetic of steps. Layout: see the package's docstring."""

from hotpath.events import STEP_S

STEP_US = STEP_S * 1_000_000


def logs(prefix: str) -> str:
    """The hash that lists every log that counts."""
    return f"{prefix}:logs"


def current(prefix: str, log_id: int) -> str:
    """The string that names the log's live generation; every script gets this key and derives the others."""
    return f"{prefix}:{{{log_id}}}:current"


def generations(prefix: str, log_id: int) -> str:
    """The set of all generations of the log that have keys."""
    return f"{prefix}:{{{log_id}}}:generations"


def part(prefix: str, log_id: int, generation: int, name: str) -> str:
    """One key of a generation: `state`, `users`, `pages`, `steps`, `pages:<step>` ..."""
    return f"{prefix}:{{{log_id}}}:{generation}:{name}"


def shared_bots(prefix: str, second: int, user_id: bytes) -> bytes:
    """The hash of a user's page views in one second, by log: `bot_counters=redis`."""
    return b"%s:bots:%d:%s" % (prefix.encode(), second, user_id)


def step_of(time_us: int) -> int:
    """The step that holds a time in microseconds since 1970."""
    return time_us // STEP_US


def window_start(as_of_us: int, window_s: int) -> int:
    """The last step that lies before a window of `window_s` seconds: events in later steps count."""
    return step_of(as_of_us) - window_s // STEP_S
