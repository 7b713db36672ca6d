"""Splits rows by key: over a topic's partitions, or over workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.log.key_hash import key_hashes

_WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


class Piece(NamedTuple):
    """Rows of one owner.

    Attributes
    ----------
    rows
        Their numbers in the batch that was split, rising; int64, shape (n,).
    batch
        The rows.
    """

    rows: npt.NDArray[np.int64]
    batch: pa.RecordBatch


def split_by_key(batch: pa.RecordBatch, key_columns: Sequence[str], count: int) -> list[Piece]:
    """Return the rows of each of `count` owners, in their order.

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
    from millstream.log.kernels.key_hash import LANES, order_by_owner

    lanes = np.zeros((count, LANES), dtype=np.int64)
    order = np.empty(batch.num_rows, dtype=np.int64)
    hashes = key_hashes([batch.column(name) for name in key_columns])
    order_by_owner(hashes, lanes, order)
    ends = lanes[:, -1].tolist()
    starts = [0, *ends[:-1]]
    rows = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    if any(len(each) == batch.num_rows for each in rows):
        return [Piece(each, batch if len(each) else batch.slice(0, 0)) for each in rows]
    # Words are moved once, for all pieces; of what is left Arrow makes a copy for each.
    given = batch.columns
    moved = [_ordered(column, order) if _is_words(column) else None for column in given]
    schema = batch.schema
    pieces = []
    for start, each in zip(starts, rows, strict=True):
        columns = [
            column.take(pa.array(each))
            if words is None
            else _part(words, column.type, start, len(each))
            for column, words in zip(given, moved, strict=True)
        ]
        pieces.append(Piece(each, pa.RecordBatch.from_arrays(columns, schema=schema)))
    return pieces


def _is_words(column: pa.Array) -> bool:
    """Return whether the values are machine words without nulls: mostly so, and Arrow is slower."""
    data_type = column.type
    return pat.is_primitive(data_type) and data_type.bit_width in _WORDS and not column.null_count


def _ordered(column: pa.Array, order: npt.NDArray[np.int64]) -> pa.Buffer:
    """Return the words of the row numbers `order`."""
    from millstream.log.kernels.key_hash import gather

    width = column.type.bit_width
    values = np.frombuffer(column.buffers()[1], _WORDS[width])[column.offset :]
    # From Arrow's pool, which keeps memory for the next batch: fresh pages are slow.
    content = pa.allocate_buffer(len(order) * width // 8)
    gather(values, order, np.frombuffer(content, _WORDS[width]))
    return content


def _part(words: pa.Buffer, data_type: pa.DataType, start: int, count: int) -> pa.Array:
    """Return `count` of the words as an array that ends with them.

    Of a slice of an array Arrow writes what follows, too, as padding.
    """
    width = data_type.bit_width // 8
    content = words.slice(start * width, count * width)
    return pa.Array.from_buffers(data_type, count, [None, content], null_count=0)
