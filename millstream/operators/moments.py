"""Fixed fields of a slot for variances, and for sums of decimals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import JobError
from millstream.operators.aggregate import DECIMAL_DIGITS_MAX, Aggregate
from millstream.operators.arrow_buffers import array_of, valid_bytes_of, view_of

Int64Array = npt.NDArray[np.int64]

_LIMIT = 10**DECIMAL_DIGITS_MAX
_LIMIT_HIGH = _LIMIT >> 64


class MomentAccumulator:
    """Count, mean and squared distances of an argument's values, for `var` and `std`.

    Parameters
    ----------
    argument
        Column of numbers of the input.
    first_field
        Its first field in a slot's row of state.
    """

    width = 3
    float_fields = frozenset({1, 2})

    def __init__(self, argument: str, first_field: int) -> None:
        self.argument: str | None = argument
        self.first_field = first_field
        self.field_names = tuple(f"{argument}.{n}" for n in ("moments", "mean", "squares"))

    def fold(self, slots: Int64Array, column: pa.Array, state: Int64Array) -> None:
        """Fold a batch's values into the state."""
        from millstream.operators.kernels import moments as kernels

        values = np.array(column.fill_null(0).cast(pa.float64(), safe=False))
        floats = state.view(np.float64)
        valid = valid_bytes_of(column)
        kernels.fold_moments(slots, values, valid, state, floats, self.first_field)

    def merge(self, slots: Int64Array, rows: Int64Array, state: Int64Array) -> None:
        """Merge the fields of other slots, `rows`, shape (n, fields), into the state's slots."""
        from millstream.operators.kernels import moments as kernels

        views = rows.view(np.float64), state.view(np.float64)
        kernels.merge_moments(slots, rows, views[0], state, views[1], self.first_field)

    def result(self, aggregate: Aggregate, rows: Int64Array) -> pa.Array:
        """Return variances or deviations of samples; null where there are less than two values."""
        counts = rows[:, self.first_field]
        squares = rows.view(np.float64)[:, self.first_field + 2]
        variances = np.maximum(squares, 0.0) / np.maximum(counts - 1, 1)
        variances = np.where(np.isnan(squares), np.nan, variances)
        found = np.sqrt(variances) if aggregate.function == "std" else variances
        return array_of(found, pa.float64(), counts > 1)


class DecimalAccumulator:
    """Count and exact sum of decimals, for `sum` and `mean`.

    Parameters
    ----------
    argument
        Column of the input.
    type_
        Its type.
    first_field
        Its first field in a slot's row of state.
    """

    width = 4
    float_fields: frozenset[int] = frozenset()

    def __init__(self, argument: str, type_: pa.DataType, first_field: int) -> None:
        self.argument: str | None = argument
        self.first_field, self._type = first_field, type_
        names = ("decimals", "sum", "sum_high", "sum_top")
        self.field_names = tuple(f"{argument}.{n}" for n in names)

    def fold(self, slots: Int64Array, column: pa.Array, state: Int64Array) -> None:
        """Fold a batch's values into the state."""
        from millstream.operators.kernels import moments as kernels

        words, valid = decimal_words(column), valid_bytes_of(column)
        kernels.fold_decimals(slots, words, valid, state, self.first_field)

    def merge(self, slots: Int64Array, rows: Int64Array, state: Int64Array) -> None:
        """Merge the fields of other slots, `rows`, shape (n, fields), into the state's slots."""
        from millstream.operators.kernels import moments as kernels

        kernels.merge_decimals(slots, rows, state, self.first_field)

    def result(self, aggregate: Aggregate, rows: Int64Array) -> pa.Array:
        """Return sums of 38 digits, or means as float64.

        Raises
        ------
        JobError
            Where a sum has more digits.
        """
        counts, low, middle, top = rows[:, self.first_field : self.first_field + 4].T
        valid = counts > 0
        if aggregate.function == "mean":
            total = (top * 2.0**64 + middle.view(np.uint64)) * 2.0**64 + low.view(np.uint64)
            near = (top == middle >> 63) & (middle == low >> 63)
            total = np.where(near, low.astype(np.float64), total)
            means = total / 10.0**self._type.scale / np.maximum(counts, 1)
            return array_of(means, pa.float64(), valid)
        suspects = np.flatnonzero((top != middle >> 63) | (np.abs(middle) >= _LIMIT_HIGH))
        for row in suspects:
            value = (int(top[row]) << 128) + (int(middle.view(np.uint64)[row]) << 64)
            value += int(low.view(np.uint64)[row])
            if abs(value) >= _LIMIT:
                message = (
                    f"the sum {aggregate.name!r} of {aggregate.argument!r} has more than "
                    f"{DECIMAL_DIGITS_MAX} digits; cast the column to float first"
                )
                raise JobError(message)
        words = np.ascontiguousarray(np.stack([low, middle], axis=1))
        bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
        type_ = pa.decimal128(DECIMAL_DIGITS_MAX, self._type.scale)
        return pa.Array.from_buffers(type_, len(rows), [bitmap, pa.py_buffer(words)])


def decimal_words(column: pa.Array) -> Int64Array:
    """Return decimals as integers of 128 bits, shape (n, 2), the low word first."""
    if not pat.is_decimal128(column.type):
        column = column.cast(pa.decimal128(DECIMAL_DIGITS_MAX, column.type.scale))
    words = view_of(column.buffers()[1], np.int64, 2 * column.offset, 2 * len(column))
    return words.reshape(-1, 2)
