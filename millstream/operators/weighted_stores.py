"""What aggregates keep of changes, where fixed fields do not do: every distinct row, counted.

What is taken back uncovers what it hid: the next extreme, the row before the last one, a value
that is there once less. So all of them are kept, as `WeightedRows`, and merge by addition::

    count_distinct, collect_set, top_k, min and max of texts   values
    aggregates of the user's without `retract`                 values, from which they are computed
    approx_count_distinct                                      64-bit hashes, which are counted
    quantile                                                   buckets of a DDSketch
    first, last, collect_list                                  times and values
    arg_min, arg_max                                           what is compared, times and values
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.key_hash import key_hashes
from millstream.operators.aggregate import Aggregate
from millstream.operators.sketches import Buckets
from millstream.operators.sorting import ranks_of, sorted_in_slots
from millstream.operators.user_store import array_of_user, called
from millstream.operators.value_store import greatest_of, lists_of
from millstream.operators.weighted_rows import WeightedRows, offsets_of
from millstream.operators.weights import weights_of

Int64Array = npt.NDArray[np.int64]

_NO_TIME = np.iinfo(np.int64).min


class ValueWeights:
    """The values of a column by slot, with how often each is there.

    Parameters
    ----------
    arguments
        Columns of the input; a row in which one is null is left out.
    name
        Of the columns in which it gives what it keeps.
    types
        Of what is kept of each row.
    """

    def __init__(self, arguments: Sequence[str], name: str, types: Sequence[pa.DataType]) -> None:
        self._arguments = tuple(arguments)
        self._rows = WeightedRows(types)
        columns = [f"{name}.{index}" for index in range(len(types))]
        self.fields = (
            *(
                pa.field(each, pa.large_list(type_))
                for each, type_ in zip(columns, types, strict=True)
            ),
            pa.field(f"{name}.counts", pa.large_list(pa.int64())),
        )

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._rows.size_bytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        self._rows.grow(capacity)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows with their weights into their slots."""
        weights = weights_of(batch)
        valid = reduce(pc.and_, (pc.is_valid(batch.column(each)) for each in self._arguments))
        kept = valid.to_numpy(zero_copy_only=False)
        if not kept.all():
            batch, slots, weights = batch.filter(valid), slots[kept], weights[kept]
        self._rows.add(slots, self._kept_of(batch), weights)

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return what is kept of `slots`, as lists."""
        return self._rows.lists(slots)

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `take` gave of other slots into `slots`."""
        self._rows.add_lists(slots, columns)

    def clear(self, slots: Int64Array) -> None:
        """Forget what is kept of `slots`."""
        self._rows.clear(slots)

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return a result column."""
        if aggregate.function == "count_distinct":
            return pa.array(self._rows.counts(slots))
        offsets, values, counts = self._sorted(slots)
        match aggregate.function:
            case "collect_set":
                return lists_of(offsets, values)
            case "top_k":
                return greatest_of(offsets, values, counts, int(aggregate.parameter or 0))
            case "min":
                return _at(values, offsets[:-1], offsets)
            case "max":
                return _at(values, offsets[1:] - 1, offsets)
            case _:
                return _recomputed(aggregate, offsets, values, counts)

    def _kept_of(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """Return what is kept of rows without nulls, a column each."""
        return [batch.column(self._arguments[0])]

    def _sorted(self, slots: Int64Array) -> tuple[Int64Array, pa.Array, Int64Array]:
        """Return offsets (n + 1), values and counts of `slots`; values of a slot ascending."""
        places, columns, counts = self._rows.held(slots)
        order = sorted_in_slots(places, columns)
        return offsets_of(places, len(slots)), columns[0].take(pa.array(order)), counts[order]


class HashWeights(ValueWeights):
    """The hashes of a column's values, for `approx_count_distinct`.

    The registers of a HyperLogLog cannot say what they were before a value; of 64-bit hashes two
    values in a billion share one.
    """

    def __init__(self, argument: str) -> None:
        super().__init__([argument], f"{argument}.hashes", [pa.int64()])

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return how many hashes each slot has, int64."""
        return pa.array(self._rows.counts(slots))

    def _kept_of(self, batch: pa.RecordBatch) -> list[pa.Array]:
        column = batch.column(self._arguments[0])
        hashes = key_hashes([column]) if len(column) else np.zeros(0, dtype=np.uint64)
        return [pa.array(hashes.view(np.int64))]


