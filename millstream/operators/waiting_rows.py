"""Rows that wait until the state of their keys is in memory, sorted by key group.

batch, batch, … ─▶ block: rows by key group, in the order in which they came ─▶ memory, then disk
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import KEY_GROUPS, key_groups
from millstream.log.metadata import dictionary_count
from millstream.operators.operator import OUTPUT_ROWS_MAX
from millstream.operators.scratch_tables import ScratchTables, StoredTable

_BLOCK_ROWS = 1_048_576


@dataclass(slots=True)
class _Block:
    """Rows by key group.

    Parameters
    ----------
    rows
        `None` where they lie on disk.
    ends
        Where each key group's rows begin, and where the last one's end, shape (4097,).
    """

    rows: pa.RecordBatch | None
    ends: npt.NDArray[np.int64]
    stored: StoredTable | None = None

    def read(self) -> pa.RecordBatch:
        """Return the rows; those on disk are mapped, and read where they are looked at."""
        if self.rows is not None:
            return self.rows
        assert self.stored is not None
        return self.stored.read().to_batches()[0]


class WaitingRows:
    """Rows of one input, by key group.

    Parameters
    ----------
    key_columns
        The key's columns.
    tables
        Takes blocks that have no room in memory.
    """

    def __init__(self, key_columns: Sequence[str], tables: ScratchTables) -> None:
        self._key_columns = tuple(key_columns)
        self._tables = tables
        self._gathered: list[pa.RecordBatch] = []
        self._gathered_rows = 0
        self._gathered_bytes = 0
        self._blocks: list[_Block] = []
        self.num_rows = 0
        self.memory_bytes = 0
        """What is held in memory."""
        self.disk_bytes = 0

    def add(self, batch: pa.RecordBatch, memory_max_bytes: int) -> None:
        """Take rows, of which at most `memory_max_bytes` stay in memory."""
        if self._gathered and batch.schema != self._gathered[0].schema:
            self.sort(memory_max_bytes)
        self._gathered.append(batch)
        self.num_rows += batch.num_rows
        self._gathered_rows += batch.num_rows
        size_bytes = batch.nbytes
        self._gathered_bytes += size_bytes
        self.memory_bytes += size_bytes
        enough = self._gathered_rows >= _BLOCK_ROWS or self._gathered_bytes > memory_max_bytes // 2
        if enough or not _is_mixable(batch.schema):
            self.sort(memory_max_bytes)

    def sort(self, memory_max_bytes: int) -> None:
        """Make a block of the rows that came last."""
        if not self._gathered:
            return
        rows = self._gathered[0] if len(self._gathered) == 1 else pa.concat_batches(self._gathered)
        groups = key_groups([rows.column(name) for name in self._key_columns]).astype(np.uint16)
        ends = np.zeros(KEY_GROUPS + 1, dtype=np.int64)
        np.cumsum(np.bincount(groups, minlength=KEY_GROUPS), out=ends[1:])
        block = _Block(rows.take(pa.array(np.argsort(groups, kind="stable"))), ends)
        if self.memory_bytes > memory_max_bytes:
            block.stored = self._tables.write(pa.Table.from_batches([block.rows]))
            block.rows = None
            self.memory_bytes -= self._gathered_bytes
            self.disk_bytes += block.stored.size_bytes
        self._blocks.append(block)
        self._gathered, self._gathered_rows, self._gathered_bytes = [], 0, 0

    def count_of(self, groups: range) -> int:
        """Return how many of the sorted rows are of key groups."""
        return sum(int(each.ends[groups.stop] - each.ends[groups.start]) for each in self._blocks)

    def rows_of(self, groups: range) -> Iterator[pa.RecordBatch]:
        """Yield the sorted rows of key groups, in the order in which they came, in pieces."""
        pieces: list[pa.RecordBatch] = []
        count = 0
        for block in self._blocks:
            begin, end = int(block.ends[groups.start]), int(block.ends[groups.stop])
            if begin == end:
                continue
            piece = block.read().slice(begin, end - begin)
            is_other = bool(pieces) and piece.schema != pieces[0].schema
            if pieces and (is_other or not _is_mixable(piece.schema) or count >= OUTPUT_ROWS_MAX):
                yield pa.concat_batches(pieces)
                pieces, count = [], 0
            pieces.append(piece)
            count += piece.num_rows
        if pieces:
            yield pa.concat_batches(pieces)

    def clear(self) -> None:
        """Forget all rows."""
        assert not self._gathered, "these were not worked on"
        for each in self._blocks:
            if each.stored is not None:
                each.stored.remove()
        self._blocks = []
        self.num_rows = self.memory_bytes = self.disk_bytes = 0


def _is_mixable(schema: pa.Schema) -> bool:
    """Return `False` where the indices of one dictionary for several batches might not fit."""
    return not any(dictionary_count(each.type) for each in schema)
