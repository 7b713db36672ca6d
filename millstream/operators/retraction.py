"""What an aggregate keeps of an argument from which values are taken back again.

Counts, sums and variances take a value back as they took it, with weight -1. An extreme that is
taken back uncovers the next one, so for extremes every value is kept, in order, with how often it
is there::

    min(price), sum(price)  ─▶  fields of a slot: count │ sum … │ min     values: 3 ×2, 7 ×1, 9 ×4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.accumulator import Accumulator, family_of
from millstream.operators.aggregate import Aggregate, AggregateFunction
from millstream.operators.arrow_buffers import bits_of, valid_bytes_of, values_of
from millstream.operators.retracting_moments import RetractingDecimals, RetractingMoments

if TYPE_CHECKING:
    from millstream.operators.value_counts import ValueCounts

Int64Array = npt.NDArray[np.int64]

_FLOAT_SUM = ("sum", "sum_2", "sum_3", "sum_4", "sum_nan", "sum_infinity", "sum_minus_infinity")
_FLOAT_TERMS = 4
_SIGN_BIT = np.int64(-(2**63))


class RetractingAccumulator(Accumulator):
    """The fields of a slot, and the values of slots, for weighted values of one argument.

    Parameters
    ----------
    argument, type_, functions, first_field
        As for `Accumulator`.
    """

    def __init__(
        self,
        argument: str | None,
        type_: pa.DataType,
        functions: frozenset[AggregateFunction],
        first_field: int,
    ) -> None:
        super().__init__(argument, type_, functions, first_field)
        if self._is_float and "sum" in self._names:
            self._names = [
                "count",
                *_FLOAT_SUM,
                *(each for each in self._names if each in {"min", "max"}),
            ]
        self.values: ValueCounts | None = None
        """Of arguments whose extremes are asked for: every value."""
        if {"min", "max"} & set(self._names):
            # Imported here, so that a job can be planned without Numba.
            from millstream.operators.value_counts import ValueCounts

            self.values = ValueCounts()

    @property
    def float_fields(self) -> frozenset[int]:
        """Those fields, counted from `first_field`, that hold float64."""
        if not self._is_float:
            return frozenset()
        floats = {*_FLOAT_SUM[:_FLOAT_TERMS], "min", "max"}
        return frozenset(i for i, name in enumerate(self._names) if name in floats)

    def fold_weighted(
        self, slots: Int64Array, weights: Int64Array, column: pa.Array | None, state: Int64Array
    ) -> None:
        """Fold a batch's values with their weights into the state; `None`: rows are counted."""
        from millstream.operators.kernels import group_aggregate as kernels

        count, total = self.first_field, self._field("sum")
        valid = valid_bytes_of(column)
        if column is None or total < 0:
            kernels.count_weights(slots, weights, valid, state, count)
        elif self._is_float:
            values = values_of(column).astype(np.float64, copy=False)
            floats = state.view(np.float64)
            kernels.fold_weighted_floats(slots, weights, values, valid, state, floats, count, total)
        else:
            unsigned = bool(pat.is_uint64(self.type))
            kernels.fold_weighted_integers(
                slots, weights, _integers(column), valid, unsigned, state, count, total
            )
        if self.values is not None and column is not None:
            ordered = ordered_values(column)
            if len(valid):
                slots, weights, ordered = slots[valid], weights[valid], ordered[valid]
            self.values.add(slots, ordered, weights)

    def merge(self, slots: Int64Array, rows: Int64Array, state: Int64Array) -> None:
        """Merge the fields of other slots, `rows`, shape (n, fields), into the state's slots."""
        from millstream.operators.kernels import group_aggregate as kernels

        assert self.values is None, "values are not merged"
        floats = rows.view(np.float64), state.view(np.float64)
        kernels.merge_weighted(
            slots, rows, floats[0], state, floats[1], self.first_field, self._field("sum"),
            self._is_float,
        )  # fmt: skip

    def write_extremes(self, slots: Int64Array, state: Int64Array) -> None:
        """Write the present extremes of `slots` into their fields."""
        if self.values is None:
            return
        least, greatest = self.values.extremes(slots)
        for name, found in (("min", least), ("max", greatest)):
            if name in self._names:
                state[slots, self._field(name)] = self._plain(found)

    def _float_sums(self, rows: Int64Array) -> npt.NDArray[np.float64]:
        total = self._field("sum")
        terms = rows.view(np.float64)[:, total : total + _FLOAT_TERMS]
        sums: npt.NDArray[np.float64] = terms[:, 3] + terms[:, 2] + terms[:, 1] + terms[:, 0]
        nan, plus, minus = (rows[:, total + _FLOAT_TERMS + i] > 0 for i in range(3))
        sums = np.where(plus, np.inf, np.where(minus, -np.inf, sums))
        return np.where(nan | (plus & minus), np.nan, sums)

    def _plain(self, ordered: Int64Array) -> Int64Array:
        """Return what `ordered_values` gave as values again, floats seen as int64."""
        if not self._is_float:
            return ordered ^ _SIGN_BIT if pat.is_uint64(self.type) else ordered
        return ordered ^ ((ordered >> 63) & ~_SIGN_BIT)


AnyRetracting: TypeAlias = RetractingAccumulator | RetractingMoments | RetractingDecimals


def retracting_accumulators_of(
    aggregates: Sequence[Aggregate], schema: pa.Schema
) -> tuple[list[AnyRetracting], list[AnyRetracting]]:
    """Return the accumulators that `aggregates` need, and for each aggregate its own.

    The first one counts rows, whether that is asked for or not: a key without rows is gone.
    """
    functions: dict[tuple[str, str | None], set[AggregateFunction]] = {("numbers", None): {"count"}}
    for each in aggregates:
        functions.setdefault(family_of(each, schema), set()).add(each.function)
    found: dict[tuple[str, str | None], AnyRetracting] = {}
    width = 0
    for (family, argument), wanted in functions.items():
        type_ = pa.null() if argument is None else schema.field(argument).type
        own: AnyRetracting
        if argument is not None and family == "moments":
            own = RetractingMoments(argument, width)
        elif argument is not None and family == "decimals":
            own = RetractingDecimals(argument, type_, width)
        else:
            own = RetractingAccumulator(argument, type_, frozenset(wanted), width)
        found[family, argument] = own
        width += own.width
    return list(found.values()), [found[family_of(each, schema)] for each in aggregates]


def ordered_values(column: pa.Array) -> Int64Array:
    """Return numbers, times or booleans as int64 in the same order; under nulls, any.

    NaN is greater than all, and -0.0 is 0.0.
    """
    if not pat.is_floating(column.type):
        values = _integers(column)
        return values ^ _SIGN_BIT if pat.is_uint64(column.type) else values
    floats = values_of(column).astype(np.float64) + 0.0
    floats[np.isnan(floats)] = np.nan
    bits = floats.view(np.int64)
    return bits ^ ((bits >> 63) & ~_SIGN_BIT)


def _integers(column: pa.Array) -> Int64Array:
    """Return the values as 64-bit integers; what lies under nulls is arbitrary."""
    if pat.is_boolean(column.type):
        bitmap, first = bits_of(column)
        bits = np.unpackbits(bitmap, bitorder="little")[first : first + len(column)]
        return bits.astype(np.int64)
    values = values_of(column)
    return values.view(np.int64) if values.dtype.itemsize == 8 else values.astype(np.int64)
