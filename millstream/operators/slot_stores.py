"""The stores of all aggregates that need more than fixed fields; those alike share one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.aggregate import Aggregate
from millstream.operators.families import is_stored, stores_of

Int64Array = npt.NDArray[np.int64]


class SlotStores:
    """What stores keep, by slot.

    Parameters
    ----------
    aggregates
        The result columns; those of fixed fields are left out.
    schema
        Of the input.
    time_column
        Event time, for what depends on the order of rows; `None`: there is none.
    takes_changes
        Whether rows come with weights, and may take earlier ones back.
    """

    def __init__(
        self,
        aggregates: Sequence[Aggregate],
        schema: pa.Schema,
        time_column: str | None,
        *,
        takes_changes: bool = False,
    ) -> None:
        self.aggregates = tuple(each for each in aggregates if is_stored(each, schema))
        self._schema, self._time_column, self._takes_changes = schema, time_column, takes_changes
        self._stores, self._store_of = stores_of(
            self.aggregates, schema, time_column, takes_changes=takes_changes
        )

    def __len__(self) -> int:
        return len(self._stores)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return sum(each.size_bytes for each in self._stores)

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        for each in self._stores:
            each.grow(capacity)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        for each in self._stores:
            each.fold(slots, batch)

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return all that is kept of `slots` as columns, for `add`."""
        return [column for each in self._stores for column in each.take(slots)]

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `take` gave of other slots, a row each, into `slots`."""
        rest = list(columns)
        for each in self._stores:
            each.add(slots, rest[: len(each.fields)])
            rest = rest[len(each.fields) :]

    def move(self, sources: Int64Array, targets: Int64Array) -> None:
        """Merge what is kept of `sources` into `targets`, and forget it there."""
        for each in self._stores:
            columns = each.take(sources)
            each.clear(sources)
            each.add(targets, columns)

    def clear(self, slots: Int64Array) -> None:
        """Forget what is kept of `slots`."""
        for each in self._stores:
            each.clear(slots)

    def results(self, slots: Int64Array) -> dict[str, pa.Array]:
        """Return the result columns of `slots`, by the names of their aggregates."""
        return {
            each.name: store.result(each, slots)
            for each, store in zip(self.aggregates, self._store_of, strict=True)
        }

    def merged_results(
        self, slots: Int64Array, groups: Int64Array, count: int
    ) -> dict[str, pa.Array]:
        """Return the results of `count` groups, each of which merges some of `slots`."""
        merged = SlotStores(
            self.aggregates, self._schema, self._time_column, takes_changes=self._takes_changes
        )
        merged.grow(count)
        merged.add(groups, self.take(slots))
        return merged.results(np.arange(count))

    def state(self, slots: Int64Array) -> dict[str, pa.Array]:
        """Return all that is kept of `slots` as columns of a state file."""
        return dict(zip(self._state_names(), self.take(slots), strict=True))

    def no_state(self, count: int) -> dict[str, pa.Array]:
        """Return `count` rows of the columns of a state file that say nothing."""
        fields = [field for each in self._stores for field in each.fields]
        nulls = (pa.nulls(count, each.type) for each in fields)
        return dict(zip(self._state_names(), nulls, strict=True))

    def restore(self, slots: Int64Array, rows: pa.Table | Mapping[str, pa.Array]) -> None:
        """Put what a state file says into distinct `slots`, in the place of what is there."""
        self.clear(slots)
        self.add(slots, [rows[name].combine_chunks() for name in self._state_names()])

    def _state_names(self) -> list[str]:
        return [f"value.{field.name}" for each in self._stores for field in each.fields]
