"""Any batch, sliced anyhow, becomes a frame that reads back the same, here and in plain Arrow."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from crc32c import crc32c
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millstream.errors import CorruptSegmentError
from millstream.log import encoding
from millstream.log.columns import SegmentLayouts
from millstream.log.encoding import encode_batch
from millstream.log.flatbuffer import read_message
from millstream.log.frame import Frame
from millstream.log.frame_header import FrameHeader
from millstream.log.messages import messages_of
from millstream.log.metadata import (
    ColumnLayout,
    column_range,
    dictionary_count,
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
    (pa.dictionary(pa.int8(), pa.string()), ["a", "bb", None]),
    (pa.dictionary(pa.uint32(), pa.timestamp("ns", "Europe/Berlin"), ordered=True), [0, 7, None]),
    (pa.dictionary(pa.int16(), pa.decimal128(5, 2)), [Decimal("1.25"), None]),
    (pa.list_(pa.dictionary(pa.int32(), pa.string())), [["a", None], [], None]),
    (
        pa.struct(
            [
                ("a", pa.dictionary(pa.int8(), pa.binary())),
                ("b", pa.list_(pa.dictionary(pa.int64(), pa.float64()), 1)),
            ]
        ),
        [{"a": b"x", "b": [0.5]}, {"a": b"y", "b": None}, None],
    ),
    (
        pa.map_(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.binary())),
        [[("k", b"v")], [], None],
    ),
    (pa.large_list(pa.struct([("d", pa.dictionary(pa.int8(), pa.string()))])), [[{"d": "z"}]]),
]
PLAIN_VALUES = [each for each in VALUES if not dictionary_count(each[0])]
COMPRESSIONS = ["none", "lz4", "zstd"]


def array_of(values: list[Any], data_type: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(data_type):
        encoded = pa.array(values, data_type.value_type).dictionary_encode()
        indices = encoded.indices.cast(data_type.index_type)
        return pa.DictionaryArray.from_arrays(
            indices, encoded.dictionary, ordered=data_type.ordered
        )
    found = pa.array(values, data_type)
    try:
        found.validate(full=True)
    except pa.ArrowInvalid:
        # Of nothing but nulls pyarrow makes dictionaries without the value that it refers to.
        return pa.nulls(len(values), data_type)
    return found


@st.composite
def batches(draw: st.DrawFn, of: list[tuple[pa.DataType, list[Any]]] = VALUES) -> pa.RecordBatch:
    chosen = draw(st.lists(st.sampled_from(of), min_size=1, max_size=6))
    count = draw(st.integers(1, 40))
    start = draw(st.integers(0, count - 1))
    stop = draw(st.integers(start + 1, count))
    arrays = []
    for data_type, values in chosen:
        drawn = draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))
        arrays.append(array_of(drawn, data_type))
    names = [f"c{index}" for index in range(len(arrays))]
    return pa.record_batch(arrays, names=names).slice(start, stop - start)


def segment_of(*batches: pa.RecordBatch, compression: str = "none") -> bytes:
    """A segment that holds `batches` alone, from offset 7 on."""
    layout = ColumnLayout.of(batches[0].schema)
    content = encode_head(layout, 7, 0)
    offset = 7
    for batch in batches:
        encoded = encode_batch(batch, layout, compression)
        header = FrameHeader(encoded.frame_size, offset, batch.num_rows, 1, 2, 3, 4, 5, 6, 0, 0)
        chunks = [bytes(chunk) for chunk in encoded.chunks(header)]
        assert sum(map(len, chunks)) == encoded.frame_size
        content += b"".join(chunks)
        offset += batch.num_rows
    return content


def frames_of(content: bytes, schema: pa.Schema) -> list[Frame]:
    segment = Segment.try_open("t/0", "file", pa.py_buffer(content), SegmentLayouts(schema), 7)
    assert isinstance(segment, Segment)
    frames = list(segment.walk(segment.head.size_bytes, 7))
    return [each for each in frames if isinstance(each, Frame)]


def frame_of(content: bytes, schema: pa.Schema) -> Frame:
    (frame,) = frames_of(content, schema)
    return frame


@settings(max_examples=300)
@given(batches(), st.sampled_from(COMPRESSIONS))
def test_what_is_written_is_what_is_read(batch: pa.RecordBatch, compression: str) -> None:
    content = segment_of(batch, compression=compression)
    assert len(content) % 64 == 0
    found = frame_of(content, batch.schema).batch()
    found.validate(full=True)
    assert found.equals(batch)
    plain = pa.ipc.open_stream(content).read_all().combine_chunks()
    plain.validate(full=True)
    assert plain.to_pylist() == batch.to_pylist()


@settings(max_examples=100)
@given(batches(), st.sampled_from(COMPRESSIONS), st.data())
def test_the_columns_asked_for_are_those_of_the_batch(
    batch: pa.RecordBatch, compression: str, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(batch.schema.names), unique=True))
    content = segment_of(batch, compression=compression)
    found = frame_of(content, batch.schema).batch(names)
    found.validate(full=True)
    assert found.equals(batch.select(names))
    assert found.num_rows == batch.num_rows


LAST_IS_EMPTY = pa.record_batch(
    [pa.array([True]), pa.array([{"n": None}], pa.struct([("n", pa.null())]))], names=["a", "b"]
)


@settings(max_examples=100)
@given(batches(PLAIN_VALUES))
@example(LAST_IS_EMPTY)
def test_pyarrows_own_message_has_the_same_body(batch: pa.RecordBatch) -> None:
    # The oracle of the uncopied body and of its ranges: serialize() copies it into one buffer.
    # What is made from a template is compared with this in turn.
    layout = replace(ColumnLayout.of(batch.schema), word_widths=())
    message = memoryview(batch.serialize().to_pybytes())
    size = 8 + int.from_bytes(message[4:8], "little")
    metadata, body = message[8:size], message[size:]
    fields = read_message(metadata)
    assert fields.body_length == len(body)
    assert fields.row_count == batch.num_rows
    encoded = encode_batch(batch, layout)
    written = b"".join(bytes(chunk) for chunk in encoded.body)
    assert written[: len(body)] == body
    assert not any(written[len(body) :])
    position = 0
    for index in range(layout.column_count):
        start, end = column_range(metadata, fields.buffers, layout, index, len(body))
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
    assert pa.py_buffer(encoded.body[0]).address == batch["x"].buffers()[1].address


@pytest.mark.parametrize("count", [1, 6, 7, 22, 23, 300])
def test_any_number_of_columns(count: int) -> None:
    batch = pa.record_batch({f"c{index}": [index] for index in range(count)})
    frame = frame_of(segment_of(batch), batch.schema)
    assert frame.batch().equals(batch)
    assert frame.location[1] % 64 == 0


def colours(*names: str | None) -> pa.RecordBatch:
    return pa.record_batch(
        {"n": pa.array(range(len(names))), "colour": pa.array(names).dictionary_encode()}
    )


class TestDictionaries:
    """Each frame has its own, whole; a plain reader replaces one by the next."""

    FIRST = colours("red", "green", None, "red")
    SECOND = colours("blue", "red")

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_a_frame_stands_alone(self, compression: str) -> None:
        content = segment_of(self.FIRST, self.SECOND, compression=compression)
        second = frames_of(content, self.FIRST.schema)[1]
        assert second.batch().equals(self.SECOND)

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_plain_readers_read_them(self, compression: str) -> None:
        content = segment_of(self.FIRST, self.SECOND, compression=compression)
        wanted = ["red", "green", None, "red", "blue", "red"]
        assert pa.ipc.open_stream(content).read_all()["colour"].to_pylist() == wanted
        frame = pl.read_ipc_stream(content, use_pyarrow=False)
        assert frame["colour"].to_list() == wanted

    def test_a_big_one_is_not_copied_when_read(self) -> None:
        batch = colours(*(f"colour {index}" for index in range(10_000)))
        content = pa.py_buffer(segment_of(batch))
        segment = Segment.try_open("t/0", "file", content, SegmentLayouts(batch.schema), 7)
        assert isinstance(segment, Segment)
        frame = segment.try_frame(segment.head.size_bytes)
        assert isinstance(frame, Frame)
        dictionary = frame.batch(["colour"])["colour"].dictionary
        address = dictionary.buffers()[2].address
        assert content.address <= address < content.address + content.size

    def test_a_damaged_one_does_not_harm_other_columns(self) -> None:
        content = bytearray(segment_of(self.FIRST))
        content[content.index(b"redgreen")] ^= 1
        frame = frame_of(bytes(content), self.FIRST.schema)
        assert frame.batch(["n"])["n"].to_pylist() == [0, 1, 2, 3]
        with pytest.raises(CorruptSegmentError, match="column 'colour'"):
            frame.batch(["colour"])

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_a_damaged_one_is_not_read_for_another(self, compression: str) -> None:
        other = pa.array([f"{index:0100}" for index in range(4)]).dictionary_encode()
        batch = self.FIRST.append_column("other", other)
        content = bytearray(segment_of(batch, compression=compression))
        frame = frame_of(bytes(content), batch.schema)
        messages = frame._messages()
        assert isinstance(messages, list)
        damaged = messages[1]  # the dictionary of `other`
        content[damaged.body : damaged.end] = b"\x7f" * (damaged.end - damaged.body)
        frame = frame_of(bytes(content), batch.schema)
        assert frame.batch(["colour"]).equals(batch.select(["colour"]))
        with pytest.raises(CorruptSegmentError, match="column 'other'"):
            frame.batch(["other"])


class TestCompression:
    def test_it_takes_less_room(self) -> None:
        batch = pa.record_batch({"x": pa.array([7] * 10_000)})
        sizes = [len(segment_of(batch, compression=each)) for each in COMPRESSIONS]
        assert max(sizes[1:]) < sizes[0] / 10

    @pytest.mark.parametrize("compression", COMPRESSIONS[1:])
    def test_other_columns_are_not_decompressed(self, compression: str) -> None:
        batch = pa.record_batch({"x": pa.array(range(1000)), "y": pa.array(range(1000))})
        encoded = encode_batch(batch, ColumnLayout.of(batch.schema), compression)
        content = bytearray(segment_of(batch, compression=compression))
        end = len(content)
        content[end - encoded.body_size // 2 : end - 64] = bytes(encoded.body_size // 2 - 64)
        frame = frame_of(bytes(content), batch.schema)
        assert frame.batch(["x"])["x"].to_pylist() == list(range(1000))
        with pytest.raises(CorruptSegmentError, match="column 'y'"):
            frame.batch(["y"])

    @pytest.mark.parametrize("declared", [2**40, -2])
    @pytest.mark.parametrize("of_dictionary", [False, True])
    def test_a_bomb_is_not_decompressed(
        self, monkeypatch: pytest.MonkeyPatch, declared: int, of_dictionary: bool
    ) -> None:
        batch = colours("red", "green") if of_dictionary else pa.record_batch({"x": [1, 2]})

        def bomb(*arguments: Any) -> Any:
            messages = messages_of(*arguments)
            chunks = messages[0].body
            index = next(i for i, each in enumerate(chunks) if len(each) > 8)
            chunks[index] = declared.to_bytes(8, "little", signed=True) + bytes(chunks[index])[8:]
            return messages

        monkeypatch.setattr(encoding, "messages_of", bomb)
        content = segment_of(batch, compression="zstd")
        with pytest.raises(CorruptSegmentError, match="once they are decompressed"):
            frame_of(content, batch.schema).batch()
