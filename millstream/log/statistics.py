"""What is known of the columns of a block of frames: least and greatest value, nulls, NaNs.

A block is what one entry of a segment's index stands for: the frames of 64 KiB, or one larger
frame. The statistics are a record batch, a row for each block, and lie in the index file
(FORMAT.md, "Statistics"):

    _block: struct<rows, transactions> │ delay: struct<min, max, nulls, nan> │ carrier: …

They are computed from the segment once it is sealed: a column of small frames is looked at once
for each block. Texts take many times as long as numbers, and few ask for them in a condition: the
first who does has theirs computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.columns import user_fields
from millstream.log.frame import Frame
from millstream.log.frame_header import Damage
from millstream.log.index import SegmentIndex
from millstream.log.segment import Segment

BLOCK_COLUMN = "_block"
TEXT_BOUND_BYTES = 32
"""Bounds of texts and bytes are cut here: the least down, the greatest up."""

_BLOCK = pa.struct([("rows", pa.int64()), ("transactions", pa.bool_())])


def bound_type(data_type: pa.DataType) -> pa.DataType | None:
    """Return the type of a column's bounds; `None`: there are no statistics of such columns."""
    types: Any = pa.types
    if is_text(data_type):
        return pa.binary()
    has_order = (
        types.is_boolean(data_type)
        or types.is_integer(data_type)
        or types.is_float32(data_type)
        or types.is_float64(data_type)
        or types.is_decimal128(data_type)
        or types.is_decimal256(data_type)
        or types.is_date(data_type)
        or types.is_time(data_type)
        or types.is_timestamp(data_type)
        or types.is_duration(data_type)
    )
    return data_type if has_order else None


def is_text(data_type: pa.DataType) -> bool:
    """Return whether values are strings or bytes, which are compared byte by byte."""
    types: Any = pa.types
    return (
        types.is_string(data_type)
        or types.is_large_string(data_type)
        or types.is_binary(data_type)
        or types.is_large_binary(data_type)
        or types.is_fixed_size_binary(data_type)
    )


def columns_with_bounds(schema: pa.Schema, *, with_texts: bool = True) -> list[int]:
    """Return the indices of the columns of a segment that there are statistics of."""
    return [
        index
        for index, each in enumerate(user_fields(schema))
        if bound_type(each.type) is not None and (with_texts or not is_text(each.type))
    ]


def _column_type(bounds: pa.DataType) -> pa.StructType:
    return pa.struct([("min", bounds), ("max", bounds), ("nulls", pa.int64()), ("nan", pa.bool_())])


def statistics_of(
    segment: Segment, index: SegmentIndex, *, with_texts: bool
) -> pa.RecordBatch | Damage:
    """Return the statistics of a segment that `index` is of; or what is wrong with the segment.

    Costs reading these columns once, checksums included.
    """
    schema = segment.layout.schema
    numbers = columns_with_bounds(schema, with_texts=with_texts)
    columns = [_ColumnBounds(schema.field(n).type) for n in numbers]
    rows: list[int] = []
    transactions: list[bool] = []
    for frames in _blocks(segment, index):
        if isinstance(frames, Damage):
            return frames
        for frame in frames:
            damage = frame.try_verify(numbers)
            if damage is not None:
                return damage
        rows.append(sum(each.header.row_count for each in frames))
        transactions.append(any(each.header.transaction for each in frames))
        names = [schema.names[n] for n in numbers]
        batches = [each.batch(names, verify=False) for each in frames if each.header.row_count]
        for number, column in enumerate(columns):
            column.add([each.column(number) for each in batches])
    block = pa.StructArray.from_arrays(
        [pa.array(rows, pa.int64()), pa.array(transactions, pa.bool_())], fields=list(_BLOCK)
    )
    found = [block, *(each.finish() for each in columns)]
    return pa.record_batch(found, names=[BLOCK_COLUMN, *(schema.names[n] for n in numbers)])


