"""Finds each column's bytes in a record batch message, and checks what a segment can hold.

Arrow's own readers hand out arrays, not the positions of their buffers; checksums are over
those positions. So this reads the few fields that are needed from the message's flatbuffer
(`Message.bodyLength`, `RecordBatch.length`, `RecordBatch.buffers`; Arrow's Message.fbs).
Flatbuffers, in short: a table starts with the distance back to its vtable, which gives each
field's position in the table, or 0 where the field is left out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from millstream.errors import InvalidTopicError

CONTINUATION = 0xFFFFFFFF
PREFIX_SIZE = 8  # continuation and metadata length
ALIGNMENT = 64

_PREFIX = struct.Struct("<Ii")
_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")

_EXTENSION_NAME = b"ARROW:extension:name"
_MESSAGE_HEADER = 2
_MESSAGE_BODY_LENGTH = 3
_BATCH_LENGTH = 0
_BATCH_BUFFERS = 2
_BATCH_COMPRESSION = 3
_BUFFER_SIZE = 16  # struct Buffer { offset: i64; length: i64 }


def padded(size: int, alignment: int = ALIGNMENT) -> int:
    """Return the least multiple of `alignment` that is at least `size`."""
    return -(-size // alignment) * alignment


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Which buffers of a record batch message belong to which top-level column.

    Attributes
    ----------
    schema
        The columns.
    first_buffers
        n + 1 indices: column i has the buffers `first_buffers[i]` up to (not including)
        `first_buffers[i + 1]`.
    positions
        Column index by name.
    """

    schema: pa.Schema
    first_buffers: tuple[int, ...]
    positions: dict[str, int]

    @property
    def column_count(self) -> int:
        """The number of top-level columns."""
        return len(self.first_buffers) - 1

    @classmethod
    def of(cls, schema: pa.Schema) -> ColumnLayout:
        """Return the layout of batches with `schema`; raises `InvalidTopicError`."""
        first_buffers = [0]
        for field in schema:
            _refuse_hidden_extension(field, field.name)
            first_buffers.append(first_buffers[-1] + buffer_count(field.type, field.name))
        if len(set(schema.names)) != len(schema.names) or not schema.names:
            message = f"a topic needs columns of different names; got {schema.names}"
            raise InvalidTopicError(message)
        positions = {name: index for index, name in enumerate(schema.names)}
        return cls(schema, tuple(first_buffers), positions)


def buffer_count(data_type: pa.DataType, column: str) -> int:
    """Return how many buffers an array of `data_type` has in a record batch message.

    Raises
    ------
    InvalidTopicError
        Where a segment cannot hold the type; `column` is named.
    """
    types: Any = pa.types
    own = _own_buffer_count(data_type)
    if own is None or isinstance(data_type, pa.BaseExtensionType):
        message = (
            f"column {column!r} has type {data_type}, which a topic cannot hold; "
            f"cast it to {_plain_type(data_type)}"
        )
        raise InvalidTopicError(message)
    if types.is_map(data_type):
        _refuse_hidden_extension(data_type.key_field, column)
        _refuse_hidden_extension(data_type.item_field, column)
        # A map's child is a struct of key and item, which has a validity buffer of its own.
        entry = buffer_count(data_type.key_type, column) + buffer_count(data_type.item_type, column)
        return own + 1 + entry
    children = [data_type.field(index) for index in range(data_type.num_fields)]
    for child in children:
        _refuse_hidden_extension(child, column)
    return own + sum(buffer_count(child.type, column) for child in children)


def _refuse_hidden_extension(field: pa.Field, column: str) -> None:
    """Refuse a field that becomes an extension type wherever that type is registered.

    A reader that has it registered would hand its bytes to the type's own code, which may
    well unpickle them.
    """
    if field.metadata and _EXTENSION_NAME in field.metadata:
        name = field.metadata[_EXTENSION_NAME].decode(errors="replace")
        message = (
            f"column {column!r} is marked as the extension type {name!r}, which a topic cannot "
            "hold; remove the field's metadata"
        )
        raise InvalidTopicError(message)


def _own_buffer_count(data_type: pa.DataType) -> int | None:
    """Return the buffers of the type itself, without its children's; `None`: not allowed."""
    types: Any = pa.types
    if types.is_null(data_type):
        return 0
    if types.is_struct(data_type) or types.is_fixed_size_list(data_type):
        return 1
    if types.is_list(data_type) or types.is_large_list(data_type) or types.is_map(data_type):
        return 2
    if (
        types.is_binary(data_type)
        or types.is_string(data_type)
        or types.is_large_binary(data_type)
        or types.is_large_string(data_type)
    ):
        return 3
    if types.is_primitive(data_type) or types.is_decimal(data_type):
        return 2
    if types.is_fixed_size_binary(data_type):
        return 2
    return None


