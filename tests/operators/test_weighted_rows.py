"""Rows with signed counts by slot, against a counter."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.weighted_rows import WeightedRows

TYPES = [pa.string(), pa.int64()]
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.none() | st.sampled_from(["a", "a longer text"]),
        st.integers(0, 1),
        st.integers(-2, 3),
    ),
    max_size=40,
)


def add(rows: WeightedRows, changes: list[tuple[int, str | None, int, int]]) -> None:
    slots, texts, numbers, weights = zip(*changes, strict=True) if changes else ((),) * 4
    columns = [pa.array(texts, pa.string()), pa.array(numbers, pa.int64())]
    rows.add(np.array(slots, np.int64), columns, np.array(weights, np.int64))


@settings(max_examples=50)
@given(batches=st.lists(CHANGES, max_size=3), moves=st.booleans())
def test_what_holds_is_what_a_counter_says(
    batches: list[list[tuple[int, str | None, int, int]]], moves: bool
) -> None:
    rows, model = WeightedRows(TYPES), Counter[tuple[int, str | None, int]]()
    rows.grow(4)
    every = np.arange(3)
    for number, changes in enumerate(batches):
        add(rows, changes)
        for *row, weight in changes:
            model[tuple(row)] += weight  # type: ignore[index]  # of three
        places, columns, counts = rows.held(every)
        found = zip(places.tolist(), *(each.to_pylist() for each in columns), strict=True)
        assert dict(zip(found, counts.tolist(), strict=True)) == +model
        assert rows.counts(every).tolist() == [
            sum(slot == each for slot, *_ in +model) for each in every
        ]
        if moves:
            # What is owed moves with what holds.
            moved = WeightedRows(TYPES)
            moved.grow(4)
            moved.add_lists(every, rows.lists(every))
            rows = moved
        elif number == 1:
            rows.clear(np.array([1, 1]))
            model = Counter({row: count for row, count in model.items() if row[0] != 1})


def test_rows_that_have_gone_take_no_room() -> None:
    rows = WeightedRows([pa.int64()])
    rows.grow(1)
    slots, weights = np.zeros(1_000, np.int64), np.ones(1_000, np.int64)
    sizes = []
    for first in range(0, 40_000, 1_000):
        numbers = pa.array(range(first, first + 1_000))
        rows.add(slots, [numbers], weights)
        rows.add(slots[1:], [numbers[1:]], -weights[1:])
        sizes.append(rows.size_bytes)
    assert rows.counts(np.array([0])).tolist() == [40]
    assert max(sizes) < 300_000
