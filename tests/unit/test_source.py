"""The source: what it makes of a consumer's messages."""

import numpy as np
import pytest
from confluent_kafka import Message

from hotpath.workers.source import _offsets


@pytest.mark.parametrize(
    "logs",
    [
        [[5]],
        [[5, 6, 7]],
        [[5, 7, 8]],
        [[0, 1], [4, 5, 9], [7]],
        [[2**40, 2**40 + 3], [1, 2, 3]],
    ],
)
def test_offsets_are_those_of_the_messages_with_and_without_gaps(logs):
    messages = [
        Message(topic="events", partition=number, offset=offset, value=b"")
        for number, offsets in enumerate(logs)
        for offset in offsets
    ]
    lasts = np.cumsum([len(offsets) for offsets in logs]) - 1
    found = _offsets(messages, lasts)
    assert found.dtype == np.int64
    assert found.tolist() == [message.offset() for message in messages]
