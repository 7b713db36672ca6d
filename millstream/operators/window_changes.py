"""Aggregates by key and window that say at once what each batch changes, not only the end result.

A batch is folded in; of each window that it touched the result before goes out with weight -1 and
the one after with +1. Nothing goes out when a window is over, and its state is forgotten.

Overlapping windows have state of their own here, as each of them has to be looked at: a batch is
added to its panes first, and these, which are few, to all windows that hold them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.operators.arrow_buffers import values_of
from millstream.operators.operator import OUTPUT_ROWS_MAX, Emit
from millstream.operators.weights import WEIGHT_FIELD
from millstream.operators.window_aggregate import (
    WINDOW_START,
    WindowAggregate,
    WindowAggregateConfig,
)
from millstream.operators.window_assigner import TIME_TYPE
from millstream.operators.window_states import Changes, new_state
from millstream.windows.global_window import Global
from millstream.windows.hopping import Hopping

Int64Array = npt.NDArray[np.int64]


class WindowChanges(WindowAggregate):
    """The running operator; see `WindowAggregateConfig`."""

    def __init__(self, config: WindowAggregateConfig) -> None:
        super().__init__(config)
        self._changes_schema = self._result_schema.append(WEIGHT_FIELD)
        self._partial_schema = config.partial_schema
        self._panes = new_state(config)

    def _take_in(self, batch: pa.RecordBatch, starts: Int64Array) -> Iterator[Emit]:
        """Fold rows that are not late, and emit what changed."""
        is_partial = self.config.partial
        if isinstance(self.config.window, Hopping) and not is_partial:
            self._panes.fold(batch, starts)
            panes = self._panes.take_all()
            batch = pa.RecordBatch.from_arrays(panes, schema=self._partial_schema)
            starts, is_partial = values_of(batch.column(WINDOW_START)), True
        yield from self._changes(batch, starts, is_partial)

    def _changes(
        self, batch: pa.RecordBatch, starts: Int64Array, is_partial: bool
    ) -> Iterator[Emit]:
        """Fold rows, or combined ones, of which overlapping windows have no others."""
        if isinstance(self.config.window, Hopping):
            rows, starts = self.config.window.windows_of(starts)
            batch = batch.take(pa.array(rows))
            index = batch.schema.get_field_index(WINDOW_START)
            batch = batch.set_column(index, WINDOW_START, pa.array(starts).view(TIME_TYPE))
        changes = self._state.fold_changes(batch, starts, is_partial)
        slots, columns = changed_rows(changes)
        result = pa.RecordBatch.from_arrays(columns, schema=self._changes_schema)
        for piece in pieces_of_changes(slots, result):
            self.counters.rows_out += piece.num_rows
            yield Emit(0, piece)

    def on_end(self) -> Iterator[Emit]:
        """Forget every window; but a window of all time goes on in a later run."""
        if not isinstance(self.config.window, Global):
            yield from super().on_end()

    def _close(self, before_us: int, until_us: int | None) -> Iterator[Emit]:
        """Forget the windows that end by `until_us` (`None`: all): all is said of them."""
        slots = self._state.over(until_us)
        for begin in range(0, len(slots), OUTPUT_ROWS_MAX):
            piece = slots[begin : begin + OUTPUT_ROWS_MAX]
            keys, starts, ends, results = self._state.results(piece)
            self._results(keys, starts, ends, results)
            self._state.remove(piece)
        if len(slots):
            self._count_state()
        yield from ()


def pieces_of_changes(slots: Int64Array, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield rows of changes in pieces; what replaces a row stays in one piece with it.

    Parameters
    ----------
    slots
        Of each row, ascending, int64, shape (n,).
    """
    begin = 0
    while begin < len(slots):
        end = min(begin + OUTPUT_ROWS_MAX, len(slots))
        end -= int(end < len(slots) and slots[end - 1] == slots[end])
        yield rows.slice(begin, end - begin)
        begin = end


def changed_rows(changes: Changes) -> tuple[Int64Array, list[pa.Array]]:
    """Return slots and columns of rows that are taken back or come, with their weights.

    Of one slot the row that is taken back comes first. Where both are the same, neither is there.
    """
    before, after = changes.slots_before, changes.slots_after
    slots = np.concatenate([before, after])
    comes = np.repeat([False, True], [len(before), len(after)])
    order = np.lexsort((comes, slots))
    pairs = zip(changes.before, changes.after, strict=True)
    columns = [pa.concat_arrays(pair).take(pa.array(order)) for pair in pairs]
    slots, comes = slots[order], comes[order]
    firsts = np.flatnonzero(slots[1:] == slots[:-1])
    same = np.ones(len(firsts), dtype=np.bool_)
    for column in columns:
        same &= _are_same(column, firsts)
    kept = np.ones(len(slots), dtype=np.bool_)
    kept[firsts[same]] = kept[firsts[same] + 1] = False
    mask = pa.array(kept)
    weights = pa.array(np.where(comes, 1, -1)[kept])
    return slots[kept], [*(each.filter(mask) for each in columns), weights]


def _are_same(column: pa.Array, firsts: Int64Array) -> npt.NDArray[np.bool_]:
    """Return whether rows `firsts` have the values of the rows behind them; not sure: `False`."""
    if pat.is_nested(column.type):
        return np.zeros(len(firsts), dtype=np.bool_)
    one, two = column.take(pa.array(firsts)), column.take(pa.array(firsts + 1))
    equal = pc.fill_null(pc.equal(one, two), False)
    equal = pc.or_(equal, pc.and_(pc.is_null(one), pc.is_null(two)))
    if pat.is_floating(column.type):
        equal = pc.or_(equal, pc.fill_null(pc.and_(pc.is_nan(one), pc.is_nan(two)), False))
    found: npt.NDArray[np.bool_] = equal.to_numpy(zero_copy_only=False)
    return found
