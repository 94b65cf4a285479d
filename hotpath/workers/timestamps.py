"""Timestamps: RFC 3339 strings to microseconds, many at once.

The strings are the rows of a byte matrix and are checked and computed column by column, so the cost is that of a
few dozen numpy calls, whatever the number of rows and their forms: date and time stand in the same places in all,
and what follows is looked at only in those rows in which it is more than a Z. Neighbours that are the same string
are parsed once. No string ever reaches numpy's or Python's own date parsers, which accept far more than the format
and raise for all on one bad one. Pure; the tables are constants.
"""

import numpy as np

from hotpath.events import EPOCH_2000_US, EPOCH_2100_US, TIMESTAMP_BYTES_MAX, Detail

_SECONDS_BYTES = len("2024-03-15T14:30:00")
_OFFSET_BYTES = len("+05:30")
_USUAL_BYTES = _SECONDS_BYTES + len("Z")
_FRACTION_DIGITS_MAX = 9
_MICROSECOND_DIGITS = 6

_DIGITS = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
"""Where the digits of year, month, day, hour, minute and second stand."""

REPEATED_MIN = 0.5
"""Share of distinct neighbours up to which it pays to parse them apart."""

_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _month_table(first: int, values: list[int]) -> np.ndarray:
    """A table for any uint8, so that no month has to be checked before it is looked up: 0 where none is."""
    table = np.zeros(256, np.int32)
    table[first : first + len(values)] = values
    return table


_DAYS_IN_MONTH = _month_table(1, list(_MONTH_DAYS))
_DAYS_BEFORE_MONTH = _month_table(1, [sum(_MONTH_DAYS[:month]) for month in range(12)])


def _days_before_year() -> np.ndarray:
    """Days from 1970-01-01 to the first of January of each year from 0 to 9999, in the Gregorian calendar."""
    before = np.arange(-1, 9_999)
    leaps = before // 4 - before // 100 + before // 400
    days = 365 * (before + 1) + leaps
    return days - days[1970]


_DAYS_BEFORE_YEAR = _days_before_year()


