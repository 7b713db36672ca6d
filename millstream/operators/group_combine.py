"""Folds the rows of a batch by key before they cross to other workers.

Nothing is kept from one batch to the next, so there is no state to save (as combiners in
MapReduce, Dean and Ghemawat, OSDI 2004).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)


@dataclass(frozen=True, slots=True)
class GroupCombineConfig:
    """Combines rows for the aggregate of `aggregate`.

    Parameters
    ----------
    aggregate
        Of the aggregate, as it would be without combining.
    """

    aggregate: GroupAggregateConfig

    @property
    def consumes(self) -> ChangeMode:
        """What the aggregate takes."""
        return self.aggregate.consumes

    @property
    def produces(self) -> ChangeMode:
        """Facts: what is merged is never taken back, though it may say that rows were."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """No row is late."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """Keys and fields of accumulators."""
        return (self.aggregate.partial_schema,)

    def build(self) -> Operator:
        """Return the operator."""
        return GroupCombine(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return f"combine each batch by {', '.join(self.aggregate.key_columns) or 'all rows'}"


class GroupCombine(Stateless):
    """The running operator; see `GroupCombineConfig`."""

    def __init__(self, config: GroupCombineConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.group_state import GroupState

        aggregate = config.aggregate
        self.counters = OperatorCounters()
        self._schema = aggregate.partial_schema
        self._state = GroupState(
            aggregate.input_schema,
            aggregate.key_columns,
            aggregate.aggregates,
            takes_changes=aggregate.takes_changes,
            time_column=aggregate.time_column,
        )

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the batch's rows combined."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        self._state.fold(batch)
        keys, fields = self._state.take_all()
        combined = pa.RecordBatch.from_arrays([*keys, *fields], schema=self._schema)
        for begin in range(0, combined.num_rows, OUTPUT_ROWS_MAX):
            piece = combined.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(0, piece)
