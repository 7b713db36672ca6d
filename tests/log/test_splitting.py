"""Rows of any types are split by key as a row by row split does it."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.dictionaries import compacted
from millstream.log.key_hash import KEY_GROUPS, key_groups
from millstream.log.splitting import Splitter, split_by_key
from tests.log.test_encoding import batches


@settings(max_examples=200)
@given(batches(), st.integers(1, 9), st.data())
def test_rows_are_split_in_their_order(
    batch: pa.RecordBatch, count: int, data: st.DataObject
) -> None:
    key, data_type = data.draw(
        st.sampled_from(
            [
                (st.integers(-3, 3), pa.int64()),
                (st.none() | st.integers(-3, 3), pa.int64()),
                (st.sampled_from(["", "a", "bc"]), pa.string()),
            ]
        )
    )
    keys = data.draw(st.lists(key, min_size=len(batch), max_size=len(batch)))
    batch = batch.append_column("key", pa.array(keys, data_type))
    groups = key_groups([batch.column("key")]).tolist()
    found = split_by_key(batch, ["key"], count)
    assert len(found) == count
    for owner, (rows, piece) in enumerate(found):
        piece.validate(full=True)
        mine = [row for row, group in enumerate(groups) if group * count // KEY_GROUPS == owner]
        assert rows.tolist() == mine
        expected = batch.take(pa.array(mine, pa.int64()))
        assert piece.schema.equals(batch.schema)
        assert piece.equals(expected)
        assert compacted(piece).to_pylist() == expected.to_pylist()


def test_one_splitter_splits_batch_after_batch() -> None:
    splitter = Splitter()
    for size, step in ((1_000, 1), (10, 3), (5_000, 7)):
        numbers = range(0, size * step, step)
        batch = pa.record_batch({"key": numbers, "x": pa.array(numbers, pa.float64())})
        pieces = splitter.split(batch, ["key"], 4)
        for (rows, piece), (own_rows, own) in zip(
            pieces, split_by_key(batch, ["key"], 4), strict=True
        ):
            assert rows.tolist() == own_rows.tolist()
            assert piece.equals(own)


def test_an_empty_batch_has_nothing_for_anybody() -> None:
    batch = pa.record_batch({"key": pa.array([], pa.int64()), "x": pa.array([], pa.int8())})
    assert [each.batch.num_rows for each in split_by_key(batch, ["key"], 3)] == [0, 0, 0]
