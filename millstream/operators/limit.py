"""The first rows of a stream, whichever these are: so many and no more.

    worker 0 ─▶ limit: its share ─┐
    worker 1 ─▶ limit: its share ─┴▶ [exchange] ─▶ limit: of all

A share lets pass as many as all may be, so that little crosses to the one worker that counts.
"""

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

_PASSED = "passed"


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """Passes the first rows.

    Parameters
    ----------
    schema
        Columns of the input, without hidden ones.
    count
        How many rows pass.
    is_share
        Whether others limit what this one lets pass. Then it keeps nothing in checkpoints: after
        each of them it may let pass as many again.
    """

    schema: pa.Schema
    count: int
    is_share: bool = False

    @property
    def consumes(self) -> ChangeMode:
        """Facts: which rows were the first is never taken back."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Facts."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """Stamps pass."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """The count is of the whole job, whatever the key groups."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The input's columns."""
        return (self.schema,)

    def build(self) -> Operator:
        """Return the operator, which has let nothing pass."""
        return Limit(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return f"the first {self.count} rows{' of this worker' if self.is_share else ''}"


class Limit(Stateless):
    """The running operator; see `LimitConfig`."""

    def __init__(self, config: LimitConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()
        self._passed = 0

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit as many of the rows as are missing."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_arrow += batch.num_rows
        kept = batch.slice(0, self.config.count - self._passed)
        self._passed += kept.num_rows
        self.counters.rows_out += kept.num_rows
        for begin in range(0, kept.num_rows, OUTPUT_ROWS_MAX):
            yield Emit(0, kept.slice(begin, OUTPUT_ROWS_MAX))

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return how many rows passed."""
        if self.config.is_share:
            return None
        return StateSnapshot(True, None, {_PASSED: self._passed})

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the count of the worker that counted, which is the greatest."""
        for each in snapshots:
            passed = each.values[_PASSED]
            assert isinstance(passed, int)
            self._passed = max(self._passed, passed)
