"""Sketches by slot: quantiles by DDSketch, numbers of distinct values by HyperLogLog.

Both are sets of integers with a number each, so they are kept as such, merge in any order to the
same, and are as small as what they have seen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.key_hash import key_hashes
from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import array_of
from millstream.operators.value_store import ValueStore

Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_ZERO_SHIFT = 1 << 24
"""Added to the number of a bucket, so that positive values have positive ones."""
_INFINITY = 1 << 25
_NAN = 1 << 26
_REGISTER_BITS = 12
_REGISTERS = 1 << _REGISTER_BITS
_ALPHA = 0.7213 / (1 + 1.079 / _REGISTERS)


class Buckets:
    """Buckets of numbers that grow by a factor, and quantiles of how many numbers are in each.

    A quantile is within `accuracy` of the true one, relative to it (DDSketch: Masson, Rim, Lee,
    VLDB 2019). NaN is the greatest value.

    Parameters
    ----------
    accuracy
        Between 0 and 1.
    """

    def __init__(self, accuracy: float) -> None:
        self._gamma = (1 + accuracy) / (1 - accuracy)

    def quantiles(
        self, q: float, offsets: Int64Array, buckets: pa.Array, counts: Int64Array
    ) -> pa.Array:
        """Return the quantile of each slot, float64; null where there is no value.

        Parameters
        ----------
        q
            Which, from 0 to 1.
        offsets
            Where the buckets of each slot begin and end, int64, shape (n + 1,).
        buckets, counts
            The numbers of buckets, of a slot ascending, and how many values lie in each.
        """
        if len(counts) == 0:
            return pa.nulls(len(offsets) - 1, pa.float64())
        until = np.cumsum(counts)
        starts = np.concatenate([[0], until])[offsets]
        totals = np.diff(starts)
        # The value of this rank, from 0 on, among those of the slot.
        ranks = np.floor(q * np.maximum(totals - 1, 0)).astype(np.int64)
        places = np.searchsorted(until, starts[:-1] + ranks, side="right")
        places = np.minimum(places, len(counts) - 1)
        values = self._values(np.asarray(buckets)[places])
        return array_of(values, pa.float64(), totals > 0)

    def of(self, values: FloatArray) -> Int64Array:
        """Return the number of each value's bucket; the order is that of values."""
        sizes = np.abs(values)
        finite = np.isfinite(values) & (sizes > 0)
        logs = np.log(np.where(finite, sizes, 1.0)) / np.log(self._gamma)
        buckets = (np.ceil(logs).astype(np.int64) + _ZERO_SHIFT) * np.where(values < 0, -1, 1)
        buckets[sizes == 0] = 0
        buckets[np.isinf(values)] = np.where(values[np.isinf(values)] > 0, _INFINITY, -_INFINITY)
        buckets[np.isnan(values)] = _NAN
        return buckets

    def _values(self, buckets: Int64Array) -> FloatArray:
        """Return a value in the middle of each bucket."""
        inside = (buckets != 0) & (np.abs(buckets) < _INFINITY)
        powers = np.where(inside, np.abs(buckets) - _ZERO_SHIFT, 0).astype(np.float64)
        # The least and the greatest buckets reach beyond the floats.
        with np.errstate(over="ignore", under="ignore"):
            sizes = np.exp(powers * np.log(self._gamma)) * (2 / (1 + self._gamma))
        sizes = np.minimum(sizes, np.finfo(np.float64).max)
        values = np.where(buckets < 0, -sizes, sizes)
        values[buckets == 0] = 0.0
        values[np.abs(buckets) == _INFINITY] = np.inf * np.sign(
            buckets[np.abs(buckets) == _INFINITY]
        )
        values[buckets == _NAN] = np.nan
        return values


class QuantileSketch(ValueStore):
    """How many values lie in each bucket; see `Buckets`.

    Parameters
    ----------
    argument
        Column of numbers.
    accuracy
        Between 0 and 1.
    """

    def __init__(self, argument: str, accuracy: float) -> None:
        super().__init__(argument, pa.int64(), f"buckets_{accuracy}")
        self._buckets = Buckets(accuracy)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        column = batch.column(self.argument)
        if column.null_count:
            valid = pc.is_valid(column)
            column, slots = column.filter(valid), slots[valid.to_numpy(zero_copy_only=False)]
        values = np.asarray(column.cast(pa.float64(), safe=False))
        buckets = pa.array(self._buckets.of(values))
        super().count(slots, buckets, np.ones(len(slots), dtype=np.int64))

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return the quantile of each slot, float64; null where there is no value."""
        return self._buckets.quantiles(aggregate.parameter or 0.0, *self.sorted(slots))


class DistinctSketch(ValueStore):
    """The greatest rank of each register that was touched.

    Of a standard error of 1.6 % (HyperLogLog: Flajolet et al., AofA 2007, with their correction
    for few values). 4,096 registers, of which a slot keeps those that were touched.

    Parameters
    ----------
    argument
        Column of any type that can be a key.
    """

    def __init__(self, argument: str) -> None:
        super().__init__(argument, pa.int64(), "registers", keeps_greatest=True)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        column = batch.column(self.argument)
        if column.null_count:
            valid = pc.is_valid(column)
            column, slots = column.filter(valid), slots[valid.to_numpy(zero_copy_only=False)]
        if len(slots) == 0:
            return
        hashes = key_hashes([column])
        registers = (hashes >> np.uint64(64 - _REGISTER_BITS)).astype(np.int64)
        rest = (hashes << np.uint64(_REGISTER_BITS)) | np.uint64(1 << (_REGISTER_BITS - 1))
        # The place of the first 1, from 1 on; a float's exponent would round up near a power.
        ranks = 64 - np.frexp((rest >> np.uint64(11)).astype(np.float64))[1].astype(np.int64) - 10
        super().count(slots, pa.array(registers), ranks)

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return about how many values each slot has seen, int64."""
        offsets, _, ranks = self.sorted(slots)
        touched = np.diff(offsets)
        sums = np.add.reduceat(np.append(0.5**ranks, 0.0), offsets[:-1]) if len(slots) else 0.0
        sums = np.where(touched > 0, sums, 0.0)
        untouched = _REGISTERS - touched
        raw = _ALPHA * _REGISTERS**2 / (sums + untouched)
        few = _REGISTERS * np.log(_REGISTERS / np.maximum(untouched, 1))
        found = np.where((raw <= 2.5 * _REGISTERS) & (untouched > 0), few, raw)
        return pa.array(np.rint(found).astype(np.int64))
