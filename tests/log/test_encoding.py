"""Any batch, sliced anyhow, becomes a frame that reads back the same, here and in plain Arrow."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from crc32c import crc32c
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millstream.log.columns import SegmentLayouts
from millstream.log.encoding import encode_batch
from millstream.log.frame import Frame
from millstream.log.frame_header import FrameHeader
from millstream.log.metadata import (
    ColumnLayout,
    body_length,
    buffers_position,
    column_range,
    row_count,
)
from millstream.log.segment import Segment, encode_head

VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.bool_(), [True, False, None]),
    (pa.int8(), [-128, 127, None]),
    (pa.uint16(), [0, 65_535, None]),
    (pa.int32(), [-(2**31), 5, None]),
    (pa.int64(), [-(2**63), 2**63 - 1, None]),
    (pa.float16(), [0.5, None]),
    (pa.float32(), [1.5, float("inf"), None]),
    (pa.float64(), [-0.0, 1e300, None]),
    (pa.decimal128(20, 3), [Decimal("12.345"), None]),
    (pa.decimal256(50, 3), [Decimal("-12.345"), None]),
    (pa.string(), ["", "a", "Großhändler", None]),
    (pa.large_string(), ["x" * 70, None]),
    (pa.binary(), [b"", b"\x00", None]),
    (pa.large_binary(), [b"abc", None]),
    (pa.binary(3), [b"abc", None]),
    (pa.timestamp("us", "UTC"), [0, -1, None]),
    (pa.timestamp("ns"), [2**60, None]),
    (pa.date32(), [0, 20_000, None]),
    (pa.date64(), [86_400_000, None]),
    (pa.time64("us"), [1, None]),
    (pa.duration("ms"), [-5, None]),
    (pa.month_day_nano_interval(), [(1, 2, 3), None]),
    (pa.null(), [None]),
    (pa.list_(pa.int32()), [[], [1, None], None]),
    (pa.large_list(pa.string()), [["a", None], None]),
    (pa.list_(pa.bool_(), 2), [[True, None], None]),
    (
        pa.struct([("a", pa.int8()), ("b", pa.null()), ("c", pa.string())]),
        [{"a": 1, "c": ""}, None],
    ),
    (pa.struct([("n", pa.null())]), [{"n": None}, None]),
    (pa.map_(pa.string(), pa.list_(pa.int8())), [[("k", [1])], [], None]),
    (pa.list_(pa.struct([("x", pa.list_(pa.bool_()))])), [[{"x": [True]}, None], None]),
]


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    chosen = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=6))
    count = draw(st.integers(1, 40))
    start = draw(st.integers(0, count - 1))
    stop = draw(st.integers(start + 1, count))
    arrays = []
    for data_type, values in chosen:
        drawn = draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))
        arrays.append(pa.array(drawn, data_type))
    names = [f"c{index}" for index in range(len(arrays))]
    return pa.record_batch(arrays, names=names).slice(start, stop - start)


def segment_of(batch: pa.RecordBatch) -> bytes:
    """A segment that holds `batch` alone."""
    layout = ColumnLayout.of(batch.schema)
    encoded = encode_batch(batch, layout)
    header = FrameHeader(encoded.frame_size, 7, batch.num_rows, 1, 2, 3, 4, 5, 6, 0, 0)
    chunks = [bytes(chunk) for chunk in encoded.chunks(header)]
    assert sum(map(len, chunks)) == encoded.frame_size
    return encode_head(layout, 7, 0) + b"".join(chunks)


def frame_of(content: bytes, schema: pa.Schema) -> Frame:
    segment = Segment.try_open("t/0", "file", pa.py_buffer(content), SegmentLayouts(schema), 7)
    assert isinstance(segment, Segment)
    frames = list(segment.walk(segment.head.size_bytes, 7))
    assert len(frames) == 1
    assert isinstance(frames[0], Frame)
    return frames[0]


@settings(max_examples=300)
@given(batches())
def test_what_is_written_is_what_is_read(batch: pa.RecordBatch) -> None:
    content = segment_of(batch)
    assert len(content) % 64 == 0
    found = frame_of(content, batch.schema).batch()
    found.validate(full=True)
    assert found.equals(batch)
    plain = pa.ipc.open_stream(content).read_all().combine_chunks()
    plain.validate(full=True)
    assert plain.to_pylist() == batch.to_pylist()


@settings(max_examples=100)
@given(batches(), st.data())
def test_the_columns_asked_for_are_those_of_the_batch(
    batch: pa.RecordBatch, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(batch.schema.names), unique=True))
    assert frame_of(segment_of(batch), batch.schema).batch(names).equals(batch.select(names))


LAST_IS_EMPTY = pa.record_batch(
    [pa.array([True]), pa.array([{"n": None}], pa.struct([("n", pa.null())]))], names=["a", "b"]
)


@settings(max_examples=100)
@given(batches())
@example(LAST_IS_EMPTY)
def test_pyarrows_own_message_has_the_same_body(batch: pa.RecordBatch) -> None:
    # The oracle of the uncopied body and of its ranges: serialize() copies it into one buffer.
    layout = ColumnLayout.of(batch.schema)
    message = memoryview(batch.serialize().to_pybytes())
    size = 8 + int.from_bytes(message[4:8], "little")
    metadata, body = message[8:size], message[size:]
    assert body_length(metadata) == len(body)
    assert row_count(metadata) == batch.num_rows
    encoded = encode_batch(batch, layout)
    written = b"".join(bytes(chunk) for chunk in encoded.body)
    assert written[: len(body)] == body
    assert not any(written[len(body) :])
    buffers = buffers_position(metadata)
    position = 0
    for index in range(layout.column_count):
        start, end = column_range(metadata, buffers, layout, index, len(body))
        assert start == position
        position = end
        first, next_first = layout.first_buffers[index : index + 2]
        # The padding of the body is of the last column that has buffers, be they empty.
        last = first < next_first == layout.first_buffers[-1]
        covered = written[start:] if last else written[start:end]
        assert encoded.column_checksums[index] == crc32c(covered)
    assert position == len(body)


def test_polars_reads_nested_columns_of_a_segment() -> None:
    batch = pa.record_batch(
        {
            "tags": pa.array([["a", None], None, []], pa.list_(pa.string())),
            "place": pa.array([{"city": "x", "n": 1}, None, {"city": None, "n": 2}]),
            "flag": [True, None, False],
        }
    )
    frame = pl.read_ipc_stream(segment_of(batch), use_pyarrow=False)
    assert frame["tags"].to_list() == batch["tags"].to_pylist()
    assert frame["flag"].to_list() == [True, None, False]
    assert frame["place"].to_list()[0] == {"city": "x", "n": 1}


def test_a_big_batch_is_not_copied() -> None:
    batch = pa.record_batch({"x": pa.array(range(100_000), pa.int64())})
    encoded = encode_batch(batch, ColumnLayout.of(batch.schema))
    assert encoded.body[0].address == batch["x"].buffers()[1].address  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 6, 7, 22, 23, 300])
def test_any_number_of_columns(count: int) -> None:
    batch = pa.record_batch({f"c{index}": [index] for index in range(count)})
    frame = frame_of(segment_of(batch), batch.schema)
    assert frame.batch().equals(batch)
    assert frame.location[1] % 64 == 0