def encode_statistics(statistics: pa.RecordBatch) -> bytes:
    """Return statistics as they lie in the index file: an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, statistics.schema) as writer:
        writer.write_batch(statistics)
    return sink.getvalue().to_pybytes()


def try_decode_statistics(content: pa.Buffer, count: int) -> pa.RecordBatch | Damage:
    """Return the statistics of `count` blocks in `content`, whose checksum holds; or why not."""
    statistics = pa.ipc.open_stream(content).read_next_batch()
    if statistics.num_rows != count:
        return Damage(f"the statistics are of {statistics.num_rows} blocks, not of {count}")
    return statistics


def _blocks(segment: Segment, index: SegmentIndex) -> Iterator[list[Frame] | Damage]:
    """Yield the frames of each block in turn; ends behind a `Damage`."""
    starts = set(index.positions[1:])
    position = segment.head.size_bytes
    frames: list[Frame] = []
    for frame in segment.walk(position, index.base_offset):
        if isinstance(frame, Damage):
            yield frame
            return
        if position in starts:
            yield frames
            frames = []
        frames.append(frame)
        position += frame.header.frame_size
    if frames:
        yield frames


@dataclass
class _ColumnBounds:
    """The statistics of one column, block by block."""

    type: pa.DataType
    least: list[Any] = field(default_factory=list)
    greatest: list[Any] = field(default_factory=list)
    nulls: list[int] = field(default_factory=list)
    nan: list[bool] = field(default_factory=list)

    def add(self, arrays: list[pa.Array]) -> None:
        values = arrays[0] if len(arrays) == 1 else pa.chunked_array(arrays, self.type)
        self.nulls.append(values.null_count)
        least, greatest, has_nan = _bounds(values)
        self.least.append(least)
        self.greatest.append(greatest)
        self.nan.append(has_nan)

    def finish(self) -> pa.StructArray:
        bounds = bound_type(self.type)
        assert bounds is not None, self.type
        arrays = [
            pa.array(self.least, bounds),
            pa.array(self.greatest, bounds),
            pa.array(self.nulls, pa.int64()),
            pa.array(self.nan, pa.bool_()),
        ]
        return pa.StructArray.from_arrays(arrays, fields=list(_column_type(bounds)))


def _bounds(values: pa.Array | pa.ChunkedArray) -> tuple[Any, Any, bool]:
    """Return bounds of the values, nulls and NaNs left out, and whether there are NaNs.

    A bound is `None` where there is no value, or none that is short enough.
    """
    types: Any = pa.types
    data_type = values.type
    if types.is_floating(data_type):
        return _float_bounds(values)
    if types.is_duration(data_type):
        found = pc.min_max(values.cast(pa.int64()))
        return found["min"].cast(data_type), found["max"].cast(data_type), False
    if is_text(data_type):
        # As bytes: nobody promises that a text is UTF-8.
        as_bytes = types.is_large_string(data_type) or types.is_large_binary(data_type)
        values = values.cast(pa.large_binary() if as_bytes else pa.binary())
    found = pc.min_max(values)
    least, greatest = found["min"], found["max"]
    if not least.is_valid:
        return None, None, False
    if not is_text(data_type):
        return least, greatest, False
    return least.as_py()[:TEXT_BOUND_BYTES], _rounded_up(greatest.as_py()), False


def _float_bounds(values: pa.Array | pa.ChunkedArray) -> tuple[Any, Any, bool]:
    if isinstance(values, pa.Array) and not values.null_count and len(values):
        # Several times faster than Arrow's; one NaN makes both NaN.
        numbers = values.to_numpy()
        least, greatest = numbers.min(), numbers.max()
        if not np.isnan(least):
            return pa.scalar(least, values.type), pa.scalar(greatest, values.type), False
    found = pc.min_max(values)
    has_nan = bool(pc.any(pc.is_nan(values)).as_py())
    if np.isnan(found["min"].as_py() or 0.0):
        return None, None, has_nan  # nothing but NaNs
    return found["min"], found["max"], has_nan


def _rounded_up(content: bytes) -> bytes | None:
    """Return the content, or something not much greater that is short; `None`: there is none."""
    if len(content) <= TEXT_BOUND_BYTES:
        return content
    start = content[:TEXT_BOUND_BYTES].rstrip(b"\xff")
    return start[:-1] + bytes([start[-1] + 1]) if start else None
