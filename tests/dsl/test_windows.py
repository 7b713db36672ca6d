"""How a user names windows, and what is said where they are none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import millstream as ms
from millstream.errors import OptionError
from millstream.windows.calendar import Calendar
from millstream.windows.hopping import Hopping
from millstream.windows.tumbling import Tumbling

DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (ms.tumbling("90s"), Tumbling(90_000_000)),
        (ms.tumbling(timedelta(weeks=1)), Tumbling(7 * DAY_US)),
        (ms.tumbling("1 day"), Tumbling(DAY_US)),
        (ms.tumbling("2d", offset="6h"), Tumbling(2 * DAY_US, DAY_US // 4)),
        (ms.tumbling("1d", timezone="Asia/Kolkata"), Calendar("day", zone="Asia/Kolkata")),
        (ms.tumbling("day", timezone="UTC"), Tumbling(DAY_US)),
        (ms.tumbling("1w"), Calendar("week")),
        (ms.tumbling("2 weeks", week_start="sunday"), Calendar("week", 2, week_start=6)),
        (ms.tumbling("1 month", offset="6h"), Calendar("month", offset_us=DAY_US // 4)),
        (ms.tumbling("3months"), Calendar("month", 3)),
        (ms.tumbling("quarter"), Calendar("quarter")),
        (ms.tumbling("1 year"), Calendar("year")),
        (ms.hopping("10m", "4m"), Hopping(600_000_000, 240_000_000)),
        (ms.hopping("1h", "15m", offset="20m"), Hopping(3_600_000_000, 900_000_000, 300_000_000)),
    ],
)
def test_windows_are_what_their_names_say(given: object, wanted: object) -> None:
    assert given == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ms.tumbling("1 fortnight"), r"size='1 fortnight' is no duration"),
        (lambda: ms.tumbling("0 months"), r"size='0 months' is no duration"),
        (lambda: ms.tumbling("1h", timezone="Asia/Kolkata"), "a time zone is for windows of days"),
        (lambda: ms.tumbling("1d", timezone="Mars/Olympus"), "no time zone is called"),
        (lambda: ms.tumbling("1w", week_start=_any("today")), "week_start is a day, e.g. 'monday'"),
        (lambda: ms.hopping("10m", "0s"), "a window's slide must be more than 0; got '0s'"),
        (lambda: ms.hopping("10m", "11m"), "must be positive and at most its size"),
        (lambda: ms.hopping("1h", timedelta(microseconds=7)), "choose a longer slide"),
    ],
)
def test_what_is_no_window_is_an_error_at_the_users_line(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=rf"test_windows.py:\d+: .*{message}"):
        make()


def _any(value: Any) -> Any:
    return value
