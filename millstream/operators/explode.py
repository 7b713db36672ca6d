"""Lists into rows: one for each item, with the row's other columns repeated.

id  tags            id  tags
 1  [a, b]    ──▶    1  a
 2  []               1  b

An empty list gives no row, or one with null; so does a list that is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.functions.function import taken
from millstream.operators.functions.lists import Lists
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)


@dataclass(frozen=True, slots=True)
class ExplodeConfig:
    """Gives out each row once for each item of its lists.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    columns
        The lists; those of a row are as long as each other.
    empty_as_null, keep_nulls
        Whether a row whose list is empty, or null, goes out once, with null.
    """

    input_schema: pa.Schema
    columns: tuple[str, ...]
    empty_as_null: bool
    keep_nulls: bool

    @property
    def consumes(self) -> ChangeMode:
        """Changes too: the items of a row that is taken back are taken back."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """What comes in."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """Stamps pass."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The input's columns, with items for lists."""
        return (exploded_schema(self.input_schema, self.columns),)

    def build(self) -> Operator:
        """Return the operator."""
        return Explode(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return f"a row for each item of {', '.join(self.columns)}"


def exploded_schema(schema: pa.Schema, columns: tuple[str, ...]) -> pa.Schema:
    """Return `schema` with items in place of the lists in `columns`."""
    return pa.schema(
        pa.field(each.name, each.type.value_type) if each.name in columns else each
        for each in schema
    )


class Explode(Stateless):
    """The running operator; see `ExplodeConfig`."""

    def __init__(self, config: ExplodeConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the items in pieces, hidden columns repeated with their row.

        Raises
        ------
        JobError
            Where the lists of a row are not as long as each other.
        """
        count = batch.num_rows
        self.counters.rows_in += count
        self.counters.rows_arrow += count
        lists = {name: Lists(batch.column(name)) for name in self.config.columns}
        sizes = self._sizes(lists)
        ends = np.cumsum(sizes)
        schema = exploded_schema(batch.schema, self.config.columns)
        others = [name for name in batch.schema.names if name not in lists]
        for begin in range(0, int(ends[-1]) if count else 0, OUTPUT_ROWS_MAX):
            places = np.arange(begin, min(begin + OUTPUT_ROWS_MAX, int(ends[-1])))
            rows = np.searchsorted(ends, places, side="right")
            inside = places - (ends - sizes)[rows]
            columns = {}
            for name, each in lists.items():
                missing = inside >= each.sizes[rows]
                at = pa.array(np.where(missing, 0, each.starts[rows] + inside), mask=missing)
                columns[name] = each.items.take(at)
            if others:
                repeated = taken(batch.select(others), rows)
                columns |= dict(zip(others, repeated.columns, strict=True))
            arrays = [columns[name] for name in schema.names]
            self.counters.rows_out += len(places)
            yield Emit(0, pa.RecordBatch.from_arrays(arrays, schema=schema))

    def _sizes(self, lists: dict[str, Lists]) -> np.ndarray:
        """Return how many rows each row becomes."""
        first, *others = lists.values()
        for each in others:
            different = np.flatnonzero(each.sizes != first.sizes)
            if len(different):
                row = int(different[0])
                lengths = ", ".join(f"{name}: {one.sizes[row]}" for name, one in lists.items())
                message = f"the lists of a row are not as long as each other ({lengths})"
                raise JobError(message)
        alone = np.zeros(len(first.sizes), dtype=bool)
        if self.config.empty_as_null:
            alone |= (first.sizes == 0) & ~first.null
        if self.config.keep_nulls:
            alone |= first.null
        return np.where(alone, 1, first.sizes)
