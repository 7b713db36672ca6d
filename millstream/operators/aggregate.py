"""A result column of an aggregate: a function over a column of the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pat

AggregateFunction = Literal[
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "var",
    "std",
    "count_distinct",
    "approx_count_distinct",
    "quantile",
    "first",
    "last",
    "arg_min",
    "arg_max",
    "collect_list",
    "collect_set",
    "top_k",
    "user",
]

IN_ORDER: frozenset[AggregateFunction] = frozenset(
    {"first", "last", "arg_min", "arg_max", "collect_list"}
)
"""Functions whose result depends on the order of rows: event time, then source position."""

DECIMAL_DIGITS_MAX = 38


@dataclass(frozen=True, slots=True)
class UserAggregate:
    """A user's own aggregate, in Python.

    Parameters
    ----------
    init
        Gives the state of a slot that has seen nothing.
    update
        Gives the state after a value, of the state and the value.
    merge
        Gives the state of what two states have seen.
    finish
        Gives the result of a state.
    state_type, type
        Of the state, as it is kept in snapshots, and of the result.
    name
        As messages call it.
    retract
        Gives the state before a value, of the state and the value; `None`: over changes the
        result is computed anew from all values.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Any], Any]
    merge: Callable[[Any, Any], Any]
    finish: Callable[[Any], Any]
    state_type: pa.DataType
    type: pa.DataType
    name: str = "user"
    retract: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One result column: a function over a column of the input.

    Nulls are ignored, as in SQL; without any value counts are 0 and the others are null.
    Counts, extremes, sets, lists and sums of integers and decimals are exact; sums and means of
    floats agree to 1e-12, relative to the sum of the values' sizes, whatever the order; variances
    to 1e-9. Sketches do not depend on the order.

    Parameters
    ----------
    name
        The result column.
    function
        `count` counts rows where `argument` is `None`.
    argument
        Column of the input.
    by
        Of `arg_min` and `arg_max`: the column whose extreme is looked for.
    parameter
        Of `quantile`: which, from 0 to 1. Of `top_k`: how many.
    accuracy
        Of `quantile`: how far it may be from the true one, relative to it.
    user
        What `user` computes.
    """

    name: str
    function: AggregateFunction
    argument: str | None
    by: str | None = None
    parameter: float | None = None
    accuracy: float = 0.01
    user: UserAggregate | None = None

    def result_type(self, schema: pa.Schema) -> pa.DataType:
        """Return the type of the result over an input of `schema`."""
        argument = pa.null() if self.argument is None else schema.field(self.argument).type
        return result_type_of(self.function, argument, self.user)

    @property
    def function_text(self) -> str:
        """The function as `explain()` calls it."""
        return self.function if self.user is None else self.user.name

    @property
    def parameter_text(self) -> str:
        """What follows the columns, as `explain()` shows it."""
        return "" if self.parameter is None else f", {self.parameter:g}"

    def describe(self) -> str:
        """Return it as `explain()` shows it."""
        columns = ", ".join(each for each in (self.argument, self.by) if each is not None)
        return f"{self.name} = {self.function_text}({columns}{self.parameter_text})"


def result_type_of(
    function: AggregateFunction, argument: pa.DataType, user: UserAggregate | None = None
) -> pa.DataType:
    """Return the type of a function's result over values of type `argument`."""
    match function:
        case "count" | "count_distinct" | "approx_count_distinct":
            return pa.int64()
        case "mean" | "var" | "std" | "quantile":
            return pa.float64()
        case "sum" if pat.is_decimal(argument):
            return pa.decimal128(DECIMAL_DIGITS_MAX, argument.scale)
        case "sum":
            return pa.float64() if pat.is_floating(argument) else pa.int64()
        case "collect_list" | "collect_set" | "top_k":
            return pa.list_(argument)
        case "user":
            assert user is not None
            return user.type
        case _:
            return argument
