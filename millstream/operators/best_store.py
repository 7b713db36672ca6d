"""One row by slot, the best by some order: the first, the last, that with the least of something.

The order is by up to four integers: the rank of what is compared, event time, source position, and
where these are the same, the value itself. So it does not matter in which order rows come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import new_values, values_of
from millstream.operators.kernels import slot_stores as kernels
from millstream.operators.operator import POSITION_COLUMN
from millstream.operators.row_store import RowStore
from millstream.operators.sorting import has_own_ranks, is_ordered, ranks_of

Int64Array = npt.NDArray[np.int64]

_ROWS_KEPT_MIN = 4096
_VALUE, _BY, _TIME, _POSITION = "value", "by", "time", "position"


class BestStore:
    """The best row of each slot, for `first`, `last`, `arg_min`, `arg_max`, `min` and `max`.

    Parameters
    ----------
    aggregate
        Its `argument` is the value; rows without one are left out, and those without `by`.
    schema
        Of the input.
    time_column
        Event time; `None`: there is none.
    """

    def __init__(self, aggregate: Aggregate, schema: pa.Schema, time_column: str | None) -> None:
        assert aggregate.argument is not None
        self._aggregate, self._schema, self._time = aggregate, schema, time_column
        self._argument = aggregate.argument
        value = schema.field(self._argument).type
        self._is_last = aggregate.function == "last"
        self._is_greatest = aggregate.function in {"arg_max", "max"}
        by = {"min": self._argument, "max": self._argument}.get(aggregate.function, aggregate.by)
        self._by = by
        name = f"{self._argument}.{aggregate.function}" + (
            f".{aggregate.by}" if aggregate.by else ""
        )
        types = {_VALUE: value, _TIME: pa.int64(), _POSITION: pa.int64()}
        if by is not None and by != self._argument:
            types[_BY] = schema.field(by).type
        self.fields = tuple(pa.field(f"{name}.{each}", type_) for each, type_ in types.items())
        self._columns = list(types)
        self._rows = RowStore(pa.schema(types))
        self._refs = np.full(0, kernels.NONE, dtype=np.int64)
        self._best = np.zeros((0, 4), dtype=np.int64)
        self._scratch = np.full(0, kernels.NONE, dtype=np.int64)
        self._used = 0

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        arrays = (self._refs, self._best, self._scratch)
        return self._rows.size_bytes + sum(each.nbytes for each in arrays)

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        more = capacity - len(self._refs)
        if more > 0:
            none = np.full(more, kernels.NONE, dtype=np.int64)
            self._refs = np.concatenate([self._refs, none])
            self._scratch = np.concatenate([self._scratch, none])
            self._best = np.concatenate([self._best, np.zeros((more, 4), dtype=np.int64)])

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        zeros = pa.array(np.zeros(batch.num_rows, dtype=np.int64))
        columns = {
            _VALUE: batch.column(self._argument),
            _TIME: zeros if self._time is None else batch.column(self._time).cast(pa.int64()),
            _POSITION: zeros,
        }
        if POSITION_COLUMN in batch.schema.names:
            columns[_POSITION] = batch.column(POSITION_COLUMN)
        if _BY in self._columns:
            assert self._by is not None
            columns[_BY] = batch.column(self._by)
        self._choose(slots, [columns[name] for name in self._columns])

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return the rows of `slots`; null where there is none."""
        return self._rows.take(self._columns, self._refs[slots])

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `take` gave of other slots into `slots`."""
        self._choose(slots, list(columns))

    def clear(self, slots: Int64Array) -> None:
        """Forget the rows of `slots`."""
        slots = np.unique(slots)
        self._used -= int(np.count_nonzero(self._refs[slots] != kernels.NONE))
        self._refs[slots] = kernels.NONE
        self._drop_unused()

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return the values of `slots`."""
        return self._rows.take([_VALUE], self._refs[slots])[0]

    def _choose(self, slots: Int64Array, columns: list[pa.Array]) -> None:
        valid = pc.is_valid(columns[0])
        if _BY in self._columns:
            valid = pc.and_(valid, pc.is_valid(columns[self._columns.index(_BY)]))
        batch = pa.RecordBatch.from_arrays(columns, self._columns)
        kept = valid.to_numpy(zero_copy_only=False)
        if not kept.all():
            batch, slots = batch.filter(valid), slots[kept]
        if batch.num_rows == 0:
            return
        touched = self._best_of(slots, batch)
        if len(touched[0]) == 0:
            return
        self._used += int(np.count_nonzero(self._refs[touched[0]] == kernels.NONE))
        first = len(self._rows)
        self._rows.append(batch.take(pa.array(touched[1])))
        self._refs[touched[0]] = np.arange(first, first + len(touched[0]))
        self._drop_unused()

    def _best_of(self, slots: Int64Array, batch: pa.RecordBatch) -> Int64Array:
        """Return slots whose best row is one of the batch now, and which row it is."""
        count = batch.num_rows
        ranks = np.zeros((4, count), dtype=np.int64)
        sign = -1 if self._is_last else 0
        ranks[1] = values_of(batch.column(_TIME)) ^ sign
        ranks[2] = values_of(batch.column(_POSITION)) ^ sign
        if self._by is not None:
            name = _BY if _BY in self._columns else _VALUE
            self._rank(0, ranks, slots, name, batch, descending=self._is_greatest)
        for with_values in (False, True):
            touched = new_values(2 * count, np.int64).reshape(2, count)
            before = new_values(4 * count, np.int64).reshape(count, 4)
            ties = np.zeros(1, dtype=np.bool_)
            found = kernels.choose(
                slots, ranks, self._refs, self._best, self._scratch, touched, before, ties
            )
            if with_values or not ties[0] or not is_ordered(batch.column(_VALUE).type):
                break
            # Rows that nothing else tells apart, e.g. of one row that met many: by their value.
            self._best[touched[0, :found]] = before[:found]
            self._rank(3, ranks, slots, _VALUE, batch, descending=False)
        return touched[:, :found]

    def _rank(
        self,
        place: int,
        ranks: Int64Array,
        slots: Int64Array,
        name: str,
        batch: pa.RecordBatch,
        *,
        descending: bool,
    ) -> None:
        """Rank the rows of a batch, and those that are kept where ranks are not values."""
        column = batch.column(name)
        touched = np.unique(slots)
        touched = touched[self._refs[touched] != kernels.NONE]
        if has_own_ranks(column.type) and place == 0:
            of_batch = ranks_of([column])[0]
        else:
            kept = self._rows.take([name], self._refs[touched])[0]
            of_batch, of_kept = ranks_of([column, kept])
            self._best[touched, place] = of_kept ^ (-1 if descending else 0)
        ranks[place] = of_batch ^ (-1 if descending else 0)

    def _drop_unused(self) -> None:
        """Forget rows of no slot once they are most of all."""
        if len(self._rows) < max(_ROWS_KEPT_MIN, 4 * self._used):
            return
        slots = np.flatnonzero(self._refs != kernels.NONE)
        self._rows.keep(self._refs[slots])
        self._refs[slots] = np.arange(len(slots))
