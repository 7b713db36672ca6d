from __future__ import annotations

from millstream.cli.demo.model import HOUR_US, Hour, late_departures

MINUTE_US = 60_000_000


def row(minute: int, delay: int | None, flight: int = 1, origin: str = "JFK") -> dict[str, object]:
    return {
        "scheduled": minute * MINUTE_US,
        "dep_delay": delay,
        "carrier": "AA",
        "flight": flight,
        "origin": origin,
    }


def test_hours_count_what_is_over_fifteen_minutes_late() -> None:
    outcome = late_departures(
        [[row(0, 16), row(59, 20), row(60, 15), row(61, None), row(62, 30, origin="LGA")]], HOUR_US
    )
    assert outcome.hours == {("JFK", 0): Hour(2, 18.0, 20), ("LGA", HOUR_US): Hour(1, 30.0, 30)}
    assert outcome.cancelled == 1
    assert outcome.late == []


def test_a_row_is_late_when_its_hour_ended_at_the_watermark_before_it() -> None:
    # minute      0 ..... 59 | 60 ....... 70
    # rows          30, 59         70          watermark after 70, lateness 10 min: 60
    ten_minutes = 10 * MINUTE_US
    at_the_end = [row(30, 20), row(70, 20, flight=2), row(59, 20, flight=3)]
    outcome = late_departures([at_the_end], ten_minutes)
    assert outcome.late == [(59 * MINUTE_US, "AA", 3, "JFK")]
    before_the_end = [row(30, 20), row(69, 20, flight=2), row(59, 20, flight=3)]
    assert late_departures([before_the_end], ten_minutes).late == []


def test_every_row_moves_the_watermark_even_one_that_is_not_counted() -> None:
    outcome = late_departures([[row(300, None), row(0, 20)]], HOUR_US)
    assert len(outcome.late) == 1


def test_each_partition_has_its_own_watermark() -> None:
    apart = late_departures([[row(300, 20)], [row(0, 20, flight=2)]], HOUR_US)
    together = late_departures([[row(300, 20), row(0, 20, flight=2)]], HOUR_US)
    assert (len(apart.late), len(together.late)) == (0, 1)


def test_hours_before_1970_start_at_the_hour() -> None:
    outcome = late_departures([[row(-1, 20)]], HOUR_US)
    assert list(outcome.hours) == [("JFK", -HOUR_US)]
