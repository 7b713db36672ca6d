"""What can be computed of a window's rows: `count`, `sum`, `mean`, `min`, `max`.

Each is used as a keyword of `agg`, which names the result: `agg(worst=ms.max("delay"))`.
Nulls are left out as in SQL; without any value the result is null (a count is 0).
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.dsl.expressions import Expression, col
from millstream.dsl.location import user_location
from millstream.plan.aggregates import AggregateFunction


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate that waits for the name of its result and the schema of its rows.

    Parameters
    ----------
    function
        What is computed.
    argument
        Over which values; `None` to count rows.
    location
        The user's line.
    """

    function: AggregateFunction
    argument: Expression | None
    location: str


def count(values: str | Expression | None = None) -> Aggregate:
    """Return the number of rows or, with `values`, of rows whose value is not null; int64."""
    if values is None:
        return Aggregate("count", None, user_location())
    return _aggregate("count", values)


def sum(values: str | Expression) -> Aggregate:  # noqa: A001  # SQL's word, used as ms.sum
    """Return the sum of numbers: of integers in int64, where an overflow fails the job."""
    return _aggregate("sum", values)


def mean(values: str | Expression) -> Aggregate:
    """Return the arithmetic mean of numbers, float64."""
    return _aggregate("mean", values)


def min(values: str | Expression) -> Aggregate:  # noqa: A001  # SQL's word, used as ms.min
    """Return the least number, time or date, in its own type."""
    return _aggregate("min", values)


def max(values: str | Expression) -> Aggregate:  # noqa: A001  # SQL's word, used as ms.max
    """Return the greatest number, time or date, in its own type."""
    return _aggregate("max", values)


def _aggregate(function: AggregateFunction, values: str | Expression) -> Aggregate:
    argument = col(values) if isinstance(values, str) else values
    return Aggregate(function, argument, user_location())
