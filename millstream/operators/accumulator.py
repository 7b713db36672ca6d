"""What a windowed aggregate keeps of one argument's values, and the results it gives of them.

All functions over an argument share one accumulator, which folds a batch's values in one pass::

    mean(delay), max(delay)  ─▶  fields of a slot: count │ sum, low │ sum, high │ max
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import JobError
from millstream.operators.aggregate import Aggregate, AggregateFunction
from millstream.operators.arrow_buffers import (
    array_of,
    bits_of,
    storage_dtype,
    valid_bytes_of,
    values_of,
)
from millstream.operators.moments import DecimalAccumulator, MomentAccumulator

Int64Array = npt.NDArray[np.int64]

_SIGN_BIT = np.int64(-(2**63))
_NOT_KEPT = -1


class Accumulator:
    """The fields of a slot that hold what is known of an argument's values.

    Parameters
    ----------
    argument
        Column of the input; `None` where rows are counted.
    type_
        Its type; null type for rows.
    functions
        What is asked of it.
    first_field
        Its first field in a slot's row of state.
    """

    def __init__(
        self,
        argument: str | None,
        type_: pa.DataType,
        functions: frozenset[AggregateFunction],
        first_field: int,
    ) -> None:
        self.argument = argument
        self.type = type_
        self.first_field = first_field
        self._is_float = bool(pat.is_floating(type_))
        names = ["count"]
        if functions & {"sum", "mean"}:
            names += ["sum", "sum_lost"] if self._is_float else ["sum", "sum_high"]
        names += sorted(functions & {"min", "max"})
        self._names = names

    @property
    def width(self) -> int:
        """How many fields it has."""
        return len(self._names)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the fields, as state files and inspection show them."""
        return tuple(
            "rows" if self.argument is None else f"{self.argument}.{n}" for n in self._names
        )

    @property
    def float_fields(self) -> frozenset[int]:
        """Those fields, counted from `first_field`, that hold float64."""
        return frozenset(range(1, self.width)) if self._is_float else frozenset()

    def fold(self, slots: Int64Array, column: pa.Array | None, state: Int64Array) -> None:
        """Fold a batch's values into the state; `column` is `None` where rows are counted."""
        from millstream.operators.kernels import window_aggregate as kernels

        count = self.first_field
        valid = valid_bytes_of(column)
        if column is None or self.width == 1:
            kernels.count_values(slots, valid, state, count)
            return
        fields = (count, self._field("sum"), self._field("min"), self._field("max"))
        if self._is_float:
            values = values_of(column).astype(np.float64, copy=False)
            kernels.fold_floats(slots, values, valid, state, state.view(np.float64), *fields)
            return
        flip = _SIGN_BIT if pat.is_uint64(self.type) else np.int64(0)
        kernels.fold_integers(slots, _integers(column), valid, flip, state, *fields)

    def merge(self, slots: Int64Array, rows: Int64Array, state: Int64Array) -> None:
        """Merge the fields of other slots, `rows`, shape (n, fields), into the state's slots."""
        from millstream.operators.kernels import window_aggregate as kernels

        count = self.first_field
        fields = (count, self._field("sum"), self._field("min"), self._field("max"))
        if self._is_float:
            views = rows.view(np.float64), state.view(np.float64)
            kernels.merge_floats(slots, rows, views[0], state, views[1], *fields)
            return
        flip = _SIGN_BIT if pat.is_uint64(self.type) else np.int64(0)
        kernels.merge_integers(slots, rows, flip, state, *fields)

    def result(self, aggregate: Aggregate, rows: Int64Array) -> pa.Array:
        """Return a result column over state `rows`, shape (m, fields).

        Raises
        ------
        JobError
            Where a sum of integers is beyond int64.
        """
        counts = rows[:, self.first_field]
        match aggregate.function:
            case "count":
                return pa.array(counts.copy())
            case "mean":
                return array_of(self._means(rows, counts), pa.float64(), counts > 0)
            case "sum" if self._is_float:
                return array_of(self._float_sums(rows), pa.float64(), counts > 0)
            case "sum":
                return array_of(self._integer_sums(rows, aggregate), pa.int64(), counts > 0)
            case function:
                return self._extremes(rows[:, self._field(function)], counts > 0)

    def _field(self, name: str) -> int:
        return self.first_field + self._names.index(name) if name in self._names else _NOT_KEPT

    def _means(self, rows: Int64Array, counts: Int64Array) -> npt.NDArray[np.float64]:
        if self._is_float:
            sums = self._float_sums(rows)
        else:
            low, high = self._sum_halves(rows)
            sums = low.astype(np.float64)
            beyond = high != low >> 63
            if beyond.any():
                wide = high * 2.0**64 + low.view(np.uint64).astype(np.float64)
                sums = np.where(beyond, wide, sums)
        means: npt.NDArray[np.float64] = sums / np.maximum(counts, 1)
        return means

    def _float_sums(self, rows: Int64Array) -> npt.NDArray[np.float64]:
        floats, total = rows.view(np.float64), self._field("sum")
        return floats[:, total] + floats[:, total + 1]

    def _sum_halves(self, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
        total = self._field("sum")
        return rows[:, total].copy(), rows[:, total + 1].copy()

    def _integer_sums(self, rows: Int64Array, aggregate: Aggregate) -> Int64Array:
        low, high = self._sum_halves(rows)
        beyond = np.flatnonzero(high != low >> 63)
        if len(beyond):
            value = (int(high[beyond[0]]) << 64) + int(low.view(np.uint64)[beyond[0]])
            message = (
                f"the sum {aggregate.name!r} of {aggregate.argument!r} leaves the range of "
                f"int64: {value}; cast the column to float first"
            )
            raise JobError(message)
        return low

    def _extremes(self, values: Int64Array, valid: npt.NDArray[np.bool_]) -> pa.Array:
        if pat.is_boolean(self.type):
            return array_of(values.astype(np.bool_), self.type, valid)
        dtype = storage_dtype(self.type)
        assert dtype is not None
        values = np.ascontiguousarray(values)
        if self._is_float:
            return array_of(values.view(np.float64).astype(dtype), self.type, valid)
        return array_of(values.astype(dtype), self.type, valid)


class SlotFields(Protocol):
    """Fixed fields of a slot, for some functions over one argument."""

    argument: str | None
    first_field: int

    @property
    def width(self) -> int:
        """How many fields it has."""
        ...

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the fields, as state files and inspection show them."""
        ...

    @property
    def float_fields(self) -> frozenset[int]:
        """Those fields, counted from `first_field`, that hold float64."""
        ...

    def merge(self, slots: Int64Array, rows: Int64Array, state: Int64Array) -> None:
        """Merge the fields of other slots, `rows`, shape (n, fields), into the state's slots."""
        ...

    def result(self, aggregate: Aggregate, rows: Int64Array) -> pa.Array:
        """Return a result column over state `rows`, shape (m, fields)."""
        ...


class AnyAccumulator(SlotFields, Protocol):
    """Fixed fields of a slot, for values that are never taken back."""

    def fold(self, slots: Int64Array, column: pa.Array | None, state: Int64Array) -> None:
        """Fold a batch's values into the state."""
        ...


def accumulators_of(
    aggregates: Sequence[Aggregate], schema: pa.Schema
) -> tuple[list[AnyAccumulator], list[AnyAccumulator]]:
    """Return the accumulators that `aggregates` need, and for each aggregate its own.

    Parameters
    ----------
    aggregates
        Such as need fixed fields only.
    schema
        Of the input.
    """
    functions: dict[tuple[str, str | None], set[AggregateFunction]] = {}
    for each in aggregates:
        functions.setdefault(family_of(each, schema), set()).add(each.function)
    found: dict[tuple[str, str | None], AnyAccumulator] = {}
    width = 0
    for (family, argument), wanted in functions.items():
        own: AnyAccumulator
        if argument is None:
            own = Accumulator(None, pa.null(), frozenset(wanted), width)
        elif family == "moments":
            own = MomentAccumulator(argument, width)
        elif family == "decimals":
            own = DecimalAccumulator(argument, schema.field(argument).type, width)
        else:
            own = Accumulator(argument, schema.field(argument).type, frozenset(wanted), width)
        found[family, argument] = own
        width += own.width
    return list(found.values()), [found[family_of(each, schema)] for each in aggregates]


def family_of(aggregate: Aggregate, schema: pa.Schema) -> tuple[str, str | None]:
    """Return what is the same for aggregates that share an accumulator."""
    argument = aggregate.argument
    if aggregate.function in {"var", "std"}:
        return "moments", argument
    if aggregate.function in {"sum", "mean"} and pat.is_decimal(schema.field(argument).type):
        return "decimals", argument
    return "numbers", argument


def _integers(column: pa.Array) -> Int64Array:
    """Return the values as 64-bit integers; what lies under nulls is arbitrary."""
    if pat.is_boolean(column.type):
        bitmap, first = bits_of(column)
        bits = np.unpackbits(bitmap, bitorder="little")[first : first + len(column)]
        return bits.astype(np.int64)
    values = values_of(column)
    return values.view(np.int64) if values.dtype.itemsize == 8 else values.astype(np.int64)
