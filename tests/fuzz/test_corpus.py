"""What the fuzzer once found stays fixed, and the fuzzer finds what is there to be found."""

import os
import subprocess
import sys
import time
from multiprocessing import Queue
from pathlib import Path

import pytest

from hotpath.workers import decode
from tests.bad_inputs import NOW_US
from tests.fuzz import corpus
from tests.fuzz.search import Search
from tests.support.agreement import Case, Disagreement, check
from tests.support.pipeline import ROOT


@pytest.mark.parametrize("path", corpus.paths(), ids=lambda path: path.stem)
def test_what_was_once_found_is_right_now(path: Path):
    check(corpus.load(path))


def test_a_case_is_kept_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    case = Case([(0, bytes(range(256)), NOW_US), (2, None, 1)], [1], [2], [3], 4, 5, 6, 7)
    path = corpus.keep(case, "texts: é / ../x")
    assert path == corpus.keep(case, "texts: é / ../x")
    assert corpus.paths() == [path] and path.stem.startswith("texts_x_")
    assert corpus.load(path) == case


def test_a_fault_is_found_shrunk_and_told_once(tmp_path, monkeypatch):
    """Without sentinels two halves of an object are taken for one: the fault that they are there for."""
    monkeypatch.setattr(decode, "_parse_joined", parse_without_sentinels)
    search = Search(Queue(), tmp_path / "now", time.monotonic() + 60)
    found = search.round(1)
    assert "not_json was taken for" in found.kind
    assert len(found.case.messages) <= 4 and not found.case.restarts, "shrunk"
    with pytest.raises(Disagreement, match=found.kind):
        check(found.case)
    again = search.round(1)
    assert again is None or again.kind != found.kind


def parse_without_sentinels(values: list[bytes | None]) -> list | None:
    try:
        elements = decode.orjson.loads(b"[" + b",".join(values) + b"]")
    except (TypeError, ValueError):
        return None
    return elements if len(elements) == len(values) else None


def test_the_command_searches_and_says_what_it_reached():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--minutes", "0.03", "--procs", "1", "--seed", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accepted" in done.stdout and " cases, " in done.stdout
