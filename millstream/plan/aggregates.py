"""What a window computes of its rows: functions, their argument types and results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import ExpressionTypeError
from millstream.operators.expression import TypedExpression

AggregateFunction = Literal["count", "sum", "mean", "min", "max"]


@dataclass(frozen=True, slots=True)
class AggregateColumn:
    """One result column of a window.

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
    """

    name: str
    function: AggregateFunction
    argument: TypedExpression | None
    location: str = ""

    def __post_init__(self) -> None:
        assert self.argument is not None or self.function == "count"
        if self.function in {"sum", "mean"} and not _is_number(self.type_of_argument):
            message = (
                f"{self.location}: {self.function} needs a number; {self.name!r} is over "
                f'{self.type_of_argument}; cast it with .cast("int") or .cast("float")'
            )
            raise ExpressionTypeError(message)
        if self.function in {"min", "max"} and not is_ordered(self.type_of_argument):
            message = (
                f"{self.location}: {self.function} needs a number, a time or a date; "
                f"{self.name!r} is over {self.type_of_argument}"
            )
            raise ExpressionTypeError(message)

    @property
    def type_of_argument(self) -> pa.DataType:
        """The type of the values, null type where rows are counted."""
        return pa.null() if self.argument is None else self.argument.type

    @property
    def type(self) -> pa.DataType:
        """The type of the result: a count is int64, a sum of integers too, a mean float64."""
        match self.function:
            case "count":
                return pa.int64()
            case "mean":
                return pa.float64()
            case "sum":
                return pa.float64() if pat.is_floating(self.type_of_argument) else pa.int64()
            case "min" | "max":
                return self.type_of_argument


def _is_number(type_: pa.DataType) -> bool:
    return bool(pat.is_integer(type_) or pat.is_floating(type_))


def is_ordered(type_: pa.DataType) -> bool:
    """Return `True` iff values of a type are compared as numbers are."""
    return (
        _is_number(type_)
        or bool(pat.is_timestamp(type_) or pat.is_date(type_) or pat.is_duration(type_))
        or bool(pat.is_boolean(type_) or pat.is_time(type_))
    )
