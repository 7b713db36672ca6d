"""The job of `jobs/late_departures.py` once more, row by row in plain Python.

It is slow and obvious on purpose: it shares no code with the engine, so that where both agree
on every hour and on every flight that came too late, it is not because they share a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, object]

HOUR_US = 3_600_000_000
LATE_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Hour:
    """One airport's late departures in one scheduled hour; delays in minutes."""

    flights: int
    mean_delay: float
    worst_delay: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the job must give.

    Parameters
    ----------
    hours
        By airport and start of the hour (microseconds since 1970 UTC).
    late
        Flights that came too late for their hour, as (scheduled, carrier, flight, origin).
    cancelled
        How many flights never departed.
    """

    hours: dict[tuple[str, int], Hour]
    late: list[tuple[int, str, int, str]]
    cancelled: int


def late_departures(partitions: Sequence[Iterable[Row]], lateness_us: int) -> Outcome:
    """Return the outcome over the rows of each partition, in the order of their offsets.

    `scheduled` is an int: microseconds since 1970 UTC. A row is late when its hour ended at
    or before the watermark of its own partition just before it: the largest scheduled time
    seen there, less `lateness_us`. Every row moves the watermark, counted or not.
    """
    delays: dict[tuple[str, int], list[int]] = {}
    late: list[tuple[int, str, int, str]] = []
    cancelled = 0
    for rows in partitions:
        watermark_us: int | None = None
        for row in rows:
            scheduled_us, delay = row["scheduled"], row["dep_delay"]
            assert isinstance(scheduled_us, int)
            before_us = watermark_us
            reached_us = scheduled_us - lateness_us
            watermark_us = reached_us if before_us is None else max(before_us, reached_us)
            if delay is None:
                cancelled += 1
                continue
            assert isinstance(delay, int)
            if delay <= LATE_MINUTES:
                continue
            start_us = scheduled_us - scheduled_us % HOUR_US
            if before_us is not None and start_us + HOUR_US <= before_us:
                late.append(_identity(row))
            else:
                delays.setdefault((str(row["origin"]), start_us), []).append(delay)
    hours = {key: Hour(len(each), sum(each) / len(each), max(each)) for key, each in delays.items()}
    return Outcome(hours, sorted(late), cancelled)


def _identity(row: Row) -> tuple[int, str, int, str]:
    scheduled, flight = row["scheduled"], row["flight"]
    assert isinstance(scheduled, int)
    assert isinstance(flight, int)
    return scheduled, str(row["carrier"]), flight, str(row["origin"])
