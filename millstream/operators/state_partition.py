"""One part of an operator's keys: in memory as an operator of its own, or in scratch files.

files: full ◀─ change ◀─ change        as the snapshots of a checkpoint, applied in order
└──── load ───▶ operator ──── save ───▶ one change more, or all anew
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa

from millstream.operators.operator import Operator, OperatorConfig, OperatorCounters, StateSnapshot
from millstream.operators.scratch_tables import ScratchTables, StoredTable
from millstream.windows.watermark import WATERMARK_MIN

_CHANGES_MIN_ROWS = 256
"""So few rows of changes are no reason to write everything anew."""


@runtime_checkable
class Spillable(Operator, Protocol):
    """An operator whose state is kept by key, and can be put away and taken up again."""

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        ...

    def due_us(self) -> int | None:
        """Return a watermark before which `on_watermark` gives nothing out; `None`: it never does.

        As of the rows that it has seen.
        """
        ...


@dataclass(frozen=True, slots=True)
class _StoredSnapshot:
    """A snapshot whose rows are in a file."""

    full: bool
    values: dict[str, int | str | None]
    version: int
    rows: StoredTable | None

    def read(self) -> StateSnapshot:
        rows = None if self.rows is None else self.rows.read()
        return StateSnapshot(self.full, rows, self.values, self.version)


class StatePartition:
    """The keys of some key groups.

    Parameters
    ----------
    config
        Of the operator.
    groups
        Key groups.
    tables
        Takes what is put away.
    counters
        Of its operator, whichever does the work; by default its own.
    """

    def __init__(
        self,
        config: OperatorConfig,
        groups: range,
        tables: ScratchTables,
        counters: OperatorCounters | None = None,
    ) -> None:
        self.groups = groups
        self.operator: Spillable | None = None
        self.counters = counters or OperatorCounters()
        self.watermark_us = WATERMARK_MIN
        """What its operator knows, or knew."""
        self.due_us: int | None = None
        self.mark: int | None = None
        """The checkpoint against which its operator knows what changed."""
        self.is_changed = False
        """Whether its files are not all."""
        self.changes = 0
        """How often changes were written since the last checkpoint of the job."""
        self._config = config
        self._tables = tables
        self._files: list[_StoredSnapshot] = []

    @property
    def disk_bytes(self) -> int:
        """What its files take."""
        return sum(each.rows.size_bytes for each in self._files if each.rows is not None)

    @property
    def memory_bytes(self) -> int:
        """What its operator takes."""
        return 0 if self.operator is None else self.counters.state_bytes

    def build(self) -> Spillable:
        """Make its operator, without a key."""
        operator = self._config.build()
        assert isinstance(operator, Spillable)
        operator.counters = self.counters
        self.operator = operator
        return operator

    def load(self) -> Spillable:
        """Return its operator, with what its files say."""
        if self.operator is not None:
            return self.operator
        operator = self.build()
        if self._files:
            operator.restore(self.snapshots(), self.groups)
            assert self.mark is not None
            operator.mark_saved(self.mark)
        return operator

    def snapshots(self) -> list[StateSnapshot]:
        """Return what its files say, which is all that there is where nothing changed."""
        return [each.read() for each in self._files]

    def newest(self) -> StateSnapshot:
        """Return what its newest file says beside its rows."""
        newest = self._files[-1]
        return StateSnapshot(newest.full, None, newest.values, newest.version)

    def save(self, mark: int) -> pa.Table | None:
        """Write what changed since the last time, which is returned, mapped; `None`: nothing.

        Parameters
        ----------
        mark
            Stands for what is saved now, and was not used before.
        """
        assert self.operator is not None
        changes = self._written(self.operator.snapshot(self.mark, mark))
        self.mark, self.is_changed = mark, False
        self.due_us = self.operator.due_us()
        rows = None if changes.rows is None else changes.rows.read()
        if changes.full:
            self.remove_files()
            self._files = [changes]
        elif not self._files or self._count_changes(changes) > self._changes_max():
            self.remove_files()
            if changes.rows is not None:
                changes.rows.remove()
            self._files = [self._written(self.operator.snapshot(None, mark))]
        else:
            self._files.append(changes)
        return rows

    def remove_files(self) -> None:
        """Remove its files."""
        for each in self._files:
            if each.rows is not None:
                each.rows.remove()
        self._files = []

    def _changes_max(self) -> int:
        return max(self.counters.state_keys, _CHANGES_MIN_ROWS)

    def _count_changes(self, newest: _StoredSnapshot) -> int:
        files: Sequence[_StoredSnapshot] = (*self._files[1:], newest)
        return sum(each.rows.num_rows for each in files if each.rows is not None)

    def _written(self, snapshot: StateSnapshot | None) -> _StoredSnapshot:
        assert snapshot is not None, "it has state"
        rows = snapshot.rows
        stored = None if rows is None or rows.num_rows == 0 else self._tables.write(rows)
        return _StoredSnapshot(snapshot.full, snapshot.values, snapshot.version, stored)
