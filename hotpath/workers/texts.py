"""Texts: what decoding leaves for validation, beside the block's columns.

A chunk's strings lie in the block's arena; these arrays say where. Everything is per row of the chunk, in its
order, and lives only until the chunk has been validated.

Invariants: `starts` rises; a row that is no event has four empty strings and a good timestamp; every byte
of `row_bytes` below U+0020 is either the mark before a string (see `MARK`) or a fault.
"""

from dataclasses import dataclass

import numpy as np

MARK = "\x01..."
"""Stands in the arena where a COPY row has the four bytes of a string's length, until the row is sealed.

It begins with the only control character that a good row holds, so that one scan for control characters finds
both where the strings begin and whether any of them has one. The rest must be neither control nor space.
"""


@dataclass(slots=True)
class Texts:
    """Where the strings of a chunk of n messages are; offsets and lengths in bytes."""

    rows: slice
    """The chunk's rows of the block."""
    row_bytes: bytes
    """A copy of the chunk's part of the arena."""
    starts: np.ndarray
    """int64, n: where each row begins in `row_bytes`, also those that are no events."""
    string_starts: np.ndarray
    """int64, (TEXT_FIELDS, n): where each string begins in `row_bytes`."""
    marks: np.ndarray
    """int64: positions in `row_bytes` of all bytes below U+0020."""
    stamp_bytes: bytes
    """The timestamps, each followed by a newline."""
    stamp_starts: np.ndarray
    """int64, n: where each timestamp begins in `stamp_bytes`."""
    stamp_lengths: np.ndarray
    """int64, n."""
    stamp_marks: np.ndarray
    """int64: positions in `stamp_bytes` of all bytes below U+0020."""
    event_types_allowed: np.ndarray
    """bool, n: whether event_type is of the form that is allowed."""

    @property
    def count(self) -> int:
        return self.rows.stop - self.rows.start
