"""The `.dt` side of an expression."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from millstream.dsl.expressions import Expression

Unit = Literal["s", "ms", "us", "ns"]


@dataclass(frozen=True, slots=True)
class TimeMethods:
    """Functions on timestamps and dates, in the type's time zone (UTC where it has none).

    Parameters
    ----------
    expression
        An expression of a timestamp or date type; of a duration for `total_…`.
    """

    expression: Expression

    def year(self) -> Expression:
        """Return the year, int64."""
        return self.expression.call("dt.year")

    def iso_year(self) -> Expression:
        """Return the year that the ISO week belongs to."""
        return self.expression.call("dt.iso_year")

    def quarter(self) -> Expression:
        """Return the quarter, 1 to 4."""
        return self.expression.call("dt.quarter")

    def month(self) -> Expression:
        """Return the month, 1 to 12."""
        return self.expression.call("dt.month")

    def week(self) -> Expression:
        """Return the ISO week, 1 to 53."""
        return self.expression.call("dt.week")

    def day(self) -> Expression:
        """Return the day of the month, 1 to 31."""
        return self.expression.call("dt.day")

    def hour(self) -> Expression:
        """Return the hour, 0 to 23."""
        return self.expression.call("dt.hour")

    def minute(self) -> Expression:
        """Return the minute, 0 to 59."""
        return self.expression.call("dt.minute")

    def second(self) -> Expression:
        """Return the second, 0 to 59."""
        return self.expression.call("dt.second")

    def millisecond(self) -> Expression:
        """Return the milliseconds since the whole second, 0 to 999."""
        return self.expression.call("dt.millisecond")

    def microsecond(self) -> Expression:
        """Return the microseconds since the whole second, 0 to 999,999."""
        return self.expression.call("dt.microsecond")

    def nanosecond(self) -> Expression:
        """Return the nanoseconds since the whole second, 0 to 999,999,999."""
        return self.expression.call("dt.nanosecond")

    def weekday(self) -> Expression:
        """Return the day of the week; Monday is 0 (in Polars it is 1)."""
        return self.expression.call("dt.weekday")

    def day_of_year(self) -> Expression:
        """Return the day of the year, 1 to 366."""
        return self.expression.call("dt.day_of_year")

    def ordinal_day(self) -> Expression:
        """Return the day of the year, 1 to 366; the same as `day_of_year`."""
        return self.expression.call("dt.day_of_year")

    def days_in_month(self) -> Expression:
        """Return the number of days of the month, 28 to 31."""
        return self.expression.call("dt.days_in_month")

    def is_leap_year(self) -> Expression:
        """Return whether the year has a 29th of February."""
        return self.expression.call("dt.is_leap_year")

    def date(self) -> Expression:
        """Return the day."""
        return self.expression.call("dt.date")

    def time(self) -> Expression:
        """Return the time of day."""
        return self.expression.call("dt.time")

    def month_start(self) -> Expression:
        """Return the first day of the month, at the same time of day."""
        return self.expression.call("dt.month_start")

    def month_end(self) -> Expression:
        """Return the last day of the month, at the same time of day."""
        return self.expression.call("dt.month_end")

    def truncate(self, every: str | timedelta) -> Expression:
        """Return the time cut down to a multiple of `every`, on the clock of the type's zone.

        Parameters
        ----------
        every
            A duration, e.g. `"15m"`, whose multiples count from 1970; or calendar units: `"1w"`
            (from Monday), `"1mo"`, `"1q"`, `"1y"`.
        """
        return self.expression.call("dt.truncate", every=every)

    def offset_by(self, by: str | timedelta) -> Expression:
        """Return the time so much later, e.g. `"1mo2d"`, `"-1y"`, `"90m"`.

        Months and days are of the calendar, in the type's zone; the 31st of a month that has none
        is its last day. Hours and what is smaller is time that passes.
        """
        return self.expression.call("dt.offset_by", by=by)

    def convert_time_zone(self, time_zone: str) -> Expression:
        """Return the same moment in another zone; a time without a zone is in UTC."""
        return self.expression.call("dt.convert_time_zone", zone=time_zone)

    def replace_time_zone(
        self,
        time_zone: str | None,
        *,
        ambiguous: Literal["raise", "earliest", "latest"] = "raise",
        non_existent: Literal["raise", "earliest", "latest"] = "raise",
    ) -> Expression:
        """Return the moment at which the same clock time is shown in another zone.

        Parameters
        ----------
        time_zone
            `None`: the clock time, without a zone.
        ambiguous, non_existent
            What happens to a time that the clocks show twice, or skip: it fails its row, or is
            the earlier or later moment there is.
        """
        options = {"ambiguous": ambiguous, "nonexistent": non_existent}
        return self.expression.call("dt.replace_time_zone", zone=time_zone, **options)

    def strftime(self, format: str) -> Expression:  # noqa: A002  # as in Polars
        """Return the time as text, by a format of C's `strftime`; seconds have their fraction."""
        return self.expression.call("dt.strftime", format=format)

    def to_string(self, format: str) -> Expression:  # noqa: A002  # as in Polars
        """Return the time as text; the same as `strftime`."""
        return self.expression.call("dt.strftime", format=format)

    def epoch(self, time_unit: Literal["s", "ms", "us", "ns", "d"] = "us") -> Expression:
        """Return the count of a unit since 1970 UTC, floored, int64."""
        return self.expression.call("dt.epoch", unit=time_unit)

    def timestamp(self, time_unit: Unit = "us") -> Expression:
        """Return the count of a unit since 1970 UTC; the same as `epoch`."""
        return self.expression.call("dt.epoch", unit=time_unit)

    def cast_time_unit(self, time_unit: Unit) -> Expression:
        """Return the moment or duration in another unit."""
        return self.expression.call("dt.cast_time_unit", unit=time_unit)

    def total_days(self) -> Expression:
        """Return a duration in days, int64, the rest cut off."""
        return self.expression.call("dt.total", unit_ns=86_400 * 10**9)

    def total_hours(self) -> Expression:
        """Return a duration in hours, int64, the rest cut off."""
        return self.expression.call("dt.total", unit_ns=3_600 * 10**9)

    def total_minutes(self) -> Expression:
        """Return a duration in minutes, int64, the rest cut off."""
        return self.expression.call("dt.total", unit_ns=60 * 10**9)

    def total_seconds(self) -> Expression:
        """Return a duration in seconds, int64, the rest cut off."""
        return self.expression.call("dt.total", unit_ns=10**9)

    def total_milliseconds(self) -> Expression:
        """Return a duration in milliseconds, int64, the rest cut off."""
        return self.expression.call("dt.total", unit_ns=10**6)

    def total_microseconds(self) -> Expression:
        """Return a duration in microseconds, int64, the rest cut off."""
        return self.expression.call("dt.total", unit_ns=10**3)

    def total_nanoseconds(self) -> Expression:
        """Return a duration in nanoseconds, int64."""
        return self.expression.call("dt.total", unit_ns=1)
