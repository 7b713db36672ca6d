"""What can be computed of rows by key and window: `count`, `sum`, `first`, `quantile` and others.

Each is used as a keyword of `agg`, which names the result: `agg(worst=ms.max("delay"))`.
Nulls are left out as in SQL; without any value the result is null (a count is 0).

How each is merged, of panes, sessions, and batches that were combined before they crossed:

==========================  ====================================================================
`count`, `sum`, `mean`      by addition; sums of integers and decimals are exact, of floats to 1e-12
`var`, `std`                by their means and squared distances, to 1e-9
`min`, `max`                the lesser, the greater one
`first`, `last`, `arg_min`  the row that comes first by its rank, event time and source position
`collect_list`              all values, in the order of event time and source position
`count_distinct` and sets   the union
`quantile`                  by addition of the buckets of a DDSketch
`approx_count_distinct`     the greater rank of each register of a HyperLogLog
`top_k`                     the greatest of both
`aggregate`                 by the function that you give
==========================  ====================================================================

How a row is taken back, over changes (of a table, of another aggregate):

==========================  ====================================================================
`count`, `sum`, `mean`      by subtraction; exact, also for floats
`var`, `std`                by subtraction of sums and squares, which are kept exactly
`quantile`                  by subtraction from its bucket
`min`, `max`, `top_k`,      every different value is kept, with how often it is there
`count_distinct`, sets
`approx_count_distinct`     every different hash is kept: no sketch can forget; so it is exact, but
                            for 8 bytes a value instead of the value itself
`first`, `last`,            every different row is kept: its time, its value and what it is
`arg_min`, `arg_max`,       compared by; of one time the least value comes first
`collect_list`
`aggregate`                 by `retract`, if you give it; else from all values, which are kept
==========================  ====================================================================

A value that is kept takes about 50 bytes (numbers of `min` and `max` 16), and a text its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from millstream.dsl.binding import Scope
from millstream.dsl.expressions import Expression, col
from millstream.dsl.location import user_location
from millstream.errors import OptionError
from millstream.operators.aggregate import AggregateFunction, UserAggregate
from millstream.plan.aggregates import AggregateColumn


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
    by, parameter, accuracy, user
        As in `plan.aggregates.AggregateColumn`.
    """

    function: AggregateFunction
    argument: Expression | None
    location: str
    by: Expression | None = None
    parameter: float | None = None
    accuracy: float = 0.01
    user: UserAggregate | None = None

    def bound(self, name: str, scope: Scope) -> AggregateColumn:
        """Return it as the result column `name` over rows of a schema."""
        argument, by = (
            None if each is None else scope.bind(each) for each in (self.argument, self.by)
        )
        return AggregateColumn(
            name,
            self.function,
            argument,
            self.location,
            by,
            self.parameter,
            self.accuracy,
            self.user,
        )


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
    """Return the least value of a type that has an order, e.g. a number, a time, a text."""
    return _aggregate("min", values)


def max(values: str | Expression) -> Aggregate:  # noqa: A001  # SQL's word, used as ms.max
    """Return the greatest value of a type that has an order, e.g. a number, a time, a text."""
    return _aggregate("max", values)


def var(values: str | Expression) -> Aggregate:
    """Return the variance of a sample of numbers, float64; null of less than two values."""
    return _aggregate("var", values)


def std(values: str | Expression) -> Aggregate:
    """Return the standard deviation of a sample of numbers, as `var`."""
    return _aggregate("std", values)


def count_distinct(values: str | Expression) -> Aggregate:
    """Return how many different values there are, exactly; int64. Keeps each value."""
    return _aggregate("count_distinct", values)


def approx_count_distinct(values: str | Expression) -> Aggregate:
    """Return about how many different values there are, to 1.6 %, by a HyperLogLog; int64."""
    return _aggregate("approx_count_distinct", values)


