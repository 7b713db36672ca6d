"""How many bytes each row of some columns takes, so that output is cut by size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.arrow_buffers import strings_of


def row_bytes(columns: Sequence[pa.Array], count: int) -> npt.NDArray[np.int64]:
    """Return how many bytes each of `count` rows takes in `columns`; int64, shape (count,).

    Exact but for validity where values are strings or of fixed width; of others (lists, structs)
    every row counts as the average one. What a dictionary holds is not counted.
    """
    sizes = np.zeros(count, dtype=np.int64)
    for column in columns if count else ():
        if _has_offsets(column.type):
            offsets, _ = strings_of(column)
            sizes += np.diff(offsets) + offsets.itemsize
        else:
            sizes += _average_bytes(column)
    return sizes


def _average_bytes(column: pa.Array) -> int:
    type_ = column.type.index_type if pat.is_dictionary(column.type) else column.type
    try:
        return (int(type_.bit_width) + 7) // 8
    except ValueError:  # a type of variable width
        return -(-int(column.nbytes) // len(column))


def _has_offsets(type_: pa.DataType) -> bool:
    return bool(
        pat.is_string(type_)
        or pat.is_binary(type_)
        or pat.is_large_string(type_)
        or pat.is_large_binary(type_)
    )
