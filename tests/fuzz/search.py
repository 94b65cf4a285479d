"""One process of the fuzzer: searches, round after round, until its time is over.

A round is a run of Hypothesis over the cases of the property tests, from a seed of its own. What it finds is shrunk
and kept; from then on cases that differ in the same way are passed over, so that one fault does not hide the next.
Whatever is raised that is no disagreement (a crash of a stage, of the reference) counts as a difference, too.
"""

import signal
import time
import traceback
from collections import Counter
from multiprocessing import Queue
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings, target

from tests.fuzz import corpus
from tests.property.test_stages import cases
from tests.support.agreement import Case, Disagreement, check

ROUND_CASES = 500
TELL_EVERY_S = 0.5


class Found(Exception):
    """A difference of a kind not seen before; `case` shows it."""

    def __init__(self, kind: str, case: Case) -> None:
        super().__init__(kind)
        self.kind = kind
        self.case = case


class Search:
    """Owns what one process has seen: kinds of differences, and how many cases and messages it has tried."""

    def __init__(self, tell: Queue, now_at: Path, deadline: float) -> None:
        """`now_at`: the file that always holds the case being tried, for whoever looks after a crash."""
        self._tell = tell
        self._now_at = now_at
        self._deadline = deadline
        self._known: set[str] = set()
        self._cases = 0
        self._outcomes: Counter = Counter()
        self._told_at = 0.0

    def run(self, first_seed: int) -> None:
        """Search until the deadline."""
        number = first_seed
        while time.monotonic() < self._deadline:
            if found := self.round(number):
                self._tell.put(("found", found.kind, str(corpus.keep(found.case, found.kind))))
            number += 1
        self._report()

    def round(self, number: int) -> Found | None:
        """One run from this seed; a difference, shrunk, of a kind that no round before has returned."""

        @seed(number)
        @settings(
            max_examples=ROUND_CASES,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.target, Phase.shrink],
        )
        @given(cases())
        def search(case: Case) -> None:
            self._try(case)

        try:
            search()
        except Found as found:
            self._known.add(found.kind)
            return found
        return None

    def _try(self, case: Case) -> None:
        if time.monotonic() >= self._deadline:
            return
        self._now_at.write_text(case.to_json())
        try:
            outcomes = check(case)
        except Disagreement as error:
            kind = error.kind
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {frame.name} of {Path(frame.filename).stem}"
        else:
            self._count(outcomes)
            return
        if kind not in self._known:
            raise Found(kind, case)

    def _count(self, outcomes: Counter) -> None:
        self._cases += 1
        self._outcomes += outcomes
        target(len(outcomes), label="different outcomes in a case")
        if time.monotonic() - self._told_at > TELL_EVERY_S:
            self._report()

    def _report(self) -> None:
        self._told_at = time.monotonic()
        self._tell.put(("tried", self._cases, self._outcomes))
        self._cases, self._outcomes = 0, Counter()


def search(tell: Queue, now_at: Path, seconds: float, first_seed: int) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    Search(tell, now_at, time.monotonic() + seconds).run(first_seed)
