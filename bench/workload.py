"""The standard workload, the same for every figure that is published.

1,000,000 users of whom none has more than one event a second, 1.2 sessions each, 1,000 pages by Zipf's law, timestamps
as if produced at a given rate and ending now; 0.5 % malformed, 0.5 % beyond the bot limit, 0.1 % late. A plain Zipf law
over users would make bots of the top ones by the rule itself, so users take turns.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from hotpath.events import EventClass

USERS = 1_000_000
USER_STRIDE = 618_033  # coprime to USERS: users take turns in an order that is not that of their numbers
PAGES = 1_000
BOT_VIEWS_KEPT = 10
MALFORMED_EVERY = 200
LATE_EVERY = 1_000
LATE_BY_S = 400
BATCH = 10_000

Message = tuple[bytes, bytes]
"""Key and value."""


@dataclass
class Truth:
    """How many messages of each class a correct pipeline finds."""

    accepted: int = 0
    not_json: int = 0
    late: int = 0
    bot: int = 0

    def classes(self) -> dict[str, int]:
        """By the labels of the ledger, zeros included."""
        return {c.label: getattr(self, c.label, 0) for c in EventClass}


def standard_workload(events: int, rate: float, truth: Truth, seed: int = 1) -> Iterator[list[Message]]:
    """Batches of messages, in the order in which they are to be produced; `truth` is complete at the end.

    `rate`: events a second of event time. At most USERS, or somebody would have two in one second.
    """
    if rate > USERS:
        raise ValueError(f"at {rate:,.0f} events a second {USERS:,} users have more than one each")
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, PAGES + 1)
    cumulated = np.cumsum(weights) / weights.sum()
    begin = int(time.time() - events / rate)
    bots_each_s = max(1, round(0.005 * rate))
    bot_views_sent: dict[int, int] = {}
    for start in range(0, events, BATCH):
        numbers = np.arange(start, min(start + BATCH, events))
        seconds = begin + (numbers / rate).astype(np.int64)
        users = numbers * USER_STRIDE % USERS
        sessions = np.where(users % 5 == 0, numbers // USERS % 2, 0)
        pages = np.searchsorted(cumulated, rng.random(numbers.size))
        stamps = {
            s: datetime.fromtimestamp(s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for s in np.unique(seconds).tolist()
        }
        batch = []
        for number, second, user, session, page in zip(
            numbers.tolist(), seconds.tolist(), users.tolist(), sessions.tolist(), pages.tolist(), strict=True
        ):
            name, stamp = f"user-{user:07d}", stamps[second]
            if number % MALFORMED_EVERY == 1:
                batch.append((name.encode(), b'{"timestamp": "' + stamp.encode()))
                truth.not_json += 1
                continue
            if number % LATE_EVERY == 2 and number > LATE_EVERY * 20:  # every log has a watermark by then
                stamp = datetime.fromtimestamp(second - LATE_BY_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                truth.late += 1
            elif bot_views_sent.get(second, 0) < bots_each_s + BOT_VIEWS_KEPT and number % 100 < 2:
                # One bot a second, whose views are spread over it.
                name = f"bot-{second}"
                views = bot_views_sent[second] = bot_views_sent.get(second, 0) + 1
                if views > BOT_VIEWS_KEPT:
                    truth.bot += 1
                else:
                    truth.accepted += 1
            else:
                truth.accepted += 1
            value = (
                f'{{"timestamp":"{stamp}","user_id":"{name}","event_type":"page_view",'
                f'"page_url":"/products/{page}","session_id":"session-{name}-{session}"}}'
            )
            batch.append((name.encode(), value.encode()))
        yield batch
