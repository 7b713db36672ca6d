"""Running aggregates by key: each batch gives out what it changed.

rows ─▶ slot of the key ─▶ fields of the slot, before and after ─▶ -1 old result, +1 new result
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.accumulator import accumulators_of
from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import valid_bytes_of, values_of
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.retraction import retracting_accumulators_of
from millstream.operators.weights import WEIGHT_FIELD

PIECE_KEYS_MAX = OUTPUT_ROWS_MAX // 2
STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class GroupAggregateConfig:
    """Aggregates by key over all rows so far.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    key_columns
        Group by these; none: one group. Nulls are a group.
    aggregates
        The result columns.
    takes_changes
        Whether rows of the input may be taken back.
    partial
        The input was combined: it comes with `partial_schema`.
    """

    input_schema: pa.Schema
    key_columns: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    takes_changes: bool = False
    partial: bool = False

    @property
    def consumes(self) -> ChangeMode:
        """Changes, where it keeps what it needs to take rows back."""
        return ChangeMode.CHANGELOG if self.takes_changes else ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Changes: a key's result replaces the one before it."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """No row is late: the key's result is of all rows."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """Keys, then aggregates."""
        fields = [self.input_schema.field(name) for name in self.key_columns]
        fields += [
            pa.field(each.name, each.result_type(self.input_schema)) for each in self.aggregates
        ]
        return (pa.schema(fields),)

    @property
    def partial_schema(self) -> pa.Schema:
        """Combined rows: keys and the fields of a slot."""
        find = retracting_accumulators_of if self.takes_changes else accumulators_of
        accumulators, _ = find(self.aggregates, self.input_schema)
        width = sum(each.width for each in accumulators)
        fields = [self.input_schema.field(name) for name in self.key_columns]
        fields += [pa.field(f"__field_{index}", pa.int64()) for index in range(width)]
        return pa.schema(fields)

    def build(self) -> Operator:
        """Return the operator with no key."""
        return GroupAggregate(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        keys = ", ".join(self.key_columns)
        what = ", ".join(
            f"{each.name} = {each.function}({each.argument or ''})" for each in self.aggregates
        )
        return f"running aggregates {f'by {keys}' if keys else 'over all rows'}: {what}"


class GroupAggregate(Stateless):
    """The running operator; see `GroupAggregateConfig`."""

    def __init__(self, config: GroupAggregateConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.group_state import GroupState

        self.config = config
        self.counters = OperatorCounters()
        self._state = GroupState(
            config.input_schema,
            config.key_columns,
            config.aggregates,
            takes_changes=config.takes_changes,
        )
        self._schema = config.output_schemas[0].append(WEIGHT_FIELD)

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Fold the rows, and emit the results that are other ones now, with the old ones.

        Raises
        ------
        JobError
            Where a sum of integers is beyond int64.
        """
        assert input_index == 0
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        touched = self._state.merge(batch) if self.config.partial else self._state.fold(batch)
        for begin in range(0, len(touched.slots), PIECE_KEYS_MAX):
            piece = slice(begin, begin + PIECE_KEYS_MAX)
            changes = self._changes(
                touched.slots[piece],
                touched.existed[piece],
                touched.exists[piece],
                touched.fields[2 * begin : 2 * (begin + PIECE_KEYS_MAX)],
            )
            if changes.num_rows:
                self.counters.rows_out += changes.num_rows
                yield Emit(0, changes)
        if self.config.takes_changes:
            # A key that is not there may still be owed something: a row that was taken back
            # before it came.
            empty = ~touched.exists & (touched.fields[1::2, 0] == 0)
            self._state.remove(touched.slots[empty])
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return all keys, or those that changed since checkpoint `since`."""
        full, rows = self._state.snapshot(since, checkpoint)
        return StateSnapshot(full, rows, version=STATE_VERSION)

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the keys of `snapshots` that are in `key_groups`."""
        for each in snapshots:
            assert each.version == STATE_VERSION, f"state of version {each.version}"
        parts = [each.rows for each in snapshots if each.rows is not None]
        self._state.restore(parts, key_groups)
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes

    def _changes(
        self,
        slots: npt.NDArray[np.int64],
        existed: npt.NDArray[np.bool_],
        exists: npt.NDArray[np.bool_],
        fields: npt.NDArray[np.int64],
    ) -> pa.RecordBatch:
        """Return for each slot its old result and then its new one, where they differ."""
        results = self._state.results(fields)
        wanted = np.empty(2 * len(slots), dtype=np.bool_)
        wanted[0::2] = existed
        wanted[1::2] = exists
        both = existed & exists
        if both.any():
            same = both & ~_differ(results, len(slots))
            wanted[0::2] &= ~same
            wanted[1::2] &= ~same
        weights = np.ones(2 * len(slots), dtype=np.int64)
        weights[0::2] = -1
        slots = np.repeat(slots, 2)
        if not wanted.all():
            mask = pa.array(wanted)
            results = [each.filter(mask) for each in results]
            slots, weights = slots[wanted], weights[wanted]
        columns = [*self._state.keys(slots), *results, pa.array(weights)]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _differ(results: Sequence[pa.Array], count: int) -> npt.NDArray[np.bool_]:
    """Return for each pair of neighbours among the rows of `results` whether they differ."""
    differ = np.zeros(count, dtype=np.bool_)
    for each in results:
        valid = valid_bytes_of(each)
        column = each.cast(pa.int8()) if pa.types.is_boolean(each.type) else each
        values = values_of(column)
        bits = values.view(f"i{values.dtype.itemsize}")  # by its bits a NaN equals itself
        unequal = bits[0::2] != bits[1::2]
        if len(valid):
            # What lies under a null is arbitrary.
            unequal &= valid[0::2] | valid[1::2]
            unequal |= valid[0::2] != valid[1::2]
        differ |= unequal
    return differ