def parse_timestamps(
    data: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Times of n strings that lie in `data` (uint8) at `starts`, `lengths` bytes long (int64, n).

    Returns (times_us, faults): int64 microseconds since 1970, 0 where the string is at fault; uint8
    `Detail`: NONE, TIMESTAMP_FORMAT, TIMESTAMP_NOT_REAL or TIMESTAMP_YEAR. More than six digits of a fraction
    are cut, not rounded.
    """
    firsts = _firsts(data, starts, lengths)
    if firsts.size > REPEATED_MIN * lengths.size:
        return _parse(data, starts, lengths)
    times_us, faults = _parse(data, starts[firsts], lengths[firsts])
    repeats = np.diff(firsts, append=lengths.size)
    return np.repeat(times_us, repeats), np.repeat(faults, repeats)


def _firsts(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The rows (int64) that are not known to be the same as the row before: only strings of the usual length are."""
    changes = np.ones(lengths.size, np.bool_)
    places = data.size - _USUAL_BYTES + 1
    if places > 0 and lengths.size:
        usual = lengths == _USUAL_BYTES
        windows = np.ndarray((places,), f"V{_USUAL_BYTES}", data, 0, (1,))
        # What is cut is but the start of a row of another length.
        words = windows[np.minimum(starts, places - 1)].view(np.uint32).reshape(lengths.size, -1)
        same = usual[1:] & usual[:-1]
        for word in words.T:
            same &= word[1:] == word[:-1]
        changes[1:] = ~same
    return np.flatnonzero(changes)


def _parse(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`parse_timestamps`, row by row."""
    longer = np.flatnonzero(lengths > _USUAL_BYTES)
    width = _SECONDS_BYTES + 1 + (_FRACTION_DIGITS_MAX if longer.size else 0)
    padded = np.zeros(data.size + width, np.uint8)  # so that every row is as long as that
    padded[: data.size] = data
    matrix = np.ndarray((data.size + 1,), f"V{width}", padded, 0, (1,))[starts].view(np.uint8)
    columns = np.ascontiguousarray(matrix.reshape(-1, width).T)
    seconds, formed, real = _seconds(columns)
    times_us = seconds * 1_000_000
    formed &= (lengths > _SECONDS_BYTES) & (lengths <= TIMESTAMP_BYTES_MAX)
    utc = (columns[_SECONDS_BYTES] | 0x20) == ord("z")
    if longer.size:
        utc[longer] = True
        ends = starts[longer] + lengths[longer]
        tail_us, tail_formed, tail_real = _tails(
            data, columns[_SECONDS_BYTES:, longer], ends, lengths[longer]
        )
        times_us[longer] += tail_us
        formed[longer] &= tail_formed
        real[longer] &= tail_real
    formed &= utc

    faults = np.zeros(lengths.size, np.uint8)
    in_range = (times_us >= EPOCH_2000_US) & (times_us < EPOCH_2100_US)
    if not (formed & real & in_range).all():
        faults[~in_range] = Detail.TIMESTAMP_YEAR
        faults[~real] = Detail.TIMESTAMP_NOT_REAL
        faults[~formed] = Detail.TIMESTAMP_FORMAT
        times_us[faults != 0] = 0
    return times_us, faults


def _seconds(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(seconds since 1970 as if in UTC, well formed, real) of what all forms begin with: 2024-03-15T14:30:00."""
    digits = columns[_DIGITS] - ord("0")  # uint8: whatever stands below "0" wraps to a large number
    formed = (digits <= 9).all(axis=0)
    formed &= (columns[4] == ord("-")) & (columns[7] == ord("-"))
    formed &= (columns[13] == ord(":")) & (columns[16] == ord(":"))
    formed &= (columns[10] | 0x20) == ord("t")
    century, year_of_century, month, day, hour, minute, second = digits[0::2] * np.uint8(10) + digits[1::2]
    # uint8 throughout: a leap year is told from the two halves of its number.
    leap = (year_of_century % 4 == 0) & ((year_of_century != 0) | (century % 4 == 0))
    real = (day >= 1) & (day <= _DAYS_IN_MONTH[month] + (leap & (month == 2)))
    real &= (hour < 24) & (minute < 60) & (second < 60)

    year = century * np.int64(100) + year_of_century
    days = _DAYS_BEFORE_YEAR.take(year, mode="clip") + _DAYS_BEFORE_MONTH[month]
    days += day - np.int64(1) + (leap & (month > 2))
    seconds = days * 86_400 + hour * np.int64(3_600) + minute * np.int64(60) + second
    return seconds, formed, real


def _tails(
    data: np.ndarray, columns: np.ndarray, ends: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(microseconds to add, well formed, real) of what follows the seconds, in rows that are longer than the usual.

    `columns`: the bytes behind the seconds, as many as a fraction may have; `ends`: where each row ends in `data`.
    """
    utc = (data[ends - 1] | 0x20) == ord("z")
    fraction_bytes = lengths - _SECONDS_BYTES - np.where(utc, 1, _OFFSET_BYTES)  # the point and its digits
    offset_formed, offset_real, offset_s = _offsets(data[ends + np.arange(-_OFFSET_BYTES, 0)[:, np.newaxis]])
    tail_us = np.where(utc, 0, offset_s * -1_000_000)
    formed = (fraction_bytes == 0) | (
        (fraction_bytes >= 2) & (fraction_bytes <= 1 + _FRACTION_DIGITS_MAX) & (columns[0] == ord("."))
    )
    formed &= utc | offset_formed
    digits = columns[1:] - ord("0")
    for place, digit in enumerate(digits, 1):
        there = fraction_bytes > place
        formed &= ~there | (digit <= 9)
        if place <= _MICROSECOND_DIGITS:
            tail_us += there * digit * np.int64(10 ** (_MICROSECOND_DIGITS - place))
    return tail_us, formed, utc | offset_real


def _offsets(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(well formed, in range, seconds east of UTC) of zones like +05:30, the columns of a (6, n) matrix."""
    sign, tens_hour, hour, colon, tens_minute, minute = columns
    digits = np.stack([tens_hour, hour, tens_minute, minute]) - ord("0")
    formed = (digits <= 9).all(axis=0) & (colon == ord(":"))
    west = sign == ord("-")
    formed &= west | (sign == ord("+"))
    hours, minutes = digits[0::2] * np.uint8(10) + digits[1::2]
    seconds = hours * np.int64(3_600) + minutes * np.int64(60)
    return formed, (hours < 24) & (minutes < 60), np.where(west, -seconds, seconds)