def quantile(values: str | Expression, q: float, *, accuracy: float = 0.01) -> Aggregate:
    """Return a quantile of numbers, float64, by a DDSketch.

    Parameters
    ----------
    values
        The numbers; NaN is the greatest.
    q
        Which quantile, from 0 to 1: 0.5 is the median.
    accuracy
        How far the result may be from the true value, relative to it; between 0 and 1.
    """
    location = user_location()
    if not 0 <= q <= 1:
        message = f"{location}: a quantile lies between 0 and 1; got q={q!r}"
        raise OptionError(message)
    if not 1e-6 <= accuracy < 1:
        message = f"{location}: an accuracy lies between 1e-6 and 1; got {accuracy!r}"
        raise OptionError(message)
    return Aggregate("quantile", _column(values), location, None, float(q), float(accuracy))


def first(values: str | Expression) -> Aggregate:
    """Return the value of the first row by event time and source position."""
    return _aggregate("first", values)


def last(values: str | Expression) -> Aggregate:
    """Return the value of the last row by event time and source position."""
    return _aggregate("last", values)


def arg_min(values: str | Expression, by: str | Expression) -> Aggregate:
    """Return the value of the row in which `by` is least; of several, of the first of them."""
    return Aggregate("arg_min", _column(values), user_location(), _column(by))


def arg_max(values: str | Expression, by: str | Expression) -> Aggregate:
    """Return the value of the row in which `by` is greatest; of several, of the first of them."""
    return Aggregate("arg_max", _column(values), user_location(), _column(by))


def collect_list(values: str | Expression) -> Aggregate:
    """Return all values as a list, in the order of event time and source position."""
    return _aggregate("collect_list", values)


def collect_set(values: str | Expression) -> Aggregate:
    """Return the different values as a list, ascending."""
    return _aggregate("collect_set", values)


def top_k(values: str | Expression, k: int) -> Aggregate:
    """Return the `k` greatest values as a list, descending."""
    location = user_location()
    if not 1 <= k <= 1_000_000:
        message = f"{location}: top_k gives from 1 to 1,000,000 values; got k={k!r}"
        raise OptionError(message)
    return Aggregate("top_k", _column(values), location, None, k)


def aggregate(
    values: str | Expression,
    *,
    init: Callable[[], Any],
    update: Callable[[Any, Any], Any],
    merge: Callable[[Any, Any], Any],
    finish: Callable[[Any], Any],
    state: pa.DataType,
    returns: pa.DataType,
    retract: Callable[[Any, Any], Any] | None = None,
) -> Aggregate:
    """Return an aggregate of your own, which runs in Python, value by value.

    It must not matter in which order values come and states are merged.

    Parameters
    ----------
    values
        The values; nulls are left out.
    init
        Gives the state before any value.
    update
        Gives the state after a value, of the state and the value.
    merge
        Gives the state of what two states have seen.
    finish
        Gives the result of a state.
    state, returns
        The types of a state, as it is kept in checkpoints, and of the result.
    retract
        Gives the state before a value, of the state and the value, for changes that take values
        back. Without it every value is kept there, and each result computed anew from all of its
        key.

    Examples
    --------
    >>> product = aggregate(
    ...     "growth",
    ...     init=lambda: 1.0,
    ...     update=lambda product, value: product * value,
    ...     merge=lambda one, two: one * two,
    ...     finish=lambda product: product,
    ...     state=pa.float64(),
    ...     returns=pa.float64(),
    ... )
    >>> product.function
    'user'
    """
    name = getattr(finish, "__qualname__", "user")
    user = UserAggregate(init, update, merge, finish, state, returns, name, retract)
    return Aggregate("user", _column(values), user_location(), user=user)


def _aggregate(function: AggregateFunction, values: str | Expression) -> Aggregate:
    return Aggregate(function, _column(values), user_location())


def _column(values: str | Expression) -> Expression:
    return col(values) if isinstance(values, str) else values
