"""Timestamps: RFC 3339 strings to microseconds, many at once.

Strings of one length are the rows of a byte matrix and are checked and computed column by column, so the cost
is that of a few dozen numpy calls per length in use, whatever the number of rows. No string ever reaches
numpy's or Python's own date parsers, which accept far more than the format and raise for all on one bad one.
Pure; the tables are constants.
"""

import numpy as np

from hotpath.events import EPOCH_2000_US, EPOCH_2100_US, TIMESTAMP_BYTES_MAX, Detail

_SECONDS_BYTES = len("2024-03-15T14:30:00")
_OFFSET_BYTES = len("+05:30")
_FRACTION_DIGITS_MAX = 9
_MICROSECOND_DIGITS = 6

_DIGITS = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
"""Where the digits of year, month, day, hour, minute and second stand."""

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
    count = lengths.size
    if count and (lengths == lengths[0]).all() and _SECONDS_BYTES < lengths[0] <= TIMESTAMP_BYTES_MAX:
        length = int(lengths[0])
        if data.size == count * (length + 1):  # one after the other: the matrix is there already
            return _parse_length(data.reshape(count, length + 1)[:, :length])
    times_us = np.zeros(count, np.int64)
    faults = np.full(count, Detail.TIMESTAMP_FORMAT, np.uint8)
    in_use = np.bincount(np.minimum(lengths, TIMESTAMP_BYTES_MAX + 1), minlength=1)
    for length in np.flatnonzero(in_use[: TIMESTAMP_BYTES_MAX + 1]):
        if length <= _SECONDS_BYTES:
            continue
        rows = np.flatnonzero(lengths == length)
        matrix = data[starts[rows][:, np.newaxis] + np.arange(length)]
        times_us[rows], faults[rows] = _parse_length(matrix)
    return times_us, faults


def _parse_length(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`parse_timestamps` for strings of one length, the rows of `matrix` (uint8)."""
    utc = (matrix[:, -1] | 0x20) == ord("z")
    if utc.all():
        return _parse_form(matrix, zone_bytes=1)
    if not utc.any():
        return _parse_form(matrix, zone_bytes=_OFFSET_BYTES)
    times_us = np.empty(len(matrix), np.int64)
    faults = np.empty(len(matrix), np.uint8)
    for rows, zone_bytes in ((utc, 1), (~utc, _OFFSET_BYTES)):
        times_us[rows], faults[rows] = _parse_form(matrix[rows], zone_bytes)
    return times_us, faults


def _parse_form(matrix: np.ndarray, zone_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """`parse_timestamps` for strings of one length whose zone takes `zone_bytes`; the last byte of a
    zone of one byte has been checked."""
    count, length = matrix.shape
    fraction_bytes = length - _SECONDS_BYTES - zone_bytes  # the point and its digits
    if fraction_bytes < 0 or fraction_bytes == 1 or fraction_bytes > 1 + _FRACTION_DIGITS_MAX:
        return np.zeros(count, np.int64), np.full(count, Detail.TIMESTAMP_FORMAT, np.uint8)
    columns = np.ascontiguousarray(matrix.T)
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
    if zone_bytes == _OFFSET_BYTES:
        offset_formed, offset_real, offset_s = _offsets(columns[-_OFFSET_BYTES:])
        formed &= offset_formed
        real &= offset_real
        seconds -= offset_s
    times_us = seconds * 1_000_000
    if fraction_bytes:
        fraction = columns[_SECONDS_BYTES : _SECONDS_BYTES + fraction_bytes]
        fraction_digits = fraction[1:] - ord("0")
        formed &= (fraction[0] == ord(".")) & (fraction_digits <= 9).all(axis=0)
        for place, digit in enumerate(fraction_digits[:_MICROSECOND_DIGITS], 1):
            times_us += digit * np.int64(10 ** (_MICROSECOND_DIGITS - place))

    faults = np.zeros(count, np.uint8)
    in_range = (times_us >= EPOCH_2000_US) & (times_us < EPOCH_2100_US)
    if not (formed & real & in_range).all():
        faults[~in_range] = Detail.TIMESTAMP_YEAR
        faults[~real] = Detail.TIMESTAMP_NOT_REAL
        faults[~formed] = Detail.TIMESTAMP_FORMAT
        times_us[faults != 0] = 0
    return times_us, faults


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