class BucketWeights(ValueWeights):
    """How many values lie in each bucket of a DDSketch, for `quantile`.

    Parameters
    ----------
    argument, accuracy
        As for `QuantileSketch`.
    """

    def __init__(self, argument: str, accuracy: float) -> None:
        super().__init__([argument], f"{argument}.buckets_{accuracy}", [pa.int64()])
        self._buckets = Buckets(accuracy)

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return the quantile of each slot, float64; null where there is no value."""
        offsets, buckets, counts = self._sorted(slots)
        return self._buckets.quantiles(aggregate.parameter or 0.0, offsets, buckets, counts)

    def _kept_of(self, batch: pa.RecordBatch) -> list[pa.Array]:
        values = batch.column(self._arguments[0]).cast(pa.float64(), safe=False)
        return [pa.array(self._buckets.of(np.asarray(values)))]


class OrderWeights(ValueWeights):
    """Values with their times and what they are compared by: the first, the last, the best row.

    Of rows of the same time the one with the least value comes first.

    Parameters
    ----------
    argument, by
        Columns of the input: the value, and of `arg_min` and `arg_max` what is compared.
    schema
        Of the input.
    time_column
        With the time of rows; `None`: there is none.
    """

    def __init__(
        self, argument: str, by: str | None, schema: pa.Schema, time_column: str | None
    ) -> None:
        arguments = [argument] if by is None else [by, argument]
        types = [schema.field(each).type for each in arguments]
        name = f"{argument}.in_order" if by is None else f"{argument}.in_order.{by}"
        super().__init__(arguments, name, [*types[:-1], pa.int64(), types[-1]])
        self._time = time_column

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return a result column."""
        places, columns, counts = self._rows.held(slots)
        ranks = [ranks_of([each])[0] for each in columns]
        if aggregate.function in {"last", "arg_max"}:
            ranks[0] = ~ranks[0]
        order = np.lexsort((*reversed(ranks), places))
        offsets = offsets_of(places, len(slots))
        if aggregate.function != "collect_list":
            return _at(columns[-1].take(pa.array(order)), offsets[:-1], offsets)
        often = np.repeat(order, counts[order])
        return lists_of(offsets_of(places[often], len(slots)), columns[-1].take(pa.array(often)))

    def _kept_of(self, batch: pa.RecordBatch) -> list[pa.Array]:
        columns = [batch.column(each) for each in self._arguments]
        times = pa.array(np.zeros(batch.num_rows, dtype=np.int64))
        if self._time is not None:
            times = batch.column(self._time).cast(pa.int64()).fill_null(_NO_TIME)
        return [*columns[:-1], times, columns[-1]]


def _at(values: pa.Array, places: Int64Array, offsets: Int64Array) -> pa.Array:
    """Return the values at `places`, of slots that begin and end at `offsets`; null of none."""
    return values.take(pa.array(places, mask=np.diff(offsets) == 0))


def _recomputed(
    aggregate: Aggregate, offsets: Int64Array, values: pa.Array, counts: Int64Array
) -> pa.Array:
    """Return what a user's aggregate gives of each slot's values."""
    user = aggregate.user
    assert user is not None
    given = [
        each for each, count in zip(values.to_pylist(), counts, strict=True) for _ in range(count)
    ]
    ends = np.concatenate([[0], np.cumsum(counts)])[offsets].tolist()
    found: list[Any] = []
    for begin, end in pairwise(ends):
        if begin == end:
            found.append(None)
            continue
        state = called(aggregate, user.init)
        for value in given[begin:end]:
            state = called(aggregate, user.update, state, value)
        found.append(called(aggregate, user.finish, state))
    return array_of_user(aggregate, found, user.type, "a result")
