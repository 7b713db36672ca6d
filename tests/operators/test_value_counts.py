from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.value_counts import ValueCounts

SLOTS = 4
CHANGE = st.tuples(st.integers(0, SLOTS - 1), st.integers(-20, 20), st.sampled_from([1, 1, 2, -1]))


def column(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


@settings(max_examples=50)
@given(
    batches=st.lists(st.lists(CHANGE, max_size=30), max_size=8),
    cleared=st.lists(st.sets(st.integers(0, SLOTS - 1)), min_size=8, max_size=8),
)
def test_it_counts_values_in_order(
    batches: list[list[tuple[int, int, int]]], cleared: list[set[int]]
) -> None:
    counts, model = ValueCounts(), defaultdict[int, Counter[int]](Counter)
    counts.grow(SLOTS)
    every = column(list(range(SLOTS)))
    for batch, gone in zip(batches, cleared, strict=False):
        for slot, value, weight in batch:
            model[slot][value] += weight
        counts.add(*(column([each[index] for each in batch]) for index in range(3)))
        values, times = counts.lists(every)
        least, greatest = counts.extremes(every)
        for slot in range(SLOTS):
            wanted = sorted((value, count) for value, count in model[slot].items() if count)
            assert list(zip(values[slot].as_py(), times[slot].as_py(), strict=True)) == wanted
            there = [value for value, count in wanted if count > 0]
            assert (least[slot], greatest[slot]) == ((there[0], there[-1]) if there else (0, 0))
        if len(gone) == 1:
            counts.clear(column(sorted(gone)))
            model[gone.pop()].clear()


def test_room_that_was_given_back_is_used_again() -> None:
    counts = ValueCounts()
    counts.grow(1)
    slots = np.zeros(5_000, dtype=np.int64)
    values = np.arange(5_000)
    sizes = set()
    for _ in range(10):
        counts.add(slots, values, np.ones(5_000, dtype=np.int64))
        counts.add(slots, values, -np.ones(5_000, dtype=np.int64))
        sizes.add(counts.size_bytes)
    assert len(sizes) == 1


def test_what_is_listed_can_be_added_elsewhere() -> None:
    counts, other = ValueCounts(), ValueCounts()
    counts.grow(3)
    other.grow(8)
    counts.add(column([0, 2, 2, 2]), column([5, -1, 7, 7]), column([1, 2, 1, 1]))
    other.add_lists(column([7, 1]), *(each.slice(1) for each in counts.lists(column([1, 2, 0]))))
    values, times = other.lists(column([1, 7]))
    assert values == pa.array([[5], [-1, 7]], pa.large_list(pa.int64()))
    assert times == pa.array([[1], [2, 2]], pa.large_list(pa.int64()))
