"""Rows by number, against a list."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from millstream.operators.row_store import RowStore

SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("list", pa.list_(pa.int8())),
        pa.field("small", pa.int16()),
        pa.field("large", pa.large_binary()),
    ]
)


def batch(first: int, count: int) -> pa.RecordBatch:
    rows = [
        {
            "number": n,
            "text": f"text {n}" if n % 3 else None,
            "list": [n % 100] * (n % 4),
            "small": n % 100 if n % 5 else None,
            "large": bytes(n % 9),
        }
        for n in range(first, first + count + 1)
    ]
    return pa.RecordBatch.from_pylist(rows, SCHEMA).slice(1)


@given(sizes=st.lists(st.integers(0, 40), max_size=12), data=st.data())
def test_rows_are_taken_by_number(sizes: list[int], data: st.DataObject) -> None:
    store, rows = RowStore(SCHEMA), list[dict[str, object]]()
    for size in sizes:
        added = batch(1000 * len(rows), size)
        store.append(added)
        rows += added.to_pylist()
    assert len(store) == len(rows)
    wanted = data.draw(st.lists(st.integers(-1, len(rows) - 1), max_size=30))
    names = ["text", "list", "number", "large", "small"]
    arrays = store.take(names, np.array(wanted, dtype=np.int64))
    for name, array in zip(names, arrays, strict=True):
        array.validate(full=True)
        assert array.type == SCHEMA.field(name).type
        assert array.to_pylist() == [None if n < 0 else rows[n][name] for n in wanted]
    kept = sorted({n for n in wanted if n >= 0})
    store.keep(np.array(kept, dtype=np.int64))
    (numbers,) = store.take(["number"], np.arange(len(kept)))
    assert numbers.to_pylist() == [rows[n]["number"] for n in kept]
    assert len(store) == len(kept)


def test_many_small_batches_make_few_large_ones() -> None:
    store = RowStore(SCHEMA)
    for number in range(1_000):
        store.append(batch(number, 1))
        assert len(store._others._batches) <= 12
    assert store.size_bytes > 0
    (numbers,) = store.take(["number"], np.arange(1_000)[::-1])
    assert numbers.to_pylist() == list(range(1_000, 0, -1))


def test_a_batch_that_says_less_of_nulls_is_taken() -> None:
    store = RowStore(pa.schema(list(SCHEMA)[:2]))
    store.append(pa.record_batch({"number": pa.array([1]), "text": pa.array(["a"])}))
    store.append(batch(1, 1).select(["number", "text"]))
    assert [each.to_pylist() for each in store.take(["number", "text"], np.array([1, 0]))] == [
        [2, 1],
        ["text 2", "a"],
    ]
