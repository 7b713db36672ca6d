"""Running aggregates by key: each batch gives out what it changed.

rows ─▶ slot of the key ─▶ fields of the slot, before and after ─▶ -1 old result, +1 new result
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.accumulator import accumulators_of
from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import storage_dtype, valid_bytes_of, values_of
from millstream.operators.event_times import TimeRange
from millstream.operators.families import is_stored, stored_fields
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    STAMP_COLUMN,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.retraction import retracting_accumulators_of
from millstream.operators.same_values import are_same
from millstream.operators.weights import WEIGHT_FIELD
from millstream.windows.watermark import WATERMARK_MIN

if TYPE_CHECKING:
    from millstream.operators.expiry import Expiry
    from millstream.operators.group_state import Touched

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
    time_column
        The time of rows, for what depends on their order and for a TTL: event time, of type
        `timestamp[us, UTC]`; of changes a column of any timestamps. `None`: there is none.
    ttl_us
        How long after its newest row a key expires: its result is taken back then, and it is
        forgotten. `None`: never.
    """

    input_schema: pa.Schema
    key_columns: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    takes_changes: bool = False
    partial: bool = False
    time_column: str | None = None
    ttl_us: int | None = None

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
        """With a TTL a row is late when its key may be forgotten; else none is."""
        return self.ttl_us is not None

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """Keys, then aggregates; with a TTL late rows, too, as they came."""
        fields = [self.input_schema.field(name) for name in self.key_columns]
        fields += [
            pa.field(each.name, each.result_type(self.input_schema)) for each in self.aggregates
        ]
        results = pa.schema(fields)
        return (results,) if self.ttl_us is None else (results, self.input_schema)

    @property
    def partial_schema(self) -> pa.Schema:
        """Combined rows: keys, the fields of a slot, and what stores keep."""
        schema, takes_changes = self.input_schema, self.takes_changes
        fixed = [each for each in self.aggregates if not is_stored(each, schema)]
        find = retracting_accumulators_of if takes_changes else accumulators_of
        accumulators, _ = find(fixed, schema)
        width = sum(each.width for each in accumulators)
        fields = [schema.field(name) for name in self.key_columns]
        fields += [pa.field(f"__field_{index}", pa.int64()) for index in range(width)]
        stored = stored_fields(self.aggregates, schema, takes_changes=takes_changes)
        return pa.schema([*fields, *stored])

    def build(self) -> Operator:
        """Return the operator with no key."""
        return GroupAggregate(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        keys = ", ".join(self.key_columns)
        what = ", ".join(each.describe() for each in self.aggregates)
        kept = "" if self.ttl_us is None else f", kept for {self.ttl_us} µs"
        return f"running aggregates {f'by {keys}' if keys else 'over all rows'}{kept}: {what}"


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
            time_column=config.time_column,
            newest_of=None if config.ttl_us is None else config.time_column,
        )
        self._expiry: Expiry | None = None
        if config.ttl_us is not None:
            from millstream.operators.expiry import Expiry

            self._expiry = Expiry(config.ttl_us)
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
        if self._expiry is not None:
            yield from self._fold_expiring(batch, self._expiry)
        elif self.config.partial:
            yield from self._emitted(self._state.merge(batch))
        else:
            touched = self._state.fold(batch)
            yield from self._emitted(touched)
            if self.config.takes_changes:
                # A key that is not there may still be owed something: a row that was taken back
                # before it came.
                empty = ~touched.exists & (touched.fields[1::2, 0] == 0)
                self._state.remove(touched.slots[empty])
        self._count_state()

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Take back the results of keys that expired, and forget them."""
        if self._expiry is not None:
            slots = self._expiry.take_until(watermark_us)
            if len(slots):
                yield from self._emitted(self._state.expire(slots))
                self._state.remove(slots)
                self._count_state()

    def _fold_expiring(self, batch: pa.RecordBatch, expiry: Expiry) -> Iterator[Emit]:
        """Fold rows of which some begin their keys anew; emit late ones on port 1."""
        times = TimeRange(self.config.time_column or "").times(batch)
        stamps = np.full(len(times), WATERMARK_MIN)
        if STAMP_COLUMN in batch.schema.names:
            stamps = values_of(batch.column(STAMP_COLUMN))
        late = expiry.late(times, stamps)
        if late.any():
            self.counters.rows_late += int(late.sum())
            yield Emit(1, batch.filter(pa.array(late)))
            batch, times, stamps = batch.filter(pa.array(~late)), times[~late], stamps[~late]
        slots, added = self._state.insert(batch)
        rounds, most = expiry.rounds(slots, added, times, stamps)
        for number in range(most + 1):
            here = rounds == number
            new = added
            if number:
                new = np.unique(slots[here])
                yield from self._emitted(self._state.expire(new))
            rows = batch if most == 0 else batch.filter(pa.array(here))
            if rows.num_rows:
                yield from self._emitted(self._state.fold_at(rows, slots[here], new))

    def _emitted(self, touched: Touched) -> Iterator[Emit]:
        """Yield what a batch changed."""
        for begin in range(0, len(touched.slots), PIECE_KEYS_MAX):
            changes = self._changes(touched.piece(begin, PIECE_KEYS_MAX))
            if changes.num_rows:
                self.counters.rows_out += changes.num_rows
                yield Emit(0, changes)

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes
        if self._expiry is not None:
            self.counters.state_bytes += self._expiry.size_bytes

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return all keys, or those that changed since checkpoint `since`."""
        full, rows = self._state.snapshot(since, checkpoint)
        return StateSnapshot(full, rows, version=STATE_VERSION)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._state.mark_saved(checkpoint)

    def due_us(self) -> int | None:
        """Return the watermark at which the next key may expire."""
        return None if self._expiry is None else self._expiry.due_us

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the keys of `snapshots` that are in `key_groups`."""
        for each in snapshots:
            assert each.version == STATE_VERSION, f"state of version {each.version}"
        parts = [each.rows for each in snapshots if each.rows is not None]
        self._state.restore(parts, key_groups)
        if self._expiry is not None:
            self._expiry.restore(*self._state.newest())
        self._count_state()

    def _changes(self, touched: Touched) -> pa.RecordBatch:
        """Return for each slot its old result and then its new one, where they differ."""
        slots, existed, exists = touched.slots, touched.existed, touched.exists
        results = self._state.results(touched)
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
        column = each.cast(pa.int8()) if pa.types.is_boolean(each.type) else each
        if storage_dtype(column.type) is None:
            pairs = np.arange(2 * count).reshape(count, 2).T
            differ |= ~are_same(*(each.take(pa.array(places)) for places in pairs))
            continue
        valid = valid_bytes_of(column)
        values = values_of(column)
        bits = values.view(f"i{values.dtype.itemsize}")  # by its bits a NaN equals itself
        unequal = bits[0::2] != bits[1::2]
        if len(valid):
            # What lies under a null is arbitrary.
            unequal &= valid[0::2] | valid[1::2]
            unequal |= valid[0::2] != valid[1::2]
        differ |= unequal
    return differ
