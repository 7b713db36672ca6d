"""The best rows of each key: each batch gives out which went and which came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.weights import WEIGHT_FIELD

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class TopConfig:
    """Keeps the best `limit` rows of each key.

    Parameters
    ----------
    schema
        Columns of the input, without hidden ones.
    key_columns
        Whose best rows are kept; none: of all rows.
    by, ascending
        Columns that order rows, and whether the least value comes first.
    then
        Columns that order rows which are equal in `by`, the least first.
    limit
        How many rows of a key are its best.
    takes_changes
        Whether rows of the input may be taken back.
    ties
        Whether rows that are equal in `by` to the last of the best are of the best, too.
    rank
        The column that says which of the best of its key a row is, from 1 on; `None`: none does.
    """

    schema: pa.Schema
    key_columns: tuple[str, ...]
    by: tuple[str, ...]
    limit: int
    ascending: bool = False
    then: tuple[str, ...] = ()
    takes_changes: bool = False
    ties: bool = False
    rank: str | None = None

    @property
    def consumes(self) -> ChangeMode:
        """Changes, where it keeps what it needs to take rows back."""
        return ChangeMode.CHANGELOG if self.takes_changes else ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Changes: a better row takes the place of another."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """No row is late."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The input's columns, and the rank."""
        rank = [] if self.rank is None else [pa.field(self.rank, pa.int64())]
        return (pa.schema([*self.schema, *rank]),)

    def build(self) -> Operator:
        """Return the operator with no row."""
        return Top(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        by = ", ".join(self.by)
        keys = ", ".join(self.key_columns)
        which = "least" if self.ascending else "greatest"
        tied = " with those tied" if self.ties else ""
        text = f"top {self.limit}{tied}, {which} {by} first{f', by {keys}' if keys else ''}"
        return text if self.rank is None else f"{text}; rank in {self.rank}"


class Top(Stateless):
    """The running operator; see `TopConfig`."""

    def __init__(self, config: TopConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.top_rows import TopRows

        self.config = config
        self.counters = OperatorCounters()
        self._schema = config.output_schemas[0].append(WEIGHT_FIELD)
        self._rows = TopRows(
            config.schema,
            config.key_columns,
            config.by,
            config.then,
            config.limit,
            ascending=config.ascending,
            ties=config.ties,
            takes_changes=config.takes_changes,
            ranked=config.rank is not None,
        )

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the rows that are no longer among the best of their key, and those that are now."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        changed = self._rows.change(batch)
        self._count_state()
        if changed is None:
            return
        self.counters.rows_arrow += len(changed.weights)
        ranks = [] if self.config.rank is None else [pa.array(changed.ranks)]
        columns = [*changed.rows, *ranks, pa.array(changed.weights)]
        result = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        for begin in range(0, result.num_rows, OUTPUT_ROWS_MAX):
            piece = result.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(0, piece)

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return the rows of all keys, or of those that changed since checkpoint `since`."""
        full, rows = self._rows.snapshot(since, checkpoint)
        return StateSnapshot(full, rows, version=STATE_VERSION)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._rows.mark_saved(checkpoint)

    def due_us(self) -> int | None:
        """Return `None`: nothing waits for a time."""
        return None

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the rows of `snapshots` whose keys are in `key_groups`."""
        for each in snapshots:
            assert each.version == STATE_VERSION, f"state of version {each.version}"
        self._rows.restore([each.rows for each in snapshots if each.rows is not None], key_groups)
        self._count_state()

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._rows)
        self.counters.state_bytes = self._rows.size_bytes
