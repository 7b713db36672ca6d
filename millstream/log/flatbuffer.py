"""Reads what is needed of an Arrow message's flatbuffer (Arrow's Message.fbs).

Arrow's own readers hand out arrays, not the positions of their buffers; checksums are over those
positions. Flatbuffers, in short: a table starts with the distance back to its vtable, which gives
each field's position in the table, or 0 where the field is left out. A reference is the distance to
what it refers to. What is read here was verified: nothing is bounds-checked beyond what `struct`
does.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

BUFFER_SIZE = 16
"""Bytes of a struct Buffer { offset: i64; length: i64 }."""

_U16 = struct.Struct("<H")
_FOUR = struct.Struct("<4H")  # fields of a vtable
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")
_BUFFER = struct.Struct("<qq")

# Field numbers. Message: 1 header type, 2 header, 3 body length. RecordBatch: 0 length,
# 2 buffers, 3 compression.
_MESSAGE_HEADER = 2
_MESSAGE_BODY_LENGTH = 3
_SCHEMA_METADATA = 2
_DICTIONARY_BATCH = 2  # of enum MessageHeader
_DICTIONARY_DATA = 1


class MessageFields(NamedTuple):
    """What a dictionary batch or record batch message says of itself.

    Attributes
    ----------
    body_length
        Bytes of its body.
    row_count
        Rows of the record batch, or values of the dictionary.
    buffers
        Where in the flatbuffer the `Buffer` structs start; 0: there are none.
    is_dictionary
        Whether it is a dictionary batch.
    is_compressed
        Whether its buffers are compressed.
    """

    body_length: int
    row_count: int
    buffers: int
    is_dictionary: bool
    is_compressed: bool


def read_message(metadata: memoryview) -> MessageFields:
    """Return the fields of the message whose flatbuffer `metadata` starts with."""
    message = _follow(metadata, 0)
    _, kind, header, length = _fields(metadata, message)
    batch = _follow(metadata, message + header)
    is_dictionary = kind != 0 and metadata[message + kind] == _DICTIONARY_BATCH
    if is_dictionary:
        batch = _follow(metadata, _field(metadata, batch, _DICTIONARY_DATA))
    rows, _, buffers, compression = _fields(metadata, batch)
    return MessageFields(
        _I64.unpack_from(metadata, message + length)[0] if length else 0,
        _I64.unpack_from(metadata, batch + rows)[0] if rows else 0,
        _follow(metadata, batch + buffers) + 4 if buffers else 0,
        is_dictionary,
        compression != 0,
    )


class RecordBatchPlaces(NamedTuple):
    """Where in a record batch message its numbers stand; none of them is left out (is 0).

    Attributes
    ----------
    row_count, body_length
        int64 each.
    nodes
        For each array its length and its number of nulls, int64 each.
    buffers
        For each buffer its offset in the body and its length, int64 each.
    """

    row_count: int
    body_length: int
    nodes: int
    buffers: int


def record_batch_places(metadata: memoryview) -> RecordBatchPlaces:
    """Return the places in a message of a record batch with rows and columns."""
    message = _follow(metadata, 0)
    _, _, header, length = _fields(metadata, message)
    batch = _follow(metadata, message + header)
    rows, nodes, buffers, _ = _fields(metadata, batch)
    assert rows and nodes and buffers and length, "a batch with rows says all of it"
    return RecordBatchPlaces(
        batch + rows,
        message + length,
        _follow(metadata, batch + nodes) + 4,
        _follow(metadata, batch + buffers) + 4,
    )


def body_length_position(metadata: memoryview) -> int:
    """Return where in a message `bodyLength` stands; 0 where it is left out (is 0)."""
    return _field(metadata, _follow(metadata, 0), _MESSAGE_BODY_LENGTH)


def buffer_ranges(
    metadata: memoryview, buffers: int, first: int, end: int | None
) -> list[tuple[int, int]]:
    """Return (offset in the body, length) of the buffers from `first` up to `end` (`None`: all).

    `buffers` is where they are listed: see `MessageFields`.
    """
    count = int(_U32.unpack_from(metadata, buffers - 4)[0]) if buffers else 0
    return [
        _BUFFER.unpack_from(metadata, buffers + BUFFER_SIZE * index)
        for index in range(first, count if end is None else min(end, count))
    ]


def schema_metadata(metadata: memoryview) -> list[tuple[str, str]]:
    """Return the pairs of a schema message's own metadata in order, keys repeated as they are."""
    schema = _follow(metadata, _field(metadata, _follow(metadata, 0), _MESSAGE_HEADER))
    position = _field(metadata, schema, _SCHEMA_METADATA)
    if not position:
        return []
    vector = _follow(metadata, position)
    count: int = _U32.unpack_from(metadata, vector)[0]
    tables = (_follow(metadata, vector + 4 + 4 * index) for index in range(count))
    return [(_text(metadata, table, 0), _text(metadata, table, 1)) for table in tables]


def _text(metadata: memoryview, table: int, field: int) -> str:
    start = _follow(metadata, _field(metadata, table, field))
    size: int = _U32.unpack_from(metadata, start)[0]
    return bytes(metadata[start + 4 : start + 4 + size]).decode()


def _field(metadata: memoryview, table: int, field: int) -> int:
    """Return the position of a table's field, or 0 where it is left out."""
    vtable = table - _I32.unpack_from(metadata, table)[0]
    slot = 4 + 2 * field
    if slot >= _U16.unpack_from(metadata, vtable)[0]:
        return 0
    distance: int = _U16.unpack_from(metadata, vtable + slot)[0]
    return table + distance if distance else 0


def _fields(metadata: memoryview, table: int) -> tuple[int, ...]:
    """Return where in a table its first four fields are, each 0 where it is left out."""
    vtable = table - _I32.unpack_from(metadata, table)[0]
    size: int = _U16.unpack_from(metadata, vtable)[0]
    if size >= 4 + _FOUR.size:
        return _FOUR.unpack_from(metadata, vtable + 4)
    count = (size - 4) // 2
    return (*struct.unpack_from(f"<{count}H", metadata, vtable + 4), *(4 - count) * (0,))


def _follow(metadata: memoryview, position: int) -> int:
    """Return what the reference at `position` refers to."""
    return position + int(_U32.unpack_from(metadata, position)[0])
