"""What the state of every kind of window does, and which kind of window has which state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.session_state import SessionState
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.operators.window_change import Changes
from millstream.operators.window_state import WindowState
from millstream.windows.assignment import RowWindow
from millstream.windows.session import Session

Int64Array = npt.NDArray[np.int64]


__all__ = ["Changes", "State", "new_state"]


class State(Protocol):
    """Slots of keys and their windows, and what is known of each."""

    def __len__(self) -> int:
        """Return how many windows are open."""
        ...

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        ...

    @property
    def due_us(self) -> int | None:
        """The end of the earliest window, or less; `None` where none is open."""
        ...

    def fold(self, batch: pa.RecordBatch, starts: Int64Array) -> None:
        """Fold rows into slots, `starts` being what `WindowAssigner` said of them."""
        ...

    def merge(self, batch: pa.RecordBatch, starts: Int64Array) -> None:
        """Merge combined rows, which `take_all` of another state gave, into slots."""
        ...

    def fold_changes(self, batch: pa.RecordBatch, starts: Int64Array, partial: bool) -> Changes:
        """Fold rows, or merge combined ones, and return what results were and what they are."""
        ...

    def take_all(self) -> list[pa.Array]:
        """Return everything as columns of the aggregate's `partial_schema`, and forget it."""
        ...

    def over(self, until_us: int | None) -> Int64Array:
        """Return slots of windows that end by then (`None`: all), which are no longer open."""
        ...

    def keys(self, slots: Int64Array) -> list[pa.Array]:
        """Return the key columns of `slots`."""
        ...

    def results(
        self, slots: Int64Array
    ) -> tuple[list[pa.Array], Int64Array, Int64Array, list[pa.Array]]:
        """Return key columns, starts, ends and result columns of `slots`."""
        ...

    def remove(self, slots: Int64Array) -> None:
        """Forget `slots`, which `over` gave."""
        ...

    def snapshot(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        """Return whether it is the full state, and the rows; see `StateSnapshot`."""
        ...

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        ...

    def restore(self, parts: Sequence[pa.Table], groups: range) -> None:
        """Apply the rows of snapshots, oldest first, whose key group is in `groups`."""
        ...


def new_state(config: WindowAggregateConfig) -> State:
    """Return the empty state of an aggregate."""
    schema, keys, aggregates = config.input_schema, config.key_columns, config.aggregates
    assert not isinstance(config.window, RowWindow), "of these the rows are kept"
    if isinstance(config.window, Session):
        return SessionState(schema, keys, aggregates, config.window.gap_us, config.time_column)
    return WindowState(schema, keys, aggregates, config.window, config.time_column)
