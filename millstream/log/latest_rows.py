"""Finds the latest row of each key among many rows, in bounded memory.

Keys are compared by value. Where there are more of them than fit, they are gone through in
parts, by a hash: each part takes a pass over the key columns and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.key_hash import key_hashes

MEMORY_BYTES = 256 * 1024 * 1024
"""The latest rows of one pass, with their keys, take about this much at most."""

PARTS_MAX = 4096
"""Keys are split into so many parts at most; few huge ones have to fit in any case."""

CHUNK_ROWS = 1 << 20
ROW_COLUMN = "_row"


class RowSet:
    """A set of row numbers from 0 up to, not including, `size`; one bit each."""

    def __init__(self, size: int) -> None:
        self._bits = np.zeros(-(-size // 8), dtype=np.uint8)

    def add(self, rows: npt.NDArray[np.int64]) -> None:
        """Add row numbers, in any order."""
        rows = np.sort(rows)
        for start in range(0, 8 * len(self._bits), CHUNK_ROWS):
            first, end = np.searchsorted(rows, [start, start + CHUNK_ROWS])
            if first < end:
                mask = np.zeros(CHUNK_ROWS, dtype=np.bool_)
                mask[rows[first:end] - start] = True
                window = self._bits[start // 8 : (start + CHUNK_ROWS) // 8]
                window |= np.packbits(mask)[: len(window)]

    def slice(self, start: int, count: int) -> npt.NDArray[np.bool_]:
        """Return of `count` rows from `start` on whether they are in the set, bool."""
        first = start // 8
        bits = np.unpackbits(self._bits[first : -(-(start + count) // 8)])
        return bits[start - 8 * first :][:count].astype(np.bool_)


def one_form(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return key values so that equal ones have equal bits: −0.0 is 0.0, and there is one NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_floating(column.type):
        return column
    column = column.cast(pa.float64())
    return pc.if_else(pc.is_nan(column), float("nan"), pc.add(column, 0.0))


def latest_rows(
    batches: Callable[[], Iterable[pa.RecordBatch]],
    names: Sequence[str],
    row_count: int,
    memory_bytes: int = MEMORY_BYTES,
) -> RowSet:
    """Return the numbers of the rows that no later row of the same key follows.

    Parameters
    ----------
    batches
        Returns all rows, in order, anew at each call; only the key columns are needed.
    names
        The key columns.
    row_count
        How many rows there are.
    memory_bytes
        See `MEMORY_BYTES`.
    """
    found = RowSet(row_count)
    parts = [(1, 0)]
    while parts:
        modulus, residue = parts.pop()
        limit = memory_bytes if modulus < PARTS_MAX else None
        latest = _try_latest(_parts(batches(), names, modulus, residue), names, limit)
        if latest is None:
            parts += [(2 * modulus, residue), (2 * modulus, residue + modulus)]
        else:
            found.add(latest)
    return found


def _parts(
    batches: Iterable[pa.RecordBatch], names: Sequence[str], modulus: int, residue: int
) -> Iterator[pa.Table]:
    """Yield the keys of one part, with their row numbers."""
    start = 0
    for batch in batches:
        columns = [batch.column(name) for name in names]
        rows = np.arange(start, start + batch.num_rows)
        start += batch.num_rows
        part = pa.table([*map(one_form, columns), rows], names=[*names, ROW_COLUMN])
        if modulus > 1:
            # The lower bits say which partition a key is in: here they differ little.
            hashes = key_hashes(columns) >> np.uint64(24)
            part = part.filter(pa.array(hashes % np.uint64(modulus) == np.uint64(residue)))
        yield part


def _try_latest(
    parts: Iterable[pa.Table], names: Sequence[str], memory_bytes: int | None
) -> npt.NDArray[np.int64] | None:
    """Return the latest rows of the keys in `parts`; `None`: they take more than the limit."""
    latest: pa.Table | None = None
    waiting: list[pa.Table] = []
    rows = 0
    for part in parts:
        waiting.append(part)
        rows += part.num_rows
        if rows >= max(CHUNK_ROWS, 0 if latest is None else latest.num_rows):
            latest = _grouped([*waiting, *([] if latest is None else [latest])], names)
            waiting, rows = [], 0
            if memory_bytes is not None and latest.nbytes > memory_bytes:
                return None
    latest = _grouped([*waiting, *([] if latest is None else [latest])], names)
    numbers: npt.NDArray[np.int64] = latest.column(ROW_COLUMN).to_numpy()
    return numbers


def _grouped(parts: list[pa.Table], names: Sequence[str]) -> pa.Table:
    if not parts:
        return pa.table({ROW_COLUMN: pa.array([], pa.int64())})
    grouped = pa.concat_tables(parts).group_by(list(names), use_threads=False)
    found = grouped.aggregate([(ROW_COLUMN, "max")])
    return found.rename_columns([*names, ROW_COLUMN])
