"""An exchange gives each row to the worker that owns its key, in order, once."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.key_hash import key_groups
from millstream.operators.exchange import split_by_worker
from millstream.runtime.graph import key_groups_of_worker

ROW = st.tuples(
    st.none() | st.sampled_from(["", "JFK", "a longer key"]), st.none() | st.integers(-3, 3)
)


def batch_of(rows: list[tuple[str | None, int | None]]) -> pa.RecordBatch:
    texts, numbers = ([None, *(row[index] for row in rows)] for index in range(2))
    return pa.record_batch(
        {
            "text": pa.array(texts, pa.string()),
            "number": pa.array(numbers, pa.int32()),
            "row": pa.array(range(-1, len(rows))),
            "_stamp": pa.array(range(-1, len(rows))),
        }
    ).slice(1)


@given(
    rows=st.lists(ROW, max_size=50),
    keys=st.sampled_from([("text",), ("number",), ("text", "number"), ("_stamp",)]),
    parallelism=st.integers(1, 7) | st.just(64),
)
def test_every_row_goes_once_to_its_owner_in_order(
    rows: list[tuple[str | None, int | None]], keys: tuple[str, ...], parallelism: int
) -> None:
    batch = batch_of(rows)
    pieces = split_by_worker(batch, keys, parallelism)
    assert len(pieces) == parallelism
    groups = key_groups([batch.column(name) for name in keys]).tolist() if rows else []
    for worker, piece in enumerate(pieces):
        own = key_groups_of_worker(worker, parallelism)
        mine = [index for index, group in enumerate(groups) if group in own]
        assert piece.column("row").to_pylist() == mine
        assert piece.to_pylist() == [batch.to_pylist()[index] for index in mine]
        assert piece.schema == batch.schema


def test_rows_without_a_key_go_to_the_first_worker() -> None:
    batch = batch_of([("a", 1), ("b", 2)])
    pieces = split_by_worker(batch, (), 3)
    assert [each.num_rows for each in pieces] == [2, 0, 0]


def test_rows_of_one_owner_are_not_copied() -> None:
    batch = batch_of([("a", 1)] * 5)
    whole = [each for each in split_by_worker(batch, ("text",), 4) if each.num_rows]
    assert len(whole) == 1
    assert whole[0] is batch
