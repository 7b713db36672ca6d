"""Rows of any types are split by key as a row by row split does it."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.dictionaries import compacted
from millstream.log.key_hash import KEY_GROUPS, key_groups
from millstream.log.splitting import split_by_key
from tests.log.test_encoding import batches


@settings(max_examples=200)
@given(batches(), st.integers(1, 9), st.data())
def test_rows_are_split_in_their_order(
    batch: pa.RecordBatch, count: int, data: st.DataObject
) -> None:
    keys = data.draw(st.lists(st.integers(-3, 3), min_size=len(batch), max_size=len(batch)))
    batch = batch.append_column("key", pa.array(keys, pa.int64()))
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


def test_an_empty_batch_has_nothing_for_anybody() -> None:
    batch = pa.record_batch({"key": pa.array([], pa.int64()), "x": pa.array([], pa.int8())})
    assert [each.batch.num_rows for each in split_by_key(batch, ["key"], 3)] == [0, 0, 0]
