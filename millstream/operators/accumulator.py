"""What a windowed aggregate keeps of its values: the fields of each function, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.errors import JobError

AggregateFunction = Literal["count", "sum", "mean", "min", "max"]
Int64Array = npt.NDArray[np.int64]

_SIGN_BIT = np.int64(-(2**63))


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One result column: a function over a column of the input.

    Nulls are ignored, as in SQL; without any value `count` is 0 and the others are null.

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


class Accumulator:
    """The running form of an `Aggregate`: which fields of a slot it has, and how they fold.

    Parameters
    ----------
    aggregate
        What is computed.
    type_
        Type of the argument; null type for a count of rows.
    first_field
        Its first field in a slot's row of state.
    """

    def __init__(self, aggregate: Aggregate, type_: pa.DataType, first_field: int) -> None:
        self.aggregate = aggregate
        self.type = type_
        self.first_field = first_field
        self._as_float = aggregate.function == "mean" or bool(pat.is_floating(type_))

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the fields, as state files and inspection show them."""
        match self.aggregate.function:
            case "count":
                return ("count",)
            case "sum" | "mean":
                return ("count", "sum", "compensation") if self._as_float else ("count", "sum")
            case _:
                return ("count", self.aggregate.function)

    @property
    def float_fields(self) -> frozenset[int]:
        """Those fields, counted from `first_field`, that hold float64."""
        return frozenset(range(1, len(self.field_names))) if self._as_float else frozenset()

    def fold(
        self,
        slots: Int64Array,
        column: pa.Array | None,
        state: Int64Array,
        dirty: npt.NDArray[np.bool_],
    ) -> None:
        """Fold a batch's values into the state.

        Raises
        ------
        JobError
            Where a sum of integers leaves int64.
        """
        from millstream.operators.kernels import window_aggregate as kernels

        field = self.first_field
        function = self.aggregate.function
        valid = _valid(column)
        if function == "count":
            kernels.count_values(slots, valid, state, dirty, field)
            return
        assert column is not None
        floats = state.view(np.float64)
        if self._as_float:
            values = np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), 0.0))
            if function in {"sum", "mean"}:
                kernels.sum_floats(slots, values, valid, state, floats, field)
            else:
                kernels.extreme_floats(
                    slots, values, valid, state, floats, field, function == "max"
                )
            return
        values = self._integers(column)
        if function == "sum":
            row = kernels.sum_integers(slots, values, valid, state, field)
            if row >= 0:
                message = (
                    f"the sum {self.aggregate.name!r} of {self.aggregate.argument!r} leaves the "
                    f"range of int64 at value {values[row]}; cast the column to float first"
                )
                raise JobError(message)
        else:
            kernels.extreme_integers(slots, values, valid, state, field, function == "max")

    def result(self, rows: Int64Array) -> pa.Array:
        """Return the result column of state `rows`, shape (m, fields)."""
        field = self.first_field
        counts = rows[:, field]
        function = self.aggregate.function
        if function == "count":
            return pa.array(counts)
        null = counts == 0
        mask = null if null.any() else None
        if self._as_float:
            values = rows.view(np.float64)[:, field + 1]
            if function in {"sum", "mean"}:
                values = values + rows.view(np.float64)[:, field + 2]
            if function == "mean":
                values = values / np.maximum(counts, 1)
            result = pa.array(values, mask=mask)
            return result if function == "mean" else result.cast(self._result_type(), safe=False)
        if pat.is_uint64(self.type) and function != "sum":
            return pa.array((rows[:, field + 1] ^ _SIGN_BIT).view(np.uint64), mask=mask)
        return _to_type(pa.array(rows[:, field + 1], mask=mask), self._result_type())

    def _result_type(self) -> pa.DataType:
        if self.aggregate.function != "sum":
            return self.type
        return pa.float64() if self._as_float else pa.int64()

    def _integers(self, column: pa.Array) -> Int64Array:
        """Return the values as int64 in an order-preserving way; 0 for null."""
        if pat.is_uint64(self.type):
            if self.aggregate.function == "sum":
                greatest = pc.max(column).as_py()
                if greatest is not None and greatest >= 2**63:
                    message = (
                        f"the sum {self.aggregate.name!r} of {self.aggregate.argument!r} leaves "
                        f"the range of int64 at value {greatest}; cast the column to float first"
                    )
                    raise JobError(message)
                return np.asarray(pc.fill_null(column, 0)).view(np.int64)
            return np.asarray(pc.fill_null(column, 0)).view(np.int64) ^ _SIGN_BIT
        if not pat.is_integer(self.type) and not pat.is_boolean(self.type):
            column = column.cast(pa.int32() if self.type.bit_width == 32 else pa.int64())
        return np.asarray(pc.fill_null(column.cast(pa.int64()), 0))


def _to_type(numbers: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return int64 `numbers` as values of an integer, boolean or temporal type."""
    if not pat.is_integer(type_) and not pat.is_boolean(type_) and type_.bit_width == 32:
        numbers = numbers.cast(pa.int32())
    return numbers.cast(type_)


def _valid(column: pa.Array | None) -> npt.NDArray[np.bool_]:
    """Return which values are not null; empty where none is null."""
    if column is None or column.null_count == 0:
        return np.empty(0, dtype=np.bool_)
    valid: npt.NDArray[np.bool_] = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return valid
