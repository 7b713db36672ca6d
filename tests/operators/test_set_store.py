from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.aggregate import Aggregate
from millstream.operators.set_store import SetStore

SLOTS = 4
STEP = st.one_of(
    st.tuples(
        st.just("fold"),
        st.lists(st.tuples(st.integers(0, SLOTS - 1), st.none() | st.integers(-3, 300))),
    ),
    st.tuples(st.just("clear"), st.lists(st.integers(0, SLOTS - 1), max_size=3)),
    st.tuples(st.just("move"), st.permutations(range(SLOTS))),
)


def found(store: SetStore, function: str) -> list[object]:
    asked = Aggregate("found", function, "x")  # type: ignore[arg-type]
    return store.result(asked, np.arange(SLOTS)).to_pylist()


@pytest.mark.parametrize("type_", [pa.int64(), pa.int16(), pa.float32(), pa.timestamp("ms")])
@settings(max_examples=25)
@given(steps=st.lists(STEP, max_size=8))
def test_a_store_keeps_a_set_a_slot(type_: pa.DataType, steps: list[tuple[str, list[Any]]]) -> None:
    store = SetStore("x", type_)
    store.grow(SLOTS)
    model: list[set[int]] = [set() for _ in range(SLOTS)]
    for kind, given_ in steps:
        if kind == "fold":
            # Each value brings a hundred, so that the table grows and is probed.
            rows = [
                (slot, None if x is None else x + 301 * k) for slot, x in given_ for k in range(99)
            ]
            column = pa.array([x for _, x in rows], pa.int64()).cast(type_)
            slots = np.array([slot for slot, _ in rows], dtype=np.int64)
            store.fold(slots, pa.record_batch([column], names=["x"]))
            for slot, x in rows:
                model[slot] |= set() if x is None else {x}
        elif kind == "clear":
            store.clear(np.array(given_, dtype=np.int64))
            for slot in given_:
                model[slot] = set()
        else:
            other = SetStore("x", type_)
            other.grow(SLOTS)
            other.add(np.array(given_), store.take(np.arange(SLOTS)))
            model = [model[given_.index(slot)] for slot in range(SLOTS)]
            store = other
    wanted = [pa.array(sorted(each), pa.int64()).cast(type_).to_pylist() or None for each in model]
    assert found(store, "collect_set") == wanted
    assert found(store, "count_distinct") == [len(each) for each in model]


def test_zeros_are_one_value_and_so_are_nans() -> None:
    store = SetStore("x", pa.float64())
    store.grow(1)
    column = pa.array([0.0, -0.0, math.nan, -math.nan, None, 1.0])
    store.fold(np.zeros(6, dtype=np.int64), pa.record_batch([column], names=["x"]))
    asked = Aggregate("found", "collect_set", "x")
    (values,) = store.result(asked, np.zeros(1, dtype=np.int64)).to_pylist()
    assert values[:2] == [0.0, 1.0]
    assert math.isnan(values[2])
