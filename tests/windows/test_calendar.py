"""Windows of the calendar: they tile time, and begin when the wall clock says so."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.errors import OptionError
from millstream.windows import calendar
from millstream.windows.assignment import place_rows
from millstream.windows.calendar import Calendar, CalendarUnit
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
UNITS: list[CalendarUnit] = ["day", "week", "month", "quarter", "year"]
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "America/Sao_Paulo",  # its days began at 01:00 in spring
    "America/Havana",  # its days had two midnights in autumn
    "Pacific/Apia",  # has no 30 December 2011
    "Australia/Lord_Howe",  # clocks change by half an hour
]
CHANGES = [
    datetime(2024, 3, 31, 1, tzinfo=UTC),
    datetime(2024, 10, 27, 1, tzinfo=UTC),
    datetime(2018, 11, 4, 3, tzinfo=UTC),
    datetime(2023, 11, 5, 5, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(1900, 1, 1, tzinfo=UTC),
    datetime(2400, 2, 29, tzinfo=UTC),
]


def us_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def time_of(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


times = st.one_of(
    st.tuples(st.sampled_from(CHANGES), st.integers(-3 * DAY_US, 3 * DAY_US)).map(
        lambda pair: us_of(pair[0]) + pair[1]
    ),
    st.integers(us_of(datetime(1200, 1, 1, tzinfo=UTC)), us_of(datetime(2900, 1, 1, tzinfo=UTC))),
)
windows = st.builds(
    Calendar,
    st.sampled_from(UNITS),
    st.sampled_from([1, 1, 2, 5]),
    st.sampled_from(ZONES),
    st.integers(0, 6),
    st.sampled_from([0, 6 * 3_600_000_000]),
)


def number_of(window: Calendar, time_us: int) -> int:
    """The number of a time's window, by the local date alone."""
    local = time_of(time_us).astimezone(ZoneInfo(window.zone)).replace(tzinfo=None)
    day = (local - timedelta(microseconds=window.offset_us)).date()
    match window.unit:
        case "day":
            period = (day - date(1970, 1, 1)).days
        case "week":
            week_of_epoch = date(1970, 1, 1) - timedelta((3 - window.week_start) % 7)
            period = (day - week_of_epoch).days // 7
        case "month":
            period = (day.year - 1970) * 12 + day.month - 1
        case "quarter":
            period = ((day.year - 1970) * 12 + day.month - 1) // 3
        case "year":
            period = day.year - 1970
    return period // window.count


@example(window=Calendar("day", 1, "Pacific/Apia"), times_us=[1_325_239_200_000_000], table=False)
@given(window=windows, times_us=st.lists(times, min_size=1, max_size=8), table=st.booleans())
def test_windows_hold_the_times_of_their_dates_and_tile(
    window: Calendar, times_us: list[int], table: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calendar, "_TABLE_MAX", 4096 if table else 0)
        starts, ends = window.bounds_of(np.array(times_us))
    assert window.ends_of(starts).tolist() == ends.tolist()
    for time_us, start, end in zip(times_us, starts.tolist(), ends.tolist(), strict=True):
        assert start <= time_us < end
        number = number_of(window, time_us)
        # A time of day that clocks show twice lies in the window that began at the first of both.
        assert number_of(window, end - 1) <= number
        assert number_of(window, start) >= number
        assert number_of(window, start - 1) < number_of(window, end)
        assert window.first_open(time_us) == start
        before = window.last_over(time_us)
        assert window.ends_of(np.array([before])).tolist() == [start]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2024, 3, 31), 23),
        ("Europe/Berlin", (2024, 10, 27), 25),
        ("America/New_York", (2024, 3, 10), 23),
        ("America/New_York", (2024, 11, 3), 25),
        ("America/Sao_Paulo", (2018, 11, 4), 23),
        ("America/Havana", (2023, 11, 5), 25),
        ("Europe/Berlin", (2124, 3, 26), 23),
        ("UTC", (2024, 3, 31), 24),
    ],
)
def test_days_of_changing_clocks(zone: str, day: tuple[int, int, int], hours: int) -> None:
    noon = us_of(datetime(*day, 12, tzinfo=ZoneInfo(zone)))
    starts, ends = Calendar("day", zone=zone).bounds_of(np.array([noon]))
    assert (ends - starts).tolist() == [hours * 3_600_000_000]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_times_at_the_ends_of_the_type_have_windows(unit: CalendarUnit, zone: str) -> None:
    window = Calendar(unit, zone=zone)
    for least in (WATERMARK_MIN + window.size_us, WATERMARK_MAX - 2 * window.size_us - 1000):
        times_us = np.arange(least, least + 1000, 100)
        starts, ends = window.bounds_of(times_us)
        assert ((starts <= times_us) & (times_us < ends)).all()
        days = times_us // DAY_US
        if zone == "UTC" and unit == "month":
            months = days.view("datetime64[D]").astype("datetime64[M]")
            assert (starts // DAY_US == months.astype("datetime64[D]").astype(int)).all()
        assert window.last_over(WATERMARK_MIN) == WATERMARK_MIN
        assert window.first_open(WATERMARK_MAX) > int(times_us[-1]) - window.size_us


@given(
    window=windows,
    rows=st.lists(st.tuples(times, st.integers(-60 * DAY_US, 60 * DAY_US)), min_size=1, max_size=5),
    allowed=st.sampled_from([0, DAY_US]),
    marks=st.tuples(times, times),
    stamped=st.booleans(),
)
def test_rows_are_late_when_their_window_is_over(
    window: Calendar,
    rows: list[tuple[int, int]],
    allowed: int,
    marks: tuple[int, int],
    stamped: bool,
) -> None:
    times_us = np.array([time_us for time_us, _ in rows])
    stamps = times_us + np.array([away for _, away in rows])
    found = place_rows(window, times_us, stamps if stamped else None, allowed, *marks)
    starts, ends = window.bounds_of(times_us)
    given_out, ended = marks
    late = [
        end + allowed <= max(given_out, stamp if stamped else given_out) or end <= ended
        for end, stamp in zip(ends.tolist(), stamps.tolist(), strict=True)
    ]
    assert found.starts_us.tolist() == starts.tolist()
    assert found.late.tolist() == late
    assert found.late_count == sum(late)


def test_what_is_no_window_is_refused() -> None:
    with pytest.raises(OptionError, match=r"no time zone is called 'Europe/Atlantis'; .* IANA"):
        Calendar("day", zone="Europe/Atlantis")
    with pytest.raises(OptionError, match=r"1 to 10,000 of its units; got 0 months"):
        Calendar("month", 0)


def test_windows_are_described() -> None:
    assert Calendar("month").describe() == "calendar month in UTC"
    assert Calendar("week", 2, "Asia/Kolkata").describe() == "calendar 2 weeks in Asia/Kolkata"
    assert Calendar("day", week_start=6).text != Calendar("day").text
