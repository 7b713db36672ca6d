"""The first row of each key, and again after some time.

rows ─▶ late? ─▶ slot of the key ─▶ did one pass that is nearer than `within`? ─▶ port 0: if not
          ▼ port 1: late rows
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.arrow_buffers import values_of
from millstream.operators.event_times import TimeRange
from millstream.operators.open_windows import OpenWindows
from millstream.operators.operator import (
    KEY_GROUP_COLUMN,
    OUTPUT_ROWS_MAX,
    REMOVED_COLUMN,
    STAMP_COLUMN,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.windows.watermark import WATERMARK_MIN

STATE_VERSION = 1
_TIME = "kept_us"
_FOR_EVER_US = 2**62 - 1

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """Passes the first row of each key.

    Parameters
    ----------
    schema
        Columns of the input, without hidden ones.
    key_columns
        The key. A null is a value.
    time_column, within_us
        Event time, `timestamp[us, UTC]`, and for how long before and after a row that passed
        others of its key do not pass; `None`: for ever.
    """

    schema: pa.Schema
    key_columns: tuple[str, ...]
    time_column: str | None = None
    within_us: int | None = None

    @property
    def consumes(self) -> ChangeMode:
        """Facts: which row was the first is never taken back."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Facts."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """A row is late when what it might repeat is forgotten."""
        return self.within_us is not None

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The input's columns; of late rows, too."""
        return self.schema, self.schema

    def build(self) -> Operator:
        """Return the operator with no key."""
        return Dedup(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        within = "" if self.within_us is None else f" within {self.within_us} µs"
        return f"first row by {', '.join(self.key_columns)}{within}"


class Dedup(Stateless):
    """The running operator; see `DedupConfig`."""

    def __init__(self, config: DedupConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.key_index import KeyIndex

        self.config = config
        self.counters = OperatorCounters()
        self._types = [config.schema.field(name).type for name in config.key_columns]
        self._index = KeyIndex(self._types)
        self._kept: Int64Array = np.zeros(0, dtype=np.int64)
        self._times = OpenWindows()
        self._last_checkpoint: int | None = None

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the rows that are the first of their keys on port 0, late ones on port 1.

        Raises
        ------
        RowError
            Where a row has no event time, which it needs.
        """
        from millstream.operators.kernels.dedup import pass_first

        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        within_us = self.config.within_us
        times = np.zeros(batch.num_rows, dtype=np.int64)
        if within_us is not None:
            times = TimeRange(self.config.time_column or "").times(batch)
            late = _late(batch, times, within_us)
            if late.any():
                self.counters.rows_late += int(late.sum())
                yield from self._pieces(1, batch.filter(pa.array(late)))
                batch, times = batch.filter(pa.array(~late)), times[~late]
        slots = self._insert([batch.column(name) for name in self.config.key_columns])
        passes = np.empty(len(slots), dtype=np.bool_)
        distance = _FOR_EVER_US if within_us is None else within_us
        count = pass_first(slots, times, distance, self._kept, passes)
        if within_us is not None and count:
            self._times.add(times[passes], slots[passes])
        self._count_state()
        if count:
            yield from self._pieces(
                0, batch if count == len(slots) else batch.filter(pa.array(passes))
            )

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Forget the keys that no row can repeat any more that is not late."""
        within_us = self.config.within_us
        if within_us is not None and watermark_us > WATERMARK_MIN + 2 * within_us:
            # A row that is not late is younger than the watermark less `within`.
            until_us = watermark_us - 2 * within_us
            slots = np.unique(self._times.take_until(until_us))
            # A key that passed again since then is in there once more.
            slots = slots[self._kept[slots] <= until_us]
            self._remove(slots)
            self._count_state()
        yield from ()

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return all keys, or those that came or went since checkpoint `since`."""
        full = since is None or since != self._last_checkpoint
        slots = self._index.live_slots() if full else self._index.changed_slots()
        gone = [] if full else self._index.removed_keys()
        parts = [self._state_rows(keys, None) for keys in gone]
        parts.append(self._state_rows(self._index.keys(slots), self._kept[slots]))
        self.mark_saved(checkpoint)
        return StateSnapshot(full, pa.concat_tables(parts), version=STATE_VERSION)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._index.mark_snapshot()
        self._last_checkpoint = checkpoint

    def due_us(self) -> int | None:
        """Return `None`: keys are forgotten without a row."""
        return None

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the keys of `snapshots` that are in `key_groups`."""
        for snapshot in snapshots:
            assert snapshot.version == STATE_VERSION, f"state of version {snapshot.version}"
            if snapshot.rows is None:
                continue
            rows = snapshot.rows
            group = np.asarray(rows.column(KEY_GROUP_COLUMN))
            rows = rows.filter(pa.array((group >= key_groups.start) & (group < key_groups.stop)))
            removed = np.asarray(rows.column(REMOVED_COLUMN))
            slots = self._index.find(self._key_arrays(rows.filter(pa.array(removed))))
            self._remove(slots[slots >= 0])
            rows = rows.filter(pa.array(~removed))
            slots = self._insert(self._key_arrays(rows))
            self._kept[slots] = np.asarray(rows.column(_TIME))
        self._times = OpenWindows()
        if self.config.within_us is not None:
            live = self._index.live_slots()
            self._times.add(self._kept[live], live)
        self._count_state()

    def _insert(self, keys: list[pa.Array]) -> Int64Array:
        """Return the slots of keys; of new ones no row has passed."""
        found = self._index.insert(keys)
        if len(self._kept) < self._index.capacity:
            more = np.zeros(self._index.capacity - len(self._kept), dtype=np.int64)
            self._kept = np.concatenate([self._kept, more])
        self._kept[found.added] = np.iinfo(np.int64).min
        return found.of_rows

    def _remove(self, slots: Int64Array) -> None:
        if len(slots):
            self._index.remove(slots)

    def _key_arrays(self, rows: pa.Table) -> list[pa.Array]:
        names = [f"key.{name}" for name in self.config.key_columns]
        return [rows.column(name).combine_chunks() for name in names]

    def _state_rows(self, keys: list[pa.Array], kept: Int64Array | None) -> pa.Table:
        """Return keys as a snapshot holds them; without `kept` they are gone."""
        count = len(keys[0])
        groups = key_groups_of(keys) if count else np.zeros(0, dtype=np.int32)
        names = [f"key.{name}" for name in self.config.key_columns]
        return pa.table(
            {
                KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
                REMOVED_COLUMN: pa.array(np.full(count, kept is None)),
                **dict(zip(names, keys, strict=True)),
                _TIME: pa.array(np.zeros(count, np.int64) if kept is None else kept),
            }
        )

    def _pieces(self, port: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            piece = batch.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(port, piece)

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._index)
        kept = self._kept.nbytes + self._times.size_bytes
        self.counters.state_bytes = self._index.size_bytes + kept


def _late(batch: pa.RecordBatch, times: Int64Array, within_us: int) -> npt.NDArray[np.bool_]:
    """Return which rows came when what they might repeat may be forgotten."""
    if STAMP_COLUMN not in batch.schema.names:
        return np.zeros(len(times), dtype=np.bool_)
    stamps = values_of(batch.column(STAMP_COLUMN))
    # A stamp of no watermark is the least there is, and not to be subtracted from.
    return times <= np.maximum(stamps, WATERMARK_MIN + within_us) - within_us
