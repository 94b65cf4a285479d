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

# What may stand in each place: the least byte, and how many more there are. A T of either case has been made small.
_LEAST = np.frombuffer(b"0000-00-00t00:00:00", np.uint8)[:, np.newaxis]
_SPAN = np.equal(_LEAST, ord("0")) * np.uint8(9)
_CASE_BITS = np.equal(_LEAST, ord("t")) * np.uint8(0x20)

_CLOCK_LIMITS = np.array([[24], [60], [60]], np.uint8)
_CLOCK_SECONDS = np.array([3_600, 60, 1])
_OFFSET_PLACES = np.arange(-_OFFSET_BYTES, 0)[:, np.newaxis]
_FRACTION_PLACES = np.arange(1, _FRACTION_DIGITS_MAX + 1)[:, np.newaxis]
_FRACTION_US = np.array([10**5, 10**4, 10**3, 10**2, 10, 1, 0, 0, 0])
"""What a digit of a fraction stands for; what is less than a microsecond is cut."""

REPEATED_MIN = 0.5
"""Share of distinct neighbours up to which it pays to parse them apart."""

_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTHS = 256
"""Entries per kind of year in the tables by month: enough for any uint8, so that no month need be checked first."""


def _month_tables() -> tuple[np.ndarray, np.ndarray]:
    """(days in each month, days of the year before its day 0), first of ordinary years, then of leap years.

    There are none in months that do not exist.
    """
    within, before = np.zeros((2, _MONTHS), np.uint8), np.zeros((2, _MONTHS), np.int64)
    for leap in (0, 1):
        days = [*_MONTH_DAYS[:1], 28 + leap, *_MONTH_DAYS[2:]]
        within[leap, 1:13] = days
        before[leap, 1:13] = np.cumsum([0, *days[:-1]]) - 1
    return within.ravel(), before.ravel()


_DAYS_IN_MONTH, _DAYS_BEFORE_MONTH = _month_tables()


def _days_before_year() -> np.ndarray:
    """Days from 1970-01-01 to the first of January of each year from 0 to 9999, in the Gregorian calendar."""
    before = np.arange(-1, 9_999)
    leaps = before // 4 - before // 100 + before // 400
    days = 365 * (before + 1) + leaps
    return days - days[1970]


_DAYS_BEFORE_YEAR = _days_before_year()
_YEARS = _DAYS_BEFORE_YEAR.size
_LEAP_YEARS = np.where(np.diff(_DAYS_BEFORE_YEAR, append=0) == 366, _MONTHS, 0)
"""Where the tables by month begin for each year; 9999 is none, whatever is taken for the year after it."""


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
    above = (
        columns[:_SECONDS_BYTES] | _CASE_BITS
    ) - _LEAST  # uint8: whatever is below wraps to a large number
    formed = (above <= _SPAN).all(axis=0)
    pairs = above[_DIGITS].reshape(len(_DIGITS) // 2, 2, columns.shape[1])
    numbers = pairs[:, 0] * np.uint8(10) + pairs[:, 1]
    century, year_of_century, month, day = numbers[:4]
    year = np.minimum(century * np.int64(100) + year_of_century, _YEARS - 1)
    month_of_leap = _LEAP_YEARS[year] + month
    # Days of a month count from 0 here, so that day 0 wraps.
    real = (day - np.uint8(1)) < _DAYS_IN_MONTH[month_of_leap]
    real &= (numbers[4:] < _CLOCK_LIMITS).all(axis=0)
    days = _DAYS_BEFORE_YEAR[year] + _DAYS_BEFORE_MONTH[month_of_leap] + day
    return days * 86_400 + _CLOCK_SECONDS @ numbers[4:].astype(np.int64), formed, real


def _tails(
    data: np.ndarray, columns: np.ndarray, ends: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(microseconds to add, well formed, real) of what follows the seconds, in rows that are longer than the usual.

    `columns`: the bytes behind the seconds, as many as a fraction may have; `ends`: where each row ends in `data`.
    """
    utc = (data[ends - 1] | 0x20) == ord("z")
    fraction_bytes = lengths - _SECONDS_BYTES - np.where(utc, 1, _OFFSET_BYTES)  # the point and its digits
    offset_formed, offset_real, offset_s = _offsets(data[ends + _OFFSET_PLACES])
    there = fraction_bytes > _FRACTION_PLACES
    digits = columns[1:] - ord("0")
    formed = ((digits <= 9) | ~there).all(axis=0)
    formed &= (fraction_bytes == 0) | (
        (fraction_bytes >= 2) & (fraction_bytes <= 1 + _FRACTION_DIGITS_MAX) & (columns[0] == ord("."))
    )
    tail_us = _FRACTION_US @ (digits * there).astype(np.int64)
    tail_us -= np.where(utc, 0, offset_s * 1_000_000)
    return tail_us, formed & (utc | offset_formed), utc | offset_real


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
