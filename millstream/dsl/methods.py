"""The `.str` and `.dt` sides of an expression."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.dsl.expressions import Expression


@dataclass(frozen=True, slots=True)
class StringMethods:
    """Functions on text; null stays null. Positions and lengths count characters.

    Parameters
    ----------
    expression
        An expression of type string.
    """

    expression: Expression

    def length(self) -> Expression:
        """Return the number of characters, int64."""
        return self.expression.call("str.length")

    def upper(self) -> Expression:
        """Return the text in upper case."""
        return self.expression.call("str.upper")

    def lower(self) -> Expression:
        """Return the text in lower case."""
        return self.expression.call("str.lower")

    def strip(self) -> Expression:
        """Return the text without white space at both ends."""
        return self.expression.call("str.strip")

    def contains(self, pattern: str) -> Expression:
        """Return whether `pattern`, taken literally, occurs in the text."""
        return self.expression.call("str.contains", pattern=pattern)

    def starts_with(self, pattern: str) -> Expression:
        """Return whether the text begins with `pattern`."""
        return self.expression.call("str.starts_with", pattern=pattern)

    def ends_with(self, pattern: str) -> Expression:
        """Return whether the text ends with `pattern`."""
        return self.expression.call("str.ends_with", pattern=pattern)

    def slice(self, start: int, length: int | None = None) -> Expression:
        """Return `length` characters from position `start` (0 is the first), or all the rest."""
        return self.expression.call("str.slice", start=start, length=length)

    def replace(self, pattern: str, replacement: str) -> Expression:
        """Return the text with each `pattern`, taken literally, replaced."""
        return self.expression.call("str.replace", pattern=pattern, replacement=replacement)


@dataclass(frozen=True, slots=True)
class TimeMethods:
    """Functions on timestamps and dates, in the type's time zone (UTC where it has none).

    Parameters
    ----------
    expression
        An expression of a timestamp or date type.
    """

    expression: Expression

    def year(self) -> Expression:
        """Return the year, int64."""
        return self.expression.call("dt.year")

    def month(self) -> Expression:
        """Return the month, 1 to 12."""
        return self.expression.call("dt.month")

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

    def weekday(self) -> Expression:
        """Return the day of the week; Monday is 0."""
        return self.expression.call("dt.weekday")

    def day_of_year(self) -> Expression:
        """Return the day of the year, 1 to 366."""
        return self.expression.call("dt.day_of_year")

    def truncate(self, every: str | timedelta) -> Expression:
        """Return the time cut down to a multiple of `every` (e.g. `"1h"`) since 1970."""
        return self.expression.call("dt.truncate", every=every)
