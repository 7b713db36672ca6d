"""The demo's job: hours of late departures, flights too late for theirs, and cancelled ones."""

from __future__ import annotations

import pyarrow as pa
import pytest

import millstream as ms
from tests.jobs.kit import load

FLIGHTS = pa.schema(
    [
        ("scheduled", pa.timestamp("us", "UTC")),
        ("origin", pa.string()),
        ("carrier", pa.string()),
        ("dep_delay", pa.float64()),
    ]
)
AIRLINES = pa.schema([("carrier", pa.string()), ("name", pa.string())])


@pytest.fixture
def harness() -> ms.testing.Harness:
    """The job, waiting for flights that may be ten minutes late."""
    found = ms.testing.Harness(
        flights=ms.testing.Topic(FLIGHTS, time="scheduled"),
        airlines=ms.testing.Topic(AIRLINES, key="carrier", table=True),
    )
    found.send("airlines", [{"carrier": "UA", "name": "United"}])
    found.start(lambda: load("late_departures").build(lateness="10m"))
    return found


def flight(time: str, delay: float | None, carrier: str = "UA") -> dict[str, object]:
    return {
        "scheduled": f"2013-01-01 {time}",
        "origin": "JFK",
        "carrier": carrier,
        "dep_delay": delay,
    }


def test_an_hour_is_given_out_when_it_is_over(harness: ms.testing.Harness) -> None:
    harness.send("flights", [flight("10:05", 20.0), flight("10:30", 40.0), flight("10:40", 5.0)])
    assert harness.rows("late_departures") == []
    harness.advance("2013-01-01 11:00")
    (hour,) = harness.rows("late_departures", "origin", "flights", "mean_delay", "worst_delay")
    assert hour == {"origin": "JFK", "flights": 2, "mean_delay": 30.0, "worst_delay": 40.0}


def test_a_flight_of_an_airline_that_is_not_known_does_not_count(
    harness: ms.testing.Harness,
) -> None:
    harness.send("flights", [flight("10:05", 20.0, "ZZ")])
    harness.end()
    assert harness.rows("late_departures") == []


def test_what_comes_after_its_hour_is_kept_apart(harness: ms.testing.Harness) -> None:
    harness.advance("2013-01-01 11:00")
    harness.send("flights", [flight("10:59", 16.0)])
    assert harness.late_rows == 1
    assert harness.rows("late_departures_late", "dep_delay") == [{"dep_delay": 16.0}]


def test_a_flight_that_never_left_was_cancelled(harness: ms.testing.Harness) -> None:
    harness.send("flights", [flight("10:05", None), flight("10:06", 0.0)])
    assert len(harness.rows("late_departures_cancelled")) == 1
