"""What the supervisor tells of its workers: asked at most once a second, however many want to know.

Its being away is an answer like any other: everything else the API serves goes on without it.
"""

import asyncio
import http.client
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.live import Shared
from api.rates import Rate
from api.settings import ApiSettings

ASKED_EVERY_S = 2.0
"""Age up to which an answer is given; a new one is asked for from half of it on."""
TIMEOUT_S = 0.5
ANSWER_BYTES_MAX = 4 << 20
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Seen:
    """The workers at one moment; `away` says why they are not known, if so."""

    at_us: int
    away: str | None = None
    workers: list[dict[str, Any]] = field(default_factory=list)
    events_per_s: float | None = None
    accepted_per_s: float | None = None

    @property
    def up(self) -> int:
        return sum(worker.get("state") in ("running", "paused") for worker in self.workers)

    @property
    def lag_events(self) -> int | None:
        """Messages in Kafka that are not in Postgres yet; None unless all workers tell theirs."""
        lags = [worker.get("lag_events") for worker in self.workers]
        return None if self.away is not None or None in lags else sum(lags)


class Workers:
    """Asks, and remembers the counters of the last seconds for rates."""

    def __init__(self, settings: ApiSettings) -> None:
        self._url = settings.status_url.rstrip("/") + "/status"
        self._received, self._accepted = Rate(), Rate()
        self._shared = Shared(self._ask, ASKED_EVERY_S)

    async def seen(self) -> Seen:
        """The workers as they were at most ASKED_EVERY_S ago."""
        return await self._shared.get()

    async def close(self) -> None:
        await self._shared.close()

    async def _ask(self) -> Seen:
        # A thread, because nothing here depends on it: an answer that hangs costs that thread TIMEOUT_S.
        try:
            workers = orjson.loads(await asyncio.to_thread(self._fetch))["workers"]
            lives = {(worker["worker"], worker["pid"]): worker for worker in workers if "pid" in worker}
            received = {life: worker["received"] for life, worker in lives.items()}
            accepted = {life: worker["classes"]["accepted"] for life, worker in lives.items()}
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            # Whatever answers there need not be the supervisor.
            reason = getattr(error, "reason", error)
            return Seen(time.time_ns() // 1_000, f"the supervisor does not answer: {type(reason).__name__}")
        self._received.add(received)
        self._accepted.add(accepted)
        return Seen(time.time_ns() // 1_000, None, workers, self._received.per_s(), self._accepted.per_s())

    def _fetch(self) -> bytes:
        with _DIRECTLY.open(self._url, timeout=TIMEOUT_S) as answer:
            return answer.read(ANSWER_BYTES_MAX)
