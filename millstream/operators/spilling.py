"""An operator whose state may outgrow memory.

While it fits, one operator does the work, and nothing is different. Once it does not, the keys are
cut into partitions, by ranges of key groups, most of which lie in scratch files. Rows wait then,
and are worked on partition by partition (as in Grace's hash join, Kitsuregawa et al., 1983), so
that a partition is read and written once for many rows::

    rows ─▶ waiting, by key group ─▶ for each partition ┌ load, take its rows, learn the time ┐ ─▶
                   │                                    └ save, make room                     ┘
                   └ enough of them, a checkpoint, or nothing else to do

A partition that is put away and taken up again is an operator that died at a checkpoint and was
restored: its results are the same. What it would have given out comes later, at the latest with the
next checkpoint, and the watermark of the output waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from millstream.operators.memory_budget import MemoryBudget
from millstream.operators.operator import (
    KEY_GROUP_COLUMN,
    Emit,
    OperatorConfig,
    OperatorCounters,
    StateSnapshot,
)
from millstream.operators.scratch_tables import ScratchTables
from millstream.operators.state_partition import StatePartition
from millstream.operators.waiting_rows import WaitingRows
from millstream.windows.watermark import WATERMARK_MIN

_WAYS = 4
"""Into so many a partition is cut that has become too large."""
_PARTITIONS_FIRST = 8
_CUT_MIN_BYTES = 256 * 1024
"""A smaller partition is not cut: an operator without a key takes a part of that."""
_STATE_PER_ROW_BYTE = 3
"""About so much more than its rows in a file takes the state that is made of them."""

_COUNTERS = tuple(each.name for each in fields(OperatorCounters))


class Spilling:
    """Runs an operator within a memory budget.

    Parameters
    ----------
    config
        Of the operator, which is `Spillable`.
    key_columns
        Of each input, by which its rows are kept together. What waits of a later input comes first:
        the changes of a table before the rows that are joined with it.
    groups
        The key groups that can come.
    budget
        Shared with the other operators of a worker.
    tables
        Takes what has no room in memory.
    """

    def __init__(
        self,
        config: OperatorConfig,
        key_columns: Sequence[Sequence[str]],
        groups: range,
        budget: MemoryBudget,
        tables: ScratchTables,
    ) -> None:
        self.counters = OperatorCounters()
        self._config = config
        self._share = budget.share()
        self._tables = tables
        self._waiting = [WaitingRows(each, tables) for each in key_columns]
        self._model = config.build()
        """Asked for what depends on no key."""
        self._partitions = [StatePartition(config, groups, tables, self.counters)]
        self._partitions[0].build()
        self._is_split = False
        self._counted: dict[StatePartition, OperatorCounters] = {}
        """What of each partition's counters is in those of them all."""
        self._resident: dict[StatePartition, None] = {}
        """Partitions in memory; that which was worked on last comes last."""
        self._is_backward = False
        self._stored_bytes = 0
        self._watermark_us = WATERMARK_MIN
        self._told_us = WATERMARK_MIN
        """The watermark that all partitions know which it concerns."""
        self._passed_us = WATERMARK_MIN
        self._marks = 0
        self._last_checkpoint: int | None = None
        self._changes: list[list[pa.Table]] = []
        """Changes since the last checkpoint: the first ones of each partition, the second ones …"""

    @property
    def holds_back(self) -> bool:
        """`True` iff `catch_up` has something to do."""
        if any(each.num_rows for each in self._waiting):
            return True
        watermark_us = self._watermark_us
        return watermark_us > self._told_us and any(
            each.due_us is not None and each.due_us <= watermark_us for each in self._partitions
        )

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Let the operator take the rows, or let them wait until the state of their keys is there.

        Raises
        ------
        SpillError
            Where the disk refuses what has no room in memory.
        """
        if not self._is_split:
            whole = self._partitions[0]
            yield from self._run(whole, whole.load().on_batch(input_index, batch))
            if self.counters.state_bytes > self._share.allowed_bytes // 2:
                self._save(whole)
                self._cut(whole, _PARTITIONS_FIRST, whole.snapshots())
            return
        if batch.num_rows:
            self._waiting[input_index].add(batch, self._waiting_max_bytes())
            self._count()
        waiting_bytes = sum(each.memory_bytes + each.disk_bytes for each in self._waiting)
        # Reading and writing all state once is then worth while.
        if waiting_bytes > max(self._stored_bytes // 2, self._share.allowed_bytes):
            yield from self.catch_up()

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Tell the operator, or remember it until its partitions are taken up."""
        self._watermark_us = max(self._watermark_us, watermark_us)
        if not self._is_split:
            whole = self._partitions[0]
            whole.watermark_us = self._told_us = self._watermark_us
            yield from self._run(whole, whole.load().on_watermark(watermark_us))

    def output_watermark(self, watermark_us: int) -> int:
        """Return the watermark of the output, which waits for what is held back."""
        if not self._is_split or not self.holds_back:
            self._passed_us = self._model.output_watermark(watermark_us)
        return self._passed_us

    def catch_up(self) -> Iterator[Emit]:
        """Work on all rows that wait, and give out what is due."""
        for each in self._waiting:
            each.sort(self._waiting_max_bytes())
        # There and back again: what was worked on last is in memory still.
        partitions = self._partitions[::-1] if self._is_backward else list(self._partitions)
        for partition in partitions:
            yield from self._work_on(partition)
        self._is_backward = not self._is_backward
        for each in self._waiting:
            each.clear()
        self._told_us = self._watermark_us
        self._note_stored()

    def on_end(self) -> Iterator[Emit]:
        """Catch up, and let the operator give out what is open."""
        if not self._is_split:
            yield from self._run(self._partitions[0], self._partitions[0].load().on_end())
            return
        yield from self.catch_up()
        if not self._config.timed:
            return
        for each in list(self._partitions):
            yield from self._took_up(each)
            yield from self._run(each, each.load().on_end())
            each.is_changed = True
            self._make_room()

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return all state, or what changed since checkpoint `since`: mapped, where it is on disk.

        What waits must have been worked on.
        """
        assert not any(each.num_rows for each in self._waiting), "they belong before the barrier"
        full = since is None or since != self._last_checkpoint
        self._last_checkpoint = checkpoint
        if not self._is_split:
            self._partitions[0].mark = checkpoint
            return self._partitions[0].load().snapshot(None if full else since, checkpoint)
        for each in self._partitions:
            if each.is_changed:
                self._save(each)
            each.changes = 0
        changes, self._changes = self._changes, []
        if full:
            every = [each.snapshots() for each in self._partitions]
            changes = [
                [each[level].rows for each in every if level < len(each)]
                for level in range(max(len(each) for each in every))
            ]
        joined = [_joined(each) for each in changes]
        first, *further = [each for each in joined if each is not None] or [None]
        newest = [each.newest() for each in self._partitions]
        values = _merged([each.values for each in newest])
        return StateSnapshot(full, first, values, newest[0].version, tuple(further))

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the state of `key_groups`, in partitions where it has no room in memory."""
        rows_bytes = sum(each.rows.nbytes for each in snapshots if each.rows is not None)
        state_bytes = rows_bytes * _STATE_PER_ROW_BYTE
        whole = self._partitions[0]
        if state_bytes < self._share.allowed_bytes // 2:
            whole.load().restore(snapshots, key_groups)
            return
        count = _PARTITIONS_FIRST
        wanted_bytes = max(self._share.allowed_bytes // 16, _CUT_MIN_BYTES)
        while state_bytes // count > wanted_bytes and count < len(key_groups):
            count *= 2
        self._cut(whole, count, snapshots)

    def _run(self, partition: StatePartition, output: Iterator[Emit]) -> Iterator[Emit]:
        for emit in output:
            self._count(partition)
            yield emit
        self._count(partition)

    def _work_on(self, partition: StatePartition) -> Iterator[Emit]:
        """Give a partition its rows, and tell it the time, where there is something to do."""
        watermark_us = self._watermark_us
        is_due = partition.due_us is not None and partition.due_us <= watermark_us
        if not is_due and not any(each.count_of(partition.groups) for each in self._waiting):
            return
        yield from self._took_up(partition)
        operator = partition.load()
        for index, waiting in reversed(list(enumerate(self._waiting))):
            for rows in waiting.rows_of(partition.groups):
                yield from self._run(partition, operator.on_batch(index, rows))
        partition.watermark_us = watermark_us
        yield from self._run(partition, operator.on_watermark(watermark_us))
        partition.due_us = operator.due_us()
        partition.is_changed = True
        self._resident.pop(partition, None)
        self._resident[partition] = None
        is_large = partition.memory_bytes > max(self._share.allowed_bytes // 8, _CUT_MIN_BYTES)
        if is_large and len(partition.groups) > 1:
            self._save(partition)
            self._cut(partition, _WAYS, partition.snapshots())
        self._make_room()

    def _took_up(self, partition: StatePartition) -> Iterator[Emit]:
        """Load a partition; it hears first what it knew of time when it was put away."""
        if partition.operator is None:
            operator = partition.load()
            self._resident[partition] = None
            yield from self._run(partition, operator.on_watermark(partition.watermark_us))

    def _cut(
        self, partition: StatePartition, count: int, snapshots: Sequence[StateSnapshot]
    ) -> None:
        """Let partitions that share its key groups take the place of one, whose state is given."""
        partition.operator = None
        partition.counters.state_keys = partition.counters.state_bytes = 0
        partition.remove_files()
        self._resident.pop(partition, None)
        self._count(partition)
        self._counted.pop(partition, None)
        clustered = [_Clustered(each) for each in snapshots]
        parts = [
            StatePartition(self._config, each, self._tables)
            for each in _ranges(partition.groups, count)
        ]
        index = self._partitions.index(partition)
        self._partitions[index : index + 1] = parts
        self._is_split = True
        for part in parts:
            part.watermark_us, part.changes = partition.watermark_us, partition.changes
            part.build().restore([each.of(part.groups) for each in clustered], part.groups)
            part.save(self._next_mark())
            self._resident[part] = None
            self._count(part)
            self._make_room()
        self._note_stored()

    def _make_room(self) -> None:
        """Put away the partitions that were not worked on for the longest time."""
        while self._resident and self.counters.state_bytes > self._share.allowed_bytes // 2:
            oldest = next(iter(self._resident))
            del self._resident[oldest]
            if oldest.is_changed:
                self._save(oldest)
            oldest.operator = None
            self._count(oldest)

    def _waiting_max_bytes(self) -> int:
        """So much of the rows that wait on each input stays in memory."""
        return self._share.allowed_bytes // (8 * len(self._waiting))

    def _note_stored(self) -> None:
        self._stored_bytes = sum(each.disk_bytes for each in self._partitions)
        self._count()

    def _save(self, partition: StatePartition) -> None:
        """Write what changed of a partition."""
        rows = partition.save(self._next_mark())
        if rows is not None and self._last_checkpoint is not None:
            if partition.changes == len(self._changes):
                self._changes.append([])
            self._changes[partition.changes].append(rows)
            partition.changes += 1

    def _next_mark(self) -> int:
        self._marks -= 1  # checkpoints count upwards
        return self._marks

    def _count(self, partition: StatePartition | None = None) -> None:
        """Take a partition's counters, if any, and what waits, into those of them all."""
        totals = self.counters
        if partition is not None and partition.counters is not totals:
            counted = self._counted.setdefault(partition, OperatorCounters())
            for name in _COUNTERS:
                value = getattr(partition.counters, name)
                if name == "state_bytes":
                    value = partition.memory_bytes
                setattr(totals, name, getattr(totals, name) + value - getattr(counted, name))
                setattr(counted, name, value)
        waiting_bytes = sum(each.memory_bytes for each in self._waiting)
        totals.state_disk_bytes = self._stored_bytes + sum(
            each.disk_bytes for each in self._waiting
        )
        self._share.used_bytes = totals.state_bytes + waiting_bytes


class _Clustered:
    """A snapshot, and which of its batches hold rows of which key groups."""

    def __init__(self, snapshot: StateSnapshot) -> None:
        self._snapshot = snapshot
        self._batches: list[tuple[int, int, pa.RecordBatch]] = []
        rows = snapshot.rows
        for batch in [] if rows is None else rows.to_batches():
            if batch.num_rows:
                bounds = pc.min_max(batch.column(KEY_GROUP_COLUMN)).as_py()
                self._batches.append((bounds["min"], bounds["max"], batch))

    def of(self, groups: range) -> StateSnapshot:
        """Return the snapshot without batches that have no row of `groups`."""
        snapshot, rows = self._snapshot, self._snapshot.rows
        if rows is not None:
            mine = [
                batch
                for first, last, batch in self._batches
                if first < groups.stop and last >= groups.start
            ]
            rows = pa.Table.from_batches(mine, rows.schema)
        return StateSnapshot(snapshot.full, rows, snapshot.values, snapshot.version)


def _ranges(groups: range, count: int) -> list[range]:
    """Cut a range into at most `count` of about the same length."""
    count = min(count, len(groups))
    edges = [groups.start + len(groups) * index // count for index in range(count + 1)]
    return [range(first, end) for first, end in pairwise(edges)]


def _joined(tables: Sequence[pa.Table | None]) -> pa.Table | None:
    there = [each for each in tables if each is not None]
    return pa.concat_tables(there) if there else None


def _merged(values: Sequence[Mapping[str, int | str | None]]) -> dict[str, int | str | None]:
    """Return what the values of all partitions say together, as those of one worker."""
    merged: dict[str, int | str | None] = dict(values[0])
    for each in values[1:]:
        for name, value in each.items():
            known = merged[name]
            if isinstance(value, int) and isinstance(known, int):
                merged[name] = max(known, value)
            elif known is None or value is None:
                merged[name] = value if known is None else known
            elif value != known:
                merged[name] = f"{known} {value}"  # pieces of text, of one key group each
    return merged
