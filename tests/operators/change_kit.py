"""What tests of changes share: a changelog in random order, and the rows that hold after it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from millstream.operators.weights import WEIGHT_FIELD, weights_of

Row = tuple[Any, ...]


def plain(value: Any) -> Any:
    """A value that equals itself, and zeros of both signs each other."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    return value


class Held:
    """The rows that hold, by their weights; every change must be one of what is there."""

    def __init__(self) -> None:
        self.rows: Counter[Row] = Counter()

    def apply(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Apply changes; what is taken back must have been there."""
        for batch in batches:
            for row, weight in zip(rows_of(batch), weights_of(batch).tolist(), strict=True):
                self.rows[row] += weight
                assert self.rows[row] >= 0, f"{row} was taken back and never came"
        self.rows = +self.rows

    def sorted(self) -> list[Row]:
        return sorted(self.rows.elements(), key=repr)


def rows_of(batch: pa.RecordBatch | pa.Table) -> list[Row]:
    """The rows without hidden columns."""
    names = [name for name in batch.schema.names if not name.startswith("_")]
    columns = [[plain(each) for each in batch.column(name).to_pylist()] for name in names]
    return list(zip(*columns, strict=True))


def weighted(rows: Sequence[Row], weights: Sequence[int], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as changes."""
    columns = zip(*rows, strict=True) if rows else [() for _ in schema]
    arrays = [pa.array(each, type_.type) for each, type_ in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(
        [*arrays, pa.array(weights, pa.int64())], schema=schema.append(WEIGHT_FIELD)
    )


@st.composite
def changelogs(
    draw: st.DrawFn, row: st.SearchStrategy[Row], size_max: int = 40
) -> list[tuple[Row, int]]:
    """Changes in an order in which nothing is taken back that is not there."""
    changes: list[tuple[Row, int]] = []
    held: list[Row] = []
    for _ in range(draw(st.integers(0, size_max))):
        if held and draw(st.integers(0, 2)) == 0:
            index = draw(st.integers(0, len(held) - 1))
            changes.append((held.pop(index), -1))
        else:
            held.append(draw(row))
            changes.append((held[-1], 1))
    return changes
