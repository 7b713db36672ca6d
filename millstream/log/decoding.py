"""Finds the messages of a verified frame, checks the bytes of its columns, and reads them.

Nothing is given to Arrow before its checksum held, and nothing is decompressed before its size
is known.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
from crc32c import crc32c

from millstream.log.flatbuffer import MessageFields, buffer_ranges, read_message
from millstream.log.frame_header import (
    Damage,
    FrameHeader,
    column_checksum,
    frame_header_size,
    later_messages,
)
from millstream.log.messages import messages_of
from millstream.log.metadata import (
    PREFIX_SIZE,
    ColumnLayout,
    child_types,
    column_range,
    dictionary_count,
)

UNCOMPRESSED_BYTES_MAX = 2**31
"""The columns that are read of a frame are not larger than this, uncompressed."""

_I64 = struct.Struct("<q")
_NOT_COMPRESSED = -1


class MessagePlace(NamedTuple):
    """Where a message lies in the segment, and its flatbuffer, verified.

    Attributes
    ----------
    position, body, end
        Where it starts, where its body starts, and where that ends.
    flatbuffer
        Its metadata.
    fields
        What that says.
    """

    position: int
    body: int
    end: int
    flatbuffer: memoryview
    fields: MessageFields


def try_messages(
    view: memoryview, header: FrameHeader, layout: ColumnLayout, position: int, header_position: int
) -> list[MessagePlace] | Damage:
    """Return the messages of the frame at `position`, whose header was verified; or why not.

    Dictionaries come first, the record batch last; they tile the frame.
    """
    header_end = header_position + frame_header_size(layout.column_count, layout.dictionary_count)
    places = [_place(view, position, header_position, header_end)]
    if layout.dictionary_count:
        damage = _add_later_messages(places, view, layout, position, header_position)
        if damage is not None:
            return damage
    last = places[-1]
    agree = last.end == position + header.frame_size
    agree &= last.fields.row_count == header.row_count and not last.fields.is_dictionary
    for place, following in pairwise(places):
        agree &= place.end == following.position and place.fields.is_dictionary
    return places if agree else Damage("its header and its messages do not agree")


def _add_later_messages(
    places: list[MessagePlace],
    view: memoryview,
    layout: ColumnLayout,
    position: int,
    header_position: int,
) -> Damage | None:
    """Add to the first message of a frame those behind it; or return what is wrong."""
    for later in later_messages(
        view, header_position, layout.column_count, layout.dictionary_count
    ):
        start = position + later.position
        body = start + later.metadata_size
        if crc32c(view[start:body]) != later.checksum:
            return Damage("the checksum of a message in it does not hold")
        places.append(_place(view, start, body, body))
    return None


def _place(view: memoryview, position: int, metadata_end: int, body: int) -> MessagePlace:
    flatbuffer = view[position + PREFIX_SIZE : metadata_end]
    fields = read_message(flatbuffer)
    return MessagePlace(position, body, body + fields.body_length, flatbuffer, fields)


def try_column(
    view: memoryview,
    layout: ColumnLayout,
    places: list[MessagePlace],
    header_position: int,
    index: int,
) -> Damage | None:
    """Return what is wrong with the bytes of column `index`, or `None`."""
    checksum = 0
    for column, place in zip(layout.dictionary_columns, places, strict=False):
        if column == index:
            checksum = crc32c(view[place.body : place.end], checksum)
    batch = places[-1]
    fields = batch.fields
    start, end = column_range(batch.flatbuffer, fields.buffers, layout, index, fields.body_length)
    checksum = crc32c(view[batch.body + start : batch.body + end], checksum)
    if checksum != column_checksum(view, header_position, index):
        return Damage(f"the checksum of column {layout.schema.names[index]!r} does not hold")
    return None


def try_size(
    view: memoryview, layout: ColumnLayout, places: list[MessagePlace], indices: Sequence[int]
) -> Damage | None:
    """Return why columns must not be decompressed: what they say of their size; or `None`."""
    if not places[-1].fields.is_compressed and not any(
        place.fields.is_compressed for place in places[:-1]
    ):
        return None
    total = 0
    for column, place in zip(layout.dictionary_columns, places, strict=False):
        if place.fields.is_compressed and column in indices:
            total += _uncompressed_size(view, place, 0, None)
    if places[-1].fields.is_compressed:
        for index in indices:
            first, end = layout.first_buffers[index : index + 2]
            total += _uncompressed_size(view, places[-1], first, end)
    if total > UNCOMPRESSED_BYTES_MAX:
        return Damage(
            f"its columns would have {total} bytes, more than {UNCOMPRESSED_BYTES_MAX}, once they "
            "are decompressed"
        )
    return None


def _uncompressed_size(view: memoryview, place: MessagePlace, first: int, end: int | None) -> int:
    """Return how many bytes some buffers say that they have; what cannot be is above the limit."""
    total = 0
    for offset, length in buffer_ranges(place.flatbuffer, place.fields.buffers, first, end):
        if length:
            declared = _I64.unpack_from(view, place.body + offset)[0]
            if declared == _NOT_COMPRESSED:
                declared = length - _I64.size
            total += declared if declared >= 0 else UNCOMPRESSED_BYTES_MAX + 1
    return total


def read_columns(
    buffer: pa.Buffer, layout: ColumnLayout, places: list[MessagePlace], indices: Sequence[int]
) -> pa.RecordBatch:
    """Return some columns of a frame; what is not compressed are views of `buffer`."""
    batch = places[-1]
    if not indices:  # to Arrow's stream reader, no columns are all columns
        rows = pa.nulls(batch.fields.row_count)
        return pa.RecordBatch.from_arrays([rows], names=["rows"]).select([])
    everything = len(indices) == layout.column_count and [*indices] == [*range(len(indices))]
    if layout.dictionary_count and not {*layout.dictionary_columns}.isdisjoint(indices):
        is_plain = False
    else:
        is_plain = everything or not batch.fields.is_compressed
    if is_plain:
        message = buffer.slice(batch.position, batch.end - batch.position)
        found = pa.ipc.read_record_batch(message, _index_schema(layout))
        return found if everything else found.select(indices)
    return _read_stream(buffer, layout, places, indices)


def _read_stream(
    buffer: pa.Buffer, layout: ColumnLayout, places: list[MessagePlace], indices: Sequence[int]
) -> pa.RecordBatch:
    """Read a frame as a stream of its own: Arrow decompresses and puts dictionaries in place.

    The dictionaries of other columns were not verified; empty ones stand in for them.
    """
    schema, *stand_ins = _stream_of_nothing(layout.schema)
    messages = [schema]
    for column, place, stand_in in zip(layout.dictionary_columns, places, stand_ins, strict=False):
        is_wanted = column in indices
        messages.append(_slice(buffer, place) if is_wanted else stand_in)
    messages.append(_slice(buffer, places[-1]))
    wanted = sorted(set(indices))
    options = pa.ipc.IpcReadOptions(included_fields=wanted)
    with pa.ipc.open_stream(pa.PythonFile(_Messages(messages), mode="r"), options=options) as rows:
        found = rows.read_next_batch()
    return found if wanted == list(indices) else found.select([wanted.index(i) for i in indices])


def _slice(buffer: pa.Buffer, place: MessagePlace) -> pa.Buffer:
    return buffer.slice(place.position, place.end - place.position)


class _Messages:
    """A file of messages, each read where it lies."""

    closed = False

    def __init__(self, messages: list[pa.Buffer]) -> None:
        self._messages = messages
        self._index = 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, size_bytes: int) -> pa.Buffer:
        """Return the next bytes; nobody asks for more than is left of a message."""
        while self._index < len(self._messages):
            message = self._messages[self._index]
            left = message.size - self._position
            if left:
                piece = message.slice(self._position, min(left, size_bytes))
                self._position += piece.size
                return piece
            self._index += 1
            self._position = 0
        return pa.py_buffer(b"")

    def close(self) -> None:
        self.closed = True


@lru_cache(maxsize=256)
def _stream_of_nothing(schema: pa.Schema) -> list[pa.Buffer]:
    """Return a schema's message, and for each of its dictionaries the message of an empty one."""
    nothing = pa.RecordBatch.from_arrays(
        [pa.nulls(0, field.type) for field in schema], schema=schema
    )
    dictionaries = messages_of(nothing, True, "none")[:-1]
    return [schema.serialize(), *(pa.py_buffer(each.to_bytes()) for each in dictionaries)]


def _index_schema(layout: ColumnLayout) -> pa.Schema:
    """Return the schema that a record batch message has by itself: indices for dictionaries."""
    return _with_indices(layout.schema) if layout.dictionary_count else layout.schema


@lru_cache(maxsize=256)
def _with_indices(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(_index_type(field.type)) for field in schema])


def _index_type(data_type: Any) -> pa.DataType:
    """Return `data_type` with the type of its indices in the place of each dictionary."""
    types: Any = pa.types
    if not dictionary_count(data_type):
        return data_type
    if types.is_dictionary(data_type):
        return data_type.index_type
    if types.is_map(data_type):
        return pa.map_(*(_index_type(each) for each in child_types(data_type)))
    fields = [
        data_type.field(index).with_type(_index_type(data_type.field(index).type))
        for index in range(data_type.num_fields)
    ]
    if types.is_struct(data_type):
        return pa.struct(fields)
    if types.is_fixed_size_list(data_type):
        return pa.list_(fields[0], data_type.list_size)
    return pa.large_list(fields[0]) if types.is_large_list(data_type) else pa.list_(fields[0])
