"""Payload caps and watermarks, as `classify_chunk` applies them."""

import pytest

from hotpath.events import PAYLOAD_KEPT_BYTES, EventClass
from tests.bad_inputs import NOW_US, message
from tests.support.stages import Message, StageRunner, rows_of


def messages_of(values: list[bytes | None]) -> list[Message]:
    return [Message(0, offset, value, NOW_US) for offset, value in enumerate(values)]


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_payloads_are_kept_up_to_the_cap_of_each_class_and_block(chunk_rows):
    values = [b"{%d" % n for n in range(6)] + [b"[%d]" % n for n in range(6)] + [message()]
    messages = messages_of(values)
    chunks = [messages[start : start + chunk_rows] for start in range(0, len(messages), chunk_rows)]
    runner = StageRunner(payload_rows_max=4)
    for _ in range(2):  # a cap per block
        rows = rows_of(runner.block(chunks))
        kept = [row.payload for row in rows]
        assert kept == [*values[:4], None, None, *values[6:10], None, None, None]


def test_cap_of_zero_keeps_nothing_and_counts_all():
    block = StageRunner(payload_rows_max=0).block([messages_of([b"{", None, message()])])
    assert [row.payload for row in rows_of(block)] == [None] * 3
    assert block.logs["received"][0] == 3
    assert block.logs["counts"][0, EventClass.NOT_JSON] == 1


def test_long_payload_is_cut_and_its_size_told():
    value = b"\xff" * 5_000
    block = StageRunner().block([messages_of([value, None])])
    assert block.payload(0) == value[:PAYLOAD_KEPT_BYTES]
    assert block.payload_sizes[:2].tolist() == [5_000, 0]
    assert block.payload_starts[1] >= 0
    assert block.payload(1) == b""


def test_late_events_keep_their_row_and_no_payload():
    values = [message(), message(timestamp="2024-03-15T14:00:00Z")]
    block = StageRunner().block([messages_of(values)])
    assert block.classes[1] == EventClass.LATE
    assert block.row_starts[1] >= 0
    assert block.payload_starts[1] == -1


def test_watermark_goes_on_where_the_last_block_left_it():
    runner = StageRunner(2)
    late = message(timestamp="2024-03-15T14:24:59Z")
    assert rows_of(runner.block([[Message(1, 0, message(), NOW_US)]]))[0].event_class == "accepted"
    rows = rows_of(runner.block([[Message(0, 0, late, NOW_US), Message(1, 1, late, NOW_US)]]))
    assert [row.event_class for row in rows] == ["accepted", "late"]
    assert runner.watermarks.tolist() == [NOW_US // 1_000_000 - 301, NOW_US // 1_000_000]
