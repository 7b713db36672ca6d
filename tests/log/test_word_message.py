"""The message that is made from a template is the one that pyarrow's writer makes."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
from hypothesis import given, settings

from millstream.log.encoding import encode_batch
from millstream.log.metadata import ColumnLayout
from millstream.log.word_message import try_word_message
from tests.log.test_encoding import PLAIN_VALUES, batches

WORDS = [
    (data_type, [each for each in values if each is not None])
    for data_type, values in PLAIN_VALUES
    if ColumnLayout.of(pa.schema([("x", data_type)])).word_widths
]


@settings(max_examples=200)
@given(batches(WORDS))
def test_the_bytes_are_those_of_pyarrow(batch: pa.RecordBatch) -> None:
    layout = ColumnLayout.of(batch.schema)
    assert layout.word_widths
    # Of a slice pyarrow writes what follows, too, as padding: a copy has nothing behind it.
    copy = batch.take(pa.array(range(batch.num_rows), pa.int64()))
    expected = encode_batch(copy, replace(layout, word_widths=()))
    found = encode_batch(batch, layout)
    assert found.before == expected.before
    assert b"".join(map(bytes, found.body)) == b"".join(map(bytes, expected.body))
    assert found.column_checksums == expected.column_checksums
    assert found.packed_checksums == expected.packed_checksums
    assert found.before_checksum == expected.before_checksum
    assert (found.frame_size, found.body_size) == (expected.frame_size, expected.body_size)


def test_a_batch_with_a_null_or_without_rows_is_left_to_pyarrow() -> None:
    batch = pa.record_batch({"a": pa.array([1, 2, None]), "b": pa.array([1.0, 2.0, 3.0])})
    assert try_word_message(batch, (8, 8), 64) is None
    assert try_word_message(batch.slice(0, 0), (8, 8), 64) is None
    assert try_word_message(batch.slice(0, 2), (8, 8), 64) is not None


def test_only_flat_types_of_whole_bytes_are_words() -> None:
    assert {each.id for each, _ in WORDS}.isdisjoint(
        {pa.bool_().id, pa.string().id, pa.null().id, pa.list_(pa.bool_(), 2).id}
    )
    words = {each.id for each, _ in WORDS}
    assert {pa.int8().id, pa.float64().id, pa.decimal128(20, 3).id, pa.binary(3).id} <= words
    mixed = ColumnLayout.of(pa.schema([("a", pa.int64()), ("b", pa.string())]))
    assert mixed.word_widths == ()
