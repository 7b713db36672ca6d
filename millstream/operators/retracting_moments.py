"""Fixed fields of a slot for variances, and for sums of decimals, from which values go again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import array_of, valid_bytes_of
from millstream.operators.moments import DecimalAccumulator, decimal_words

Int64Array = npt.NDArray[np.int64]

_TERMS = 4


class RetractingMoments:
    """Count, sum and sum of squares of an argument's values, for `var` and `std`.

    Exact but for the last rounding, whatever came and went. A variance is infinite as long as a
    value is beyond 2⁴⁶⁵ (10¹⁴⁰).

    Parameters
    ----------
    argument
        Column of numbers of the input.
    first_field
        Its first field in a slot's row of state.
    """

    width = 3 + 2 * _TERMS
    float_fields = frozenset(range(1, 1 + 2 * _TERMS))
    values = None

    def __init__(self, argument: str, first_field: int) -> None:
        self.argument: str | None = argument
        self.first_field = first_field
        terms = [f"{each}_{term}" for each in ("sum", "squares") for term in range(1, _TERMS + 1)]
        names = ("count", *terms, "special", "large")
        self.field_names = tuple(f"{argument}.moments.{each}" for each in names)

    def fold_weighted(
        self, slots: Int64Array, weights: Int64Array, column: pa.Array, state: Int64Array
    ) -> None:
        """Fold a batch's values with their weights into the state."""
        from millstream.operators.kernels import retracting_moments as kernels

        values = np.array(column.fill_null(0).cast(pa.float64(), safe=False))
        kernels.fold_weighted_moments(
            slots, weights, values, valid_bytes_of(column), state, state.view(np.float64),
            self.first_field,
        )  # fmt: skip

    def merge(self, slots: Int64Array, rows: Int64Array, state: Int64Array) -> None:
        """Merge the fields of other slots, `rows`, shape (n, fields), into the state's slots."""
        from millstream.operators.kernels import retracting_moments as kernels

        views = rows.view(np.float64), state.view(np.float64)
        kernels.merge_weighted_moments(slots, rows, views[0], state, views[1], self.first_field)

    def write_extremes(self, slots: Int64Array, state: Int64Array) -> None:
        """Do nothing: there are none."""

    def result(self, aggregate: Aggregate, rows: Int64Array) -> pa.Array:
        """Return variances or deviations of samples; null where there are less than two values."""
        from millstream.operators.kernels import retracting_moments as kernels

        rows = np.ascontiguousarray(rows)
        variances = np.empty(len(rows), dtype=np.float64)
        kernels.write_variances(rows, rows.view(np.float64), self.first_field, variances)
        found = np.sqrt(variances) if aggregate.function == "std" else variances
        return array_of(found, pa.float64(), rows[:, self.first_field] > 1)


class RetractingDecimals(DecimalAccumulator):
    """Count and exact sum of decimals, for `sum` and `mean`; see `DecimalAccumulator`."""

    values = None

    def fold_weighted(
        self, slots: Int64Array, weights: Int64Array, column: pa.Array, state: Int64Array
    ) -> None:
        """Fold a batch's values with their weights into the state."""
        from millstream.operators.kernels import retracting_moments as kernels

        words, valid = decimal_words(column), valid_bytes_of(column)
        kernels.fold_weighted_decimals(slots, weights, words, valid, state, self.first_field)

    def write_extremes(self, slots: Int64Array, state: Int64Array) -> None:
        """Do nothing: there are none."""
