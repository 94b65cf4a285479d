"""What `bench.scale` asks: cases along one number each, everything else as in the standard workload."""

from dataclasses import dataclass, field

from bench.pipeline import PARTITIONS
from bench.workload import SHARES
from generator.plan import Shares

BACKLOG_FACTORS = (0.1, 1, 10)


@dataclass(frozen=True)
class Case:
    """One run: what differs from the standard."""

    x: float
    label: str
    procs: int = 2
    partitions: int = PARTITIONS
    events_factor: float = 1
    workload: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """Cases along one number."""

    asks: str
    x_name: str
    cases: tuple[Case, ...]
    log_x: bool = True


def _shares(**changed: float) -> dict[str, object]:
    return {
        "shares": Shares(
            **({"bots": SHARES.bots, "malformed": SHARES.malformed, "late": SHARES.late} | changed)
        )
    }


HOSTILE = {
    "shares": Shares(bots=0.3, malformed=0.3, late=0.1),
    "pages": 1_000_000,
    "users": 3_000_000,
    "value_bytes": 2_048,
}
"""Everything at once that costs more than the standard: each message odd, long, or somebody never seen before."""

QUESTIONS = {
    "workers": Question(
        "more worker processes", "workers", tuple(Case(n, f"{n}", procs=n) for n in (1, 2, 4, 8))
    ),
    "partitions": Question(
        "more partitions", "partitions", tuple(Case(n, f"{n}", partitions=n) for n in (1, 2, 4, 8, 16, 32))
    ),
    "users": Question(
        "more people",
        "users",
        tuple(Case(n, f"{n:,}", workload={"users": n}) for n in (10**3, 10**4, 10**5, 10**6, 10**7)),
    ),
    "pages": Question(
        "more pages",
        "pages",
        tuple(Case(n, f"{n:,}", workload={"pages": n}) for n in (10**2, 10**3, 10**4, 10**5, 10**6)),
    ),
    "bytes": Question(
        "longer messages",
        "bytes of a message",
        tuple(Case(n, f"{n:,}", workload={"value_bytes": n}) for n in (143, 256, 512, 1_024, 2_048, 4_096)),
    ),
    "malformed": Question(
        "more malformed messages",
        "share of malformed messages",
        tuple(Case(n, f"{n:.1%}", workload=_shares(malformed=n)) for n in (0, 0.005, 0.05, 0.2, 0.5, 1)),
        log_x=False,
    ),
    "bots": Question(
        "more bots",
        "share of bot events",
        tuple(Case(n, f"{n:.1%}", workload=_shares(bots=n)) for n in (0, 0.005, 0.05, 0.2, 0.5, 0.9)),
        log_x=False,
    ),
    "backlog": Question(
        "a longer backlog",
        "times the events",
        tuple(Case(n, f"{n:g} x", events_factor=n) for n in BACKLOG_FACTORS),
    ),
    "hostile": Question(
        "everything at once",
        "0 standard, 1 hostile",
        (Case(0, "standard"), Case(1, "hostile", workload=HOSTILE)),
        log_x=False,
    ),
}
