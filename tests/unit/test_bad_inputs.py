"""Every bad input ends in its class, alone and in company, and its neighbours do not notice."""

from dataclasses import replace

import pytest

from hotpath.events import EventClass
from hotpath.reference import Reference
from hotpath.settings import Rules
from tests.bad_inputs import BAD_INPUTS, NOW_US, SEQUENCES, BadInput, Sequence, message
from tests.support.stages import Message, StageRunner, classes_of, rows_of

NEIGHBOURS = [message(user_id=f"neighbour_{n}") for n in range(6)]


@pytest.fixture(params=BAD_INPUTS, ids=lambda bad: bad.name)
def bad(request) -> BadInput:
    return request.param


@pytest.fixture(params=SEQUENCES, ids=lambda sequence: sequence.name)
def sequence(request) -> Sequence:
    return request.param


def test_reference_agrees_with_the_table(bad):
    assert Reference().classify(0, bad.value, NOW_US).event_class == bad.event_class


def test_bad_input_alone_ends_in_its_class(bad):
    assert classes_of([bad.value], NOW_US) == [bad.event_class]


def test_bad_input_among_good_ones_ends_in_its_class(bad):
    values = [*NEIGHBOURS[:3], bad.value, *NEIGHBOURS[3:]]
    expected = ["accepted"] * 3 + [bad.among_good] + ["accepted"] * 3
    for chunk_rows in (1, 2, 3, 100):
        assert classes_of(values, NOW_US, chunk_rows) == expected, f"in chunks of {chunk_rows}"


def test_neighbours_of_a_bad_input_keep_offset_and_strings(bad):
    values = [*NEIGHBOURS[:3], bad.value, *NEIGHBOURS[3:]]
    messages = [Message(0, 1_000 + 7 * n, value, NOW_US) for n, value in enumerate(values)]
    rows = rows_of(StageRunner().block([messages]))
    assert [row.offset for row in rows] == [message.offset for message in messages]
    for number, row in enumerate(rows[:3] + rows[4:]):
        assert row.texts == (b"neighbour_%d" % number, b"page_view", b"/products/1", b"sess_1")
        assert row.time_us == NOW_US
        assert row.payload is None


def test_quarantine_keeps_the_raw_bytes(bad):
    (row,) = rows_of(StageRunner().block([[Message(0, 0, bad.value, NOW_US)]]))
    assert row.payload == (None if bad.event_class == "accepted" else (bad.value or b"")[:1_024])


def test_accepted_ones_are_stored_as_the_reference_stores_them(bad):
    outcome = Reference().classify(0, bad.value, NOW_US)
    (row,) = rows_of(StageRunner().block([[Message(0, 0, bad.value, NOW_US)]]))
    assert (row.time_us, row.texts) == (outcome.time_us, outcome.texts)


@pytest.mark.parametrize("chunk_rows", [7, 50, 2_000])
def test_all_bad_inputs_together_end_in_their_classes(chunk_rows):
    values = [value for bad in BAD_INPUTS for value in (message(user_id="neighbour"), bad.value)]
    expected = [bad.among_good for bad in BAD_INPUTS]
    # The table's users are few, and there are more than ten page views by each in it.
    rules = Rules(bot_page_views_max=len(values))
    assert classes_of(values, NOW_US, chunk_rows, rules)[1::2] == expected


def test_tables_reach_every_class():
    reached = {bad.event_class for bad in BAD_INPUTS} | {c for s in SEQUENCES for c in s.classes}
    assert reached == {event_class.label for event_class in EventClass}


def test_reference_agrees_with_the_sequences(sequence):
    reference = Reference()
    outcomes = [reference.classify(0, value, NOW_US) for value in sequence.values]
    assert [outcome.event_class for outcome in outcomes] == sequence.classes


@pytest.mark.parametrize("chunk_rows", [1, 2, 5, 8, 12, 100])
def test_sequence_ends_in_its_classes_wherever_it_is_cut(sequence, chunk_rows):
    assert classes_of(sequence.values, NOW_US, chunk_rows) == sequence.classes


def test_restart_in_the_middle_changes_no_class(sequence):
    """What a new owner gets: the watermark, and the accepted page views of a second when it is asked for."""
    for cut in range(1, len(sequence.values)):
        messages = [Message(0, offset, value, NOW_US) for offset, value in enumerate(sequence.values)]
        before = StageRunner()
        rows = rows_of(before.block([messages[:cut]]))
        stored = [replace(row) for row in rows if row.event_class == "accepted"]

        def recall(log, seconds, stored=stored):
            for second in seconds:
                users: dict[str, int] = {}
                for row in stored:
                    if row.time_us // 1_000_000 == second and row.texts[1] == b"page_view":
                        users[row.texts[0].decode()] = users.get(row.texts[0].decode(), 0) + 1
                yield second, list(users), list(users.values())

        after = StageRunner(watermarks=before.watermarks.tolist(), recall=recall)
        rows += rows_of(after.block([messages[cut:]]))
        assert [row.event_class for row in rows] == sequence.classes
