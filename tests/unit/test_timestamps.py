"""Timestamps: columns of strings to microseconds."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from hotpath.events import Detail
from hotpath.workers.timestamps import parse_timestamps


def parse(texts: list[str]) -> tuple[list[int], list[int]]:
    encoded = [text.encode() for text in texts]
    lengths = np.array([len(text) for text in encoded], np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    data = np.frombuffer(b"".join(text + b"\n" for text in encoded), np.uint8)
    times_us, faults = parse_timestamps(data, starts, lengths)
    assert times_us.dtype == np.int64
    assert faults.dtype == np.uint8
    return times_us.tolist(), faults.tolist()


def microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_every_day_of_the_century_is_right():
    days = [datetime(2000, 1, 1, 23, 59, 58, tzinfo=UTC) + timedelta(days) for days in range(36_525)]
    times_us, faults = parse([day.strftime("%Y-%m-%dT%H:%M:%SZ") for day in days])
    assert not any(faults)
    assert times_us == [microseconds(day) for day in days]


def test_days_that_do_not_exist_are_refused():
    dates = [
        f"{year}-{month:02d}-{day:02d}" for year in (2023, 2024) for month in range(14) for day in range(34)
    ]

    def exists(date: str) -> bool:
        try:
            return bool(datetime.strptime(date, "%Y-%m-%d"))
        except ValueError:
            return False

    _, faults = parse([f"{date}T00:00:00Z" for date in dates])
    assert faults == [Detail.NONE if exists(date) else Detail.TIMESTAMP_NOT_REAL for date in dates]


def test_every_second_of_a_day_is_right():
    texts = [f"2024-02-29T{s // 3_600:02d}:{s // 60 % 60:02d}:{s % 60:02d}Z" for s in range(86_400)]
    times_us, faults = parse(texts)
    assert not any(faults)
    assert np.array_equal(np.diff(times_us), np.full(86_399, 1_000_000))


@pytest.mark.parametrize("digits", range(1, 10))
@pytest.mark.parametrize("zone", ["Z", "+01:00"])
def test_fraction_is_cut_to_microseconds(digits, zone):
    fraction = "987654999"[:digits]
    (time_us,), (fault,) = parse([f"2024-03-15T14:30:00.{fraction}{zone}"])
    assert not fault
    assert time_us % 1_000_000 == int((fraction + "000000")[:6])


def test_offsets_lead_to_utc():
    texts = ["2024-03-15T14:30:00+05:30", "2024-03-15T14:30:00-23:59", "2024-03-15T14:30:00-00:00"]
    times_us, faults = parse(texts)
    assert not any(faults)
    assert times_us == [microseconds(datetime.fromisoformat(text)) for text in texts]


def test_year_is_that_of_the_instant_in_utc():
    texts = {
        "1999-12-31T23:30:00-01:00": Detail.NONE,
        "2000-01-01T00:30:00+01:00": Detail.TIMESTAMP_YEAR,
        "2099-12-31T23:59:59.999999999Z": Detail.NONE,
        "2100-01-01T00:30:00+01:00": Detail.NONE,
        "2099-12-31T23:30:00-01:00": Detail.TIMESTAMP_YEAR,
        "0000-01-01T00:00:00Z": Detail.TIMESTAMP_YEAR,
        "9999-12-31T23:59:59Z": Detail.TIMESTAMP_YEAR,
    }
    times_us, faults = parse(list(texts))
    assert faults == list(texts.values())
    assert [time_us == 0 for time_us in times_us] == [bool(fault) for fault in faults]


def test_every_byte_but_a_digit_is_refused_where_digits_stand():
    good = b"2024-03-15T14:30:00.123456+05:30"
    digit_places = [place for place, byte in enumerate(good) if chr(byte).isdigit()]
    spoiled = [
        good[:place] + bytes([byte]) + good[place + 1 :]
        for place in digit_places
        for byte in range(256)
        if not chr(byte).isdigit() or byte > 127
    ]
    lengths = np.full(len(spoiled), len(good), np.int64)
    starts = np.arange(len(spoiled)) * (len(good) + 1)
    data = np.frombuffer(b"".join(text + b"\n" for text in spoiled), np.uint8)
    _, faults = parse_timestamps(data, starts, lengths)
    assert set(faults.tolist()) == {Detail.TIMESTAMP_FORMAT}


def test_one_bad_one_among_ten_thousand_is_found_alone():
    texts = ["2024-03-15T14:30:00Z"] * 10_000
    for bad in ("now", "", "2024-03-15T14:30:00", "2024-02-30T14:30:00Z", "x" * 1_000):
        texts[5_000] = bad
        times_us, faults = parse(texts)
        assert np.flatnonzero(faults).tolist() == [5_000]
        assert times_us.count(1_710_513_000_000_000) == 9_999


def test_forms_of_all_lengths_mix():
    texts = [
        f"2024-03-15T14:30:00{fraction}{zone}"
        for fraction in ("", *("." + "5" * digits for digits in range(1, 10)))
        for zone in ("Z", "z", "+00:00", "-00:00")
    ]
    times_us, faults = parse(texts)
    assert not any(faults)
    assert {time_us // 1_000_000 for time_us in times_us} == {1_710_513_000}


def test_no_timestamps_are_no_times():
    assert parse([]) == ([], [])
