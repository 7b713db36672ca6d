"""Splits rows by key: over a topic's partitions, or over workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.log.key_hash import write_owners

_WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


class Piece(NamedTuple):
    """Rows of one owner.

    Attributes
    ----------
    rows
        Their numbers in the batch that was split, rising; uint32, shape (n,).
    batch
        The rows.
    """

    rows: npt.NDArray[np.uint32]
    batch: pa.RecordBatch


def split_by_key(batch: pa.RecordBatch, key_columns: Sequence[str], count: int) -> list[Piece]:
    """Return the rows of each of `count` owners, in memory of their own; see `Splitter.split`."""
    return Splitter().split(batch, key_columns, count)


class Splitter:
    """Splits batches one after another, each in the memory of the one before.

    In a virtual machine fresh memory is several times slower than the work itself.
    """

    def __init__(self) -> None:
        self._owners = np.empty(0, dtype=np.uint16)
        self._order = np.empty(0, dtype=np.uint32)
        self._places = np.empty(0, dtype=np.uint32)
        self._contents: dict[int, pa.Buffer] = {}

    def split(self, batch: pa.RecordBatch, key_columns: Sequence[str], count: int) -> list[Piece]:
        """Return the rows of each of `count` owners, in their order; they hold until the next call.

        Rows go to owner ⌊group·count/4096⌋ of their key's group.

        Parameters
        ----------
        batch
            Rows; may be a slice.
        key_columns
            Names of the columns that make the key, at least one.
        count
            Number of owners.

        Returns
        -------
        list of Piece
            `count` pieces, some of them empty. One that has all rows is `batch` itself.
        """
        rows = self._rows_of_owners(batch, key_columns, count)
        if any(len(each) == batch.num_rows for each in rows):
            return [Piece(each, batch if len(each) else batch.slice(0, 0)) for each in rows]
        # Words are moved once, for all pieces; of what is left Arrow makes a copy for each.
        given = batch.columns
        moved = [
            self._moved(index, column) if _is_words(column) else None
            for index, column in enumerate(given)
        ]
        schema = batch.schema
        pieces = []
        start = 0
        for each in rows:
            columns = [
                column.take(pa.array(each))
                if words is None
                else _part(words, column.type, start, len(each))
                for column, words in zip(given, moved, strict=True)
            ]
            pieces.append(Piece(each, pa.RecordBatch.from_arrays(columns, schema=schema)))
            start += len(each)
        return pieces

    def _rows_of_owners(
        self, batch: pa.RecordBatch, key_columns: Sequence[str], count: int
    ) -> list[npt.NDArray[np.uint32]]:
        """Return the row numbers of each owner, parts of `_order`; `_places` gets their inverse."""
        from millstream.log.kernels.key_hash import LANES, count_rows, place_by_owner

        size = batch.num_rows
        if len(self._order) < size:
            self._owners = np.empty(size, dtype=np.uint16)
            self._order = np.empty(size, dtype=np.uint32)
            self._places = np.empty(size, dtype=np.uint32)
        counts = np.zeros((count, LANES), dtype=np.int64)
        owners, order = self._owners[:size], self._order[:size]
        write_owners([batch.column(name) for name in key_columns], count, owners)
        count_rows(owners, counts)
        place_by_owner(owners, counts, self._places[:size], order)
        ends = counts[:, -1].tolist()
        return [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def _moved(self, index: int, column: pa.Array) -> pa.Buffer:
        """Return the words of column `index`, those of one owner after those of another."""
        from millstream.log.kernels.key_hash import scatter

        count, width = len(column), column.type.bit_width
        size_bytes = count * width // 8
        content = self._contents.get(index)
        if content is None or content.size < size_bytes:
            content = self._contents[index] = pa.allocate_buffer(size_bytes)
        values = np.frombuffer(column.buffers()[1], _WORDS[width])[column.offset :]
        scatter(values, self._places[:count], np.frombuffer(content, _WORDS[width], count))
        return content


def _is_words(column: pa.Array) -> bool:
    """Return whether the values are machine words without nulls: mostly so, and Arrow is slower."""
    data_type = column.type
    return pat.is_primitive(data_type) and data_type.bit_width in _WORDS and not column.null_count


def _part(words: pa.Buffer, data_type: pa.DataType, start: int, count: int) -> pa.Array:
    """Return `count` of the words as an array that ends with them.

    Of a slice of an array Arrow writes what follows, too, as padding.
    """
    width = data_type.bit_width // 8
    content = words.slice(start * width, count * width)
    return pa.Array.from_buffers(data_type, count, [None, content], null_count=0)
