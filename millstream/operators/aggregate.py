"""A result column of a windowed aggregate: a function over a column of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.types as pat

AggregateFunction = Literal["count", "sum", "mean", "min", "max"]


def slot_width(aggregates: Sequence[Aggregate]) -> int:
    """Return how many fields a slot has that keeps what `aggregates` need.

    All functions over an argument share a count; sums have two fields, extremes one each.
    """
    functions: dict[str | None, set[AggregateFunction]] = {}
    for each in aggregates:
        functions.setdefault(each.argument, set()).add(each.function)
    return sum(
        1 + 2 * bool(wanted & {"sum", "mean"}) + len(wanted & {"min", "max"})
        for wanted in functions.values()
    )


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One result column: a function over a column of the input.

    Nulls are ignored, as in SQL; without any value `count` is 0 and the others are null.
    Counts, extremes and sums of integers are exact; sums and means of floats agree to 1e-12,
    relative to the sum of the values' sizes, whatever the order.

    Parameters
    ----------
    name
        The result column.
    function
        `count` (of rows where `argument` is `None`), `sum`, `mean`, `min`, `max`.
    argument
        Column of the input.
    """

    name: str
    function: AggregateFunction
    argument: str | None

    def result_type(self, schema: pa.Schema) -> pa.DataType:
        """Return the type of the result over an input of `schema`."""
        match self.function:
            case "count":
                return pa.int64()
            case "mean":
                return pa.float64()
            case "sum":
                floating = pat.is_floating(schema.field(self.argument).type)
                return pa.float64() if floating else pa.int64()
            case _:
                return schema.field(self.argument).type
