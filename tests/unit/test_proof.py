"""Parts of the proof by themselves: what is cut where, who is judged twice, and that the second judge sees faults."""

import json

import numpy as np
import pytest

from hotpath.errors import ConfigError
from hotpath.events import EventClass
from hotpath.proof.findings import Findings
from hotpath.proof.plan import parse_bound, parse_partitions
from hotpath.proof.second_opinion import SecondOpinion
from hotpath.proof.snapshot import Span, sections
from hotpath.quarantine import hexdump
from hotpath.settings import Rules
from hotpath.shm.block import Block
from tests.bad_inputs import GOOD, NOW_US
from tests.support.stages import Message, StageRunner

USERS = [f"user-{number:05}" for number in range(5_000)] + ["a", "ab", "é"]


def views_of(users: list[str]) -> list[bytes]:
    return [json.dumps(GOOD | {"user_id": user}).encode() for user in users]


def classified(values: list[bytes]) -> Block:
    messages = [Message(0, offset, value, NOW_US) for offset, value in enumerate(values)]
    return StageRunner().block([messages[at : at + 2_000] for at in range(0, len(messages), 2_000)])


def judge(block: Block, values: list[bytes], **options: object) -> Findings:
    findings = Findings()
    given = {"seed": 1, "full": False} | options
    opinion = SecondOpinion(0, Rules(), 0, findings=findings, **given)
    opinion.check(block, values, np.full(len(values), NOW_US), 0)
    return findings


def test_sections_are_the_spans_cut_and_put_together():
    spans = [Span(1, 0, 25), Span(2, 100, 103), Span(4, 0, 4), Span(5, 7, 7)]
    found = list(sections(spans, size=10))
    assert found == [
        [Span(1, 0, 10)],
        [Span(1, 10, 20)],
        [Span(1, 20, 25), Span(2, 100, 103), Span(4, 0, 2)],
        [Span(4, 2, 4), Span(5, 7, 7)],
    ]


def test_partitions_are_numbers_and_ranges():
    assert parse_partitions("", 3) == [0, 1, 2]
    assert parse_partitions("5, 0-2,1", 8) == [0, 1, 2, 5]
    for text in ("-1", "a", "0-", "8", "3-9"):
        with pytest.raises(ConfigError, match="--partitions"):
            parse_partitions(text, 8)


def test_bounds_are_offsets_or_times():
    assert parse_bound("--from", "") is None
    assert parse_bound("--from", "17") == 17
    assert parse_bound("--from", "2026-03-15T14:30:00Z").isoformat() == "2026-03-15T14:30:00+00:00"
    with pytest.raises(ConfigError, match="--to"):
        parse_bound("--to", "noon")


def test_whole_users_are_judged_twice_about_one_in_a_hundred():
    values = views_of([user for user in USERS for _ in range(3)])
    block = classified(values)
    findings = judge(block, values)
    assert findings.proven
    assert findings.checked["stages"] % 3 == 0
    assert 60 < findings.checked["stages"] < 3 * 110
    chosen = {
        seed: SecondOpinion(0, Rules(), 0, seed, False, Findings())._chosen(block).reshape(-1, 3)
        for seed in range(8)
    }
    assert all((rows.all(axis=1) == rows.any(axis=1)).all() for rows in chosen.values()), (
        "all or none of a user"
    )
    assert len({rows.tobytes() for rows in chosen.values()}) == 8, "by the seed"
    again = SecondOpinion(0, Rules(), 0, 3, False, Findings())._chosen(classified(values))
    assert (again.reshape(-1, 3) == chosen[3]).all(), "the same ones again"


def test_users_with_short_names_are_chosen_whole_whatever_stands_before_them():
    values = [
        json.dumps(GOOD | {"user_id": "ab", "timestamp": f"2024-03-15T14:{minute:02}:00Z"}).encode()
        for minute in range(30)
    ]
    block = classified(values)
    for seed in range(200):
        rows = SecondOpinion(0, Rules(), 0, seed, False, Findings())._chosen(block)
        assert rows.all() or not rows.any()


@pytest.mark.parametrize(
    ("row", "event_class"),
    [(3, EventClass.LATE), (12, EventClass.ACCEPTED), (20, EventClass.ACCEPTED), (2, EventClass.BAD_VALUE)],
    ids=["late", "bot let through", "fault let through", "refused"],
)
def test_the_second_judge_sees_a_wrong_class(row: int, event_class: EventClass):
    values = [*views_of(["bot"] * 15), *views_of(["a b"] * 3), b"{}", b"", b"[", *views_of(["u"])]
    block = classified(values)
    assert judge(block, values, full=True).proven
    block.classes[row] = event_class
    if event_class == EventClass.ACCEPTED:
        block.row_starts[row] = block.row_starts[0]
    findings = judge(block, values, full=True)
    assert findings.counts["stages"] >= 1
    assert (findings.first[0].what, findings.first[0].offset) == ("stages", row)


def test_the_second_judge_sees_a_wrong_text_and_a_wrong_time():
    values = views_of(["u-1", "u-2"])
    block = classified(values)
    block.times_us[0] += 1
    block.lengths[0, 1] -= 1
    findings = judge(block, values, full=True)
    assert [(each.offset, each.field) for each in findings.first] == [(0, "event"), (1, "event")]


def test_differences_beyond_the_first_are_counted():
    findings = Findings(shown_max=2)
    for offset in range(5):
        findings.differ("events", 3, offset, "page_url", "'/a'", "'/b'")
    assert findings.counts["events"] == 5 and not findings.proven
    assert str(findings.first[1]) == "partition 3, offset 1: events.page_url: expected '/a', found '/b'"
    assert len(findings.as_json()["differences"]) == 2


def test_a_hexdump_shows_places_bytes_and_characters():
    assert hexdump(b"\x00A\xff" + b"z" * 14).splitlines() == [
        "00000000  00 41 ff 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a  .A.zzzzzzzzzzzzz",
        "00000010  7a                                               z",
    ]
