"""Aggregates over ranges of rows that overlap, each in time logarithmic in its length.

Neighbours are merged two by two, level by level, and a range is made of the few nodes that cover it
(as a segment tree)::

    rows     0 1 2 3 4 5 6 7
    level 1  └┴┘ └┴┘ └┴┘ └┴┘         rows [1, 7) = row 1, node 2–3, node 4–5, row 6
    level 2  └──┴──┘ └──┴──┘
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.aggregate import Aggregate
from millstream.operators.slot_aggregates import SlotAggregates

Int64Array = npt.NDArray[np.int64]


def aggregated_frames(
    aggregates: Sequence[Aggregate],
    schema: pa.Schema,
    time_column: str,
    rows: pa.RecordBatch,
    begins: Int64Array,
    ends: Int64Array,
) -> list[pa.Array]:
    """Return the result columns of frames.

    Parameters
    ----------
    rows
        With the columns of `schema`.
    begins, ends
        Each frame is of rows `[begin, end)`; int64, shape (n,).
    """
    every = np.arange(rows.num_rows)
    results = _empty(aggregates, schema, time_column, len(begins))
    nodes = _empty(aggregates, schema, time_column, rows.num_rows)
    nodes.fold(every, rows)
    columns, count = nodes.taken(every), rows.num_rows
    left, right = begins.copy(), ends.copy()
    while (open_ := left < right).any():
        odd = np.flatnonzero(open_ & (left % 2 == 1))
        _merge(results, odd, columns, left[odd])
        left[odd] += 1
        odd = np.flatnonzero((left < right) & (right % 2 == 1))
        right[odd] -= 1
        _merge(results, odd, columns, right[odd])
        left, right = left // 2, right // 2
        nodes = _empty(aggregates, schema, time_column, (count + 1) // 2)
        nodes.merge(np.arange(count) // 2, columns)
        count = (count + 1) // 2
        columns = nodes.taken(np.arange(count))
    return results.results(np.arange(len(begins)))


def _empty(
    aggregates: Sequence[Aggregate], schema: pa.Schema, time_column: str, count: int
) -> SlotAggregates:
    made = SlotAggregates(aggregates, schema, time_column)
    made.grow(max(count, 1))
    return made


def _merge(
    results: SlotAggregates, slots: Int64Array, columns: Sequence[pa.Array], places: Int64Array
) -> None:
    if len(slots):
        chosen = pa.array(places)
        results.merge(slots, [each.take(chosen) for each in columns])