def _plain_type(data_type: pa.DataType) -> str:
    """Return what to cast `data_type` to, for people."""
    types: Any = pa.types
    if isinstance(data_type, pa.BaseExtensionType):
        return f"its storage type {data_type.storage_type}"
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return f"its value type {data_type.value_type}"
    if types.is_string_view(data_type):
        return "string"
    if types.is_binary_view(data_type):
        return "binary"
    if types.is_list_view(data_type) or types.is_large_list_view(data_type):
        return f"list<{data_type.value_type}>"
    return "a type without unions, e.g. a struct"


def _field(metadata: memoryview, table: int, field: int) -> int:
    """Return the position of a table's field, or 0 where it is left out."""
    vtable = table - _I32.unpack_from(metadata, table)[0]
    slot = 4 + 2 * field
    if slot >= _U16.unpack_from(metadata, vtable)[0]:
        return 0
    distance: int = _U16.unpack_from(metadata, vtable + slot)[0]
    return table + distance if distance else 0


def _follow(metadata: memoryview, position: int) -> int:
    """Return what the reference at `position` refers to."""
    return position + int(_U32.unpack_from(metadata, position)[0])


def body_length_position(metadata: memoryview) -> int:
    """Return where in a flatbuffer message `bodyLength` stands; 0 where it is left out (is 0)."""
    return _field(metadata, _follow(metadata, 0), _MESSAGE_BODY_LENGTH)


def body_length(metadata: memoryview) -> int:
    """Return the message's body length in bytes."""
    position = body_length_position(metadata)
    return int(_I64.unpack_from(metadata, position)[0]) if position else 0


def row_count(metadata: memoryview) -> int:
    """Return the record batch's number of rows."""
    batch = _follow(metadata, _field(metadata, _follow(metadata, 0), _MESSAGE_HEADER))
    position = _field(metadata, batch, _BATCH_LENGTH)
    return int(_I64.unpack_from(metadata, position)[0]) if position else 0


def has_compression(metadata: memoryview) -> bool:
    """Return `True` iff the record batch says that its body is compressed.

    The flatbuffer may be anything: raises `struct.error` or `IndexError` where it is none.
    """
    batch = _follow(metadata, _field(metadata, _follow(metadata, 0), _MESSAGE_HEADER))
    return _field(metadata, batch, _BATCH_COMPRESSION) != 0


def buffers_position(metadata: memoryview) -> int:
    """Return where the record batch's `Buffer` structs start in the flatbuffer.

    `metadata` starts with the flatbuffer (after the prefix) and was verified: nothing is
    bounds-checked here beyond what `struct` does.
    """
    batch = _follow(metadata, _field(metadata, _follow(metadata, 0), _MESSAGE_HEADER))
    position = _field(metadata, batch, _BATCH_BUFFERS)
    return _follow(metadata, position) + 4 if position else 0


def column_range(
    metadata: memoryview, buffers: int, layout: ColumnLayout, index: int, body_size: int
) -> tuple[int, int]:
    """Return where in the body column `index` starts and ends.

    Parameters
    ----------
    metadata
        The message's flatbuffer, as in `buffers_position`.
    buffers
        What `buffers_position` returned.
    layout
        The columns of the message.
    index
        Of the column.
    body_size
        The message's body length, where the last column ends.
    """
    first = layout.first_buffers[index]
    end = layout.first_buffers[index + 1]
    last = layout.first_buffers[-1]
    start_position = body_size
    if first < last:
        start_position = _I64.unpack_from(metadata, buffers + _BUFFER_SIZE * first)[0]
    if end < last:
        return start_position, _I64.unpack_from(metadata, buffers + _BUFFER_SIZE * end)[0]
    return start_position, body_size if first < end else start_position


def pack_prefix(metadata_size: int) -> bytes:
    """Return the eight bytes before a message's metadata."""
    return _PREFIX.pack(CONTINUATION, metadata_size)


def try_metadata_size(view: memoryview, position: int) -> int | None:
    """Return the metadata length of the message at `position`, or `None`: there is no prefix."""
    continuation, size = _PREFIX.unpack_from(view, position)
    return size if continuation == CONTINUATION and size > 0 else None
