"""The rows of each key that wait for the watermark, or are still in a window that is to come.

rows ─▶ waiting, by time ─▶ passed by the watermark ─▶ frames of the rows of their key ─▶ forgotten,
                                                       when no later window has them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.arrow_buffers import values_of
from millstream.operators.chains import Chains
from millstream.operators.key_index import KeyIndex
from millstream.operators.open_windows import OpenWindows
from millstream.operators.operator import KEY_GROUP_COLUMN, POSITION_COLUMN
from millstream.operators.row_store import RowStore
from millstream.windows.by_rows import Counting, Sliding
from millstream.windows.watermark import WATERMARK_MIN

Int64Array = npt.NDArray[np.int64]

_PASSED, _ROW = "passed", "row."
_ROWS_KEPT_MIN = 4096
_GONE, _WAITS, _PASSES = range(3)


@dataclass(frozen=True, slots=True)
class Frames:
    """Windows that are over.

    Parameters
    ----------
    rows
        Of the keys that have one, in the order of key, time and place.
    begins, ends
        Each window has the rows `[begin, end)`; int64, shape (n,), in the order of their ends'
        times.
    owners
        The row that ended each.
    """

    rows: pa.RecordBatch
    begins: Int64Array
    ends: Int64Array
    owners: Int64Array


class RowFrames:
    """Rows by key and time; those that the watermark has not passed wait.

    Parameters
    ----------
    schema
        Of the rows.
    key_columns
        None: all rows have one key.
    time_column
        `timestamp[us, UTC]`, without nulls.
    window
        Which rows are in a window together.
    """

    def __init__(
        self,
        schema: pa.Schema,
        key_columns: Sequence[str],
        time_column: str,
        window: Sliding | Counting,
    ) -> None:
        self._schema = schema.append(pa.field(POSITION_COLUMN, pa.int64()))
        self._keys, self._time, self._window = tuple(key_columns), time_column, window
        self._index = KeyIndex([schema.field(each).type for each in key_columns] or [pa.int64()])
        self._rows = RowStore(self._schema)
        self._chains = Chains()
        # By entry: slot, time, and what becomes of it.
        self._slots = np.zeros(0, dtype=np.int64)
        self._times = np.zeros(0, dtype=np.int64)
        self._status = np.zeros(0, dtype=np.uint8)
        self._counts = np.zeros(0, dtype=np.int64)
        """How many entries each slot has."""
        self._waiting, self._aging = OpenWindows(), OpenWindows()
        self.passed_us = WATERMARK_MIN
        """The greatest time of a row that was passed."""

    def __len__(self) -> int:
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        arrays = self._slots.nbytes + self._times.nbytes + self._status.nbytes
        arrays += self._counts.nbytes
        return arrays + self._index.size_bytes + self._rows.size_bytes + self._chains.size_bytes

    def add(self, batch: pa.RecordBatch) -> None:
        """Let rows wait."""
        if POSITION_COLUMN not in batch.schema.names:
            zeros = pa.array(np.zeros(batch.num_rows, dtype=np.int64))
            batch = batch.append_column(POSITION_COLUMN, zeros)
        entries = self._put(batch.select(self._schema.names))
        self._waiting.add(self._times[entries], entries)

    def take(self, until_us: int | None) -> Frames | None:
        """Return the windows that rows before `until_us` end (`None`: all), if there are any."""
        passed = self._waiting.take_until(None if until_us is None else until_us - 1)
        frames = self._pass(passed) if len(passed) else None
        if isinstance(self._window, Sliding) and until_us is not None:
            # No window of a row that is still to come has these.
            last_us = max(until_us - self._window.size_us, WATERMARK_MIN + 1) - 1
            old = self._aging.take_until(last_us)
            if len(old):
                self._drop(old)
        if len(self._status) >= max(_ROWS_KEPT_MIN, 4 * int(self._counts.sum())):
            self._compact()
        return frames

    def _pass(self, passed: Int64Array) -> Frames | None:
        """Let the watermark pass entries; return the windows that they end."""
        before = self._chains.entries(np.unique(self._slots[passed]))
        entries = np.concatenate([before, passed])
        (positions,) = self._rows.take([POSITION_COLUMN], entries)
        keys = values_of(positions), self._times[entries], self._slots[entries]
        entries = entries[np.lexsort(keys)]
        own, times = self._slots[entries], self._times[entries]
        is_new = self._status[entries] == _WAITS
        kept = np.ones(len(entries), dtype=np.bool_)
        if isinstance(self._window, Sliding):
            begins, ends = _sliding(own, times, is_new, self._window.size_us)
            owners = np.flatnonzero(is_new)
        else:
            begins, ends, kept = _counted(own, self._window)
            owners = ends - 1
        self.passed_us = max(self.passed_us, int(times.max()))
        frames = None
        if len(begins):
            columns = self._rows.take(self._schema.names, entries)
            in_time = np.argsort(times[owners], kind="stable")
            rows = pa.RecordBatch.from_arrays(columns, schema=self._schema)
            frames = Frames(rows, begins[in_time], ends[in_time], owners[in_time])
        self._keep(entries[is_new & kept])
        if not kept.all():
            self._drop(entries[~kept])
        return frames

    def snapshot(self) -> pa.Table:
        """Return all rows, with whether the watermark has passed them."""
        entries = np.flatnonzero(self._status)
        rows = self._rows.take(self._schema.names, entries)
        groups = np.zeros(len(entries), dtype=np.int32)
        if self._keys and len(entries):
            groups = key_groups_of([rows[self._schema.names.index(each)] for each in self._keys])
        return pa.table(
            {
                KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
                _PASSED: pa.array(self._status[entries] == _PASSES),
                **{
                    f"{_ROW}{name}": column
                    for name, column in zip(self._schema.names, rows, strict=True)
                },
            }
        )

    def restore(self, parts: Sequence[pa.Table], groups: range) -> None:
        """Take the rows of snapshots whose key group is in `groups`."""
        for part in parts:
            group = np.asarray(part.column(KEY_GROUP_COLUMN))
            mine = part.filter(pa.array((group >= groups.start) & (group < groups.stop)))
            columns = [mine.column(f"{_ROW}{name}").combine_chunks() for name in self._schema.names]
            entries = self._put(pa.RecordBatch.from_arrays(columns, schema=self._schema))
            passed = np.asarray(mine.column(_PASSED))
            self._waiting.add(self._times[entries[~passed]], entries[~passed])
            self._keep(entries[passed])

    def _put(self, rows: pa.RecordBatch) -> Int64Array:
        """Add rows as entries that wait; return their numbers."""
        first, count = len(self._rows), rows.num_rows
        keys = [rows.column(name) for name in self._keys]
        slots = self._index.insert(keys or [pa.array(np.zeros(count, dtype=np.int64))]).of_rows
        self._chains.grow(self._index.capacity)
        counts = np.bincount(slots, minlength=self._index.capacity)
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self._rows.append(rows)
        if len(self._slots) < first + count:
            more = max(first + count, 2 * len(self._slots)) - len(self._slots)
            zeros = np.zeros(more, dtype=np.int64)
            self._slots = np.concatenate([self._slots, zeros])
            self._times = np.concatenate([self._times, zeros])
            self._status = np.concatenate([self._status, np.zeros(more, dtype=np.uint8)])
        new = slice(first, first + count)
        self._slots[new] = slots
        self._times[new] = values_of(rows.column(self._time).cast(pa.int64()))
        self._status[new] = _WAITS
        return np.arange(first, first + count)

    def _keep(self, entries: Int64Array) -> None:
        """Keep entries that the watermark has passed for windows to come."""
        self._status[entries] = _PASSES
        self._chains.link(entries, self._slots[entries], len(self._status))
        if isinstance(self._window, Sliding):
            self._aging.add(self._times[entries], entries)

    def _drop(self, entries: Int64Array) -> None:
        """Forget entries, and keys that have no other."""
        self._status[entries] = _GONE
        slots = np.unique(self._slots[entries])
        of_slots = self._chains.entries(slots)
        self._chains.clear(slots)
        left = of_slots[self._status[of_slots] == _PASSES]
        self._chains.link(left, self._slots[left], len(self._status))
        self._counts -= np.bincount(self._slots[entries], minlength=len(self._counts))
        self._index.remove(slots[self._counts[slots] == 0])

    def _compact(self) -> None:
        """Give the entries that are there new numbers, without gaps."""
        entries = np.flatnonzero(self._status)
        self._rows.keep(entries)
        self._slots, self._times = self._slots[entries], self._times[entries]
        self._status = self._status[entries]
        passed = self._status == _PASSES
        waiting, kept = np.flatnonzero(~passed), np.flatnonzero(passed)
        self._waiting, self._aging, self._chains = OpenWindows(), OpenWindows(), Chains()
        self._chains.grow(self._index.capacity)
        self._waiting.add(self._times[waiting], waiting)
        self._keep(kept)


def _sliding(
    slots: Int64Array, times: Int64Array, is_new: npt.NDArray[np.bool_], size_us: int
) -> tuple[Int64Array, Int64Array]:
    """Return the windows of the new rows among rows in the order of slots and times."""
    known, ranks = np.unique(times, return_inverse=True)
    width = len(known) + 1
    places, own = slots * width + ranks, slots[is_new] * width
    least = np.maximum(times[is_new], WATERMARK_MIN + size_us) - size_us
    begins = np.searchsorted(places, own + np.searchsorted(known, least))
    return begins, np.searchsorted(places, places[is_new], side="right")


def _counted(
    slots: Int64Array, window: Counting
) -> tuple[Int64Array, Int64Array, npt.NDArray[np.bool_]]:
    """Return the windows that are full, and which rows are in one that is not yet."""
    firsts = np.flatnonzero(np.append(True, slots[1:] != slots[:-1]))
    lengths = np.diff(np.append(firsts, len(slots)))
    counts = np.maximum((lengths - window.size) // window.slide + 1, 0)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(firsts, counts) + within * window.slide
    places = np.arange(len(slots)) - np.repeat(firsts, lengths)
    kept = places >= np.repeat(counts * window.slide, lengths)
    return begins, begins + window.size, kept
