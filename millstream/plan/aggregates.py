"""What an aggregate computes of its rows: functions, their argument types and results."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import ExpressionTypeError
from millstream.log.key_hash import is_key_type
from millstream.operators.aggregate import (
    IN_ORDER,
    Aggregate,
    AggregateFunction,
    UserAggregate,
    result_type_of,
)
from millstream.operators.expression import Column, TypedExpression

__all__ = ["AggregateColumn", "AggregateFunction"]

_OF_NUMBERS = frozenset({"sum", "mean", "var", "std", "quantile"})
_SUMS = frozenset({"count", "sum", "mean", "var", "std", "quantile"})
_OF_SETS = frozenset({"count_distinct", "approx_count_distinct", "collect_set"})


@dataclass(frozen=True, slots=True)
class AggregateColumn:
    """One result column of an aggregate.

    Parameters
    ----------
    name
        The result column.
    function
        What is computed.
    argument
        Over which values; `None` only for a `count` of rows.
    location
        The user's line.
    by
        Of `arg_min` and `arg_max`: whose extreme is looked for.
    parameter, accuracy, user
        As in `operators.aggregate.Aggregate`.
    """

    name: str
    function: AggregateFunction
    argument: TypedExpression | None
    location: str = ""
    by: TypedExpression | None = None
    parameter: float | None = None
    accuracy: float = 0.01
    user: UserAggregate | None = None

    def __post_init__(self) -> None:
        assert self.argument is not None or self.function == "count"
        type_ = self.type_of_argument
        over = f"{self.location}: {self.function} needs"
        if self.function in _OF_NUMBERS and not _is_number(type_):
            message = (
                f'{over} a number; {self.name!r} is over {type_}; cast it with .cast("int") or '
                '.cast("float")'
            )
            raise ExpressionTypeError(message)
        if self.function in {"min", "max", "top_k"} and not _has_order(type_):
            message = f"{over} values that have an order; {self.name!r} is over {type_}"
            raise ExpressionTypeError(message)
        if self.by is not None and not _has_order(self.by.type):
            message = f"{over} values that have an order; {self.name!r} goes by {self.by.type}"
            raise ExpressionTypeError(message)
        if self.function in _OF_SETS and not is_key_type(type_):
            message = f"{over} values that can be a key; {self.name!r} is over {type_}"
            raise ExpressionTypeError(message)

    @property
    def type_of_argument(self) -> pa.DataType:
        """The type of the values, null type where rows are counted."""
        return pa.null() if self.argument is None else self.argument.type

    @property
    def type(self) -> pa.DataType:
        """The type of the result: a count is int64, a sum of integers too, a mean float64."""
        return result_type_of(self.function, self.type_of_argument, self.user)

    @property
    def arguments(self) -> tuple[TypedExpression, ...]:
        """What it needs of a row."""
        return tuple(each for each in (self.argument, self.by) if each is not None)

    @property
    def is_in_order(self) -> bool:
        """`True` iff the result depends on the order of rows."""
        return self.function in IN_ORDER

    @property
    def is_retractable(self) -> bool:
        """`True` iff a row can be taken back from the result.

        What keeps every value to do so must tell values apart.
        """
        if self.function == "user" and self.user is not None and self.user.retract is not None:
            return True
        return self.function == "count" or is_key_type(self.type_of_argument)

    def shrinks(self, takes_changes: bool) -> bool:
        """Return whether what is known of many rows is, as a rule, smaller than the rows are.

        Of rows that may be taken back every value has to be known, unless it is a sum.
        """
        if takes_changes:
            return self.function in _SUMS
        return self.function != "collect_list"

    def over_columns(self) -> Aggregate:
        """Return it as operators know it: over columns, not expressions."""
        argument, by = (
            each.name if isinstance(each, Column) else None for each in (self.argument, self.by)
        )
        return Aggregate(
            self.name, self.function, argument, by, self.parameter, self.accuracy, self.user
        )


def _is_number(type_: pa.DataType) -> bool:
    return bool(pat.is_integer(type_) or pat.is_floating(type_) or pat.is_decimal(type_))


def is_ordered(type_: pa.DataType) -> bool:
    """Return `True` iff values of a type are compared as numbers are."""
    return (
        bool(pat.is_integer(type_) or pat.is_floating(type_))
        or bool(pat.is_timestamp(type_) or pat.is_date(type_) or pat.is_duration(type_))
        or bool(pat.is_boolean(type_) or pat.is_time(type_))
    )


def _has_order(type_: pa.DataType) -> bool:
    return not (pat.is_nested(type_) or pat.is_null(type_) or pat.is_interval(type_))
