"""Finds each column's bytes in an Arrow message, and checks what a segment can hold."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from millstream.errors import InvalidTopicError
from millstream.log.flatbuffer import BUFFER_SIZE

CONTINUATION = 0xFFFFFFFF
PREFIX_SIZE = 8  # continuation and metadata length
ALIGNMENT = 64
LAYOUTS_REMEMBERED = 256

_PREFIX = struct.Struct("<Ii")
_I64 = struct.Struct("<q")

_EXTENSION_NAME = b"ARROW:extension:name"


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
    dictionary_columns
        For each dictionary of a frame, in the order of their messages (depth first), the index
        of the column it belongs to.
    word_widths
        Where every column is of values of a fixed number of bytes, that number for each; else
        empty.
    row_bytes
        Their sum.
    """

    schema: pa.Schema
    first_buffers: tuple[int, ...]
    positions: dict[str, int]
    dictionary_columns: tuple[int, ...]
    word_widths: tuple[int, ...]
    row_bytes: int

    @property
    def column_count(self) -> int:
        """The number of top-level columns."""
        return len(self.first_buffers) - 1

    @property
    def dictionary_count(self) -> int:
        """The number of dictionaries in a frame."""
        return len(self.dictionary_columns)

    @classmethod
    def of(cls, schema: pa.Schema) -> ColumnLayout:
        """Return the layout of batches with `schema`; raises `InvalidTopicError`.

        Each partition of a topic, and each reader of it, asks for the same.
        """
        # As bytes: schemas that differ only in their metadata are equal, and may be refused.
        serialized = schema.serialize().to_pybytes()
        found = _layouts.get(serialized)
        if found is None:
            found = cls._made_of(schema)
            if len(_layouts) == LAYOUTS_REMEMBERED:
                _layouts.clear()
            _layouts[serialized] = found
        return found

    @classmethod
    def _made_of(cls, schema: pa.Schema) -> ColumnLayout:
        first_buffers = [0]
        dictionary_columns = []
        for index, field in enumerate(schema):
            _refuse_hidden_extension(field, field.name)
            first_buffers.append(first_buffers[-1] + buffer_count(field.type, field.name))
            dictionary_columns += [index] * dictionary_count(field.type)
        if len(set(schema.names)) != len(schema.names) or not schema.names:
            message = f"a topic needs columns of different names; got {schema.names}"
            raise InvalidTopicError(message)
        positions = {name: index for index, name in enumerate(schema.names)}
        widths = tuple(map(_word_width, schema.types))
        if not all(widths):
            widths = ()
        dictionaries = tuple(dictionary_columns)
        return cls(schema, tuple(first_buffers), positions, dictionaries, widths, sum(widths))


_layouts: dict[bytes, ColumnLayout] = {}
"""By the bytes of the schema; changed by single steps, so that any thread may."""


def _word_width(data_type: pa.DataType) -> int:
    """Return the bytes of a value of a flat type of fixed width; 0: of another type, or bits."""
    types: Any = pa.types
    if types.is_primitive(data_type) or types.is_decimal(data_type):
        return 0 if data_type.bit_width % 8 else data_type.bit_width // 8
    return data_type.byte_width if types.is_fixed_size_binary(data_type) else 0


def buffer_count(data_type: pa.DataType, column: str) -> int:
    """Return how many buffers an array of `data_type` has in a record batch message.

    Raises
    ------
    InvalidTopicError
        Where a segment cannot hold the type; `column` is named.
    """
    types: Any = pa.types
    own = _own_buffer_count(data_type)
    if types.is_dictionary(data_type):
        value_type = data_type.value_type
        if types.is_dictionary(value_type) or value_type.num_fields:
            own = None  # Arrow libraries differ in what they can read of these
        else:
            buffer_count(value_type, column)
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


def dictionary_count(data_type: pa.DataType) -> int:
    """Return how many dictionaries an array of `data_type` has, those of its children included."""
    if pa.types.is_dictionary(data_type):
        return 1
    return sum(dictionary_count(child) for child in child_types(data_type))


def child_types(data_type: pa.DataType) -> list[pa.DataType]:
    """Return the types inside a nested type; those of a map are its key and its item."""
    if pa.types.is_map(data_type):
        return [data_type.key_type, data_type.item_type]
    return [data_type.field(index).type for index in range(data_type.num_fields)]


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
    if types.is_fixed_size_binary(data_type) or types.is_dictionary(data_type):
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


def column_range(
    metadata: memoryview, buffers: int, layout: ColumnLayout, index: int, body_size: int
) -> tuple[int, int]:
    """Return where in the body column `index` starts and ends.

    Parameters
    ----------
    metadata
        The message's flatbuffer.
    buffers
        Where its buffers are listed: see `MessageFields`.
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
        start_position = _I64.unpack_from(metadata, buffers + BUFFER_SIZE * first)[0]
    if end < last:
        return start_position, _I64.unpack_from(metadata, buffers + BUFFER_SIZE * end)[0]
    return start_position, body_size if first < end else start_position


def pack_prefix(metadata_size: int) -> bytes:
    """Return the eight bytes before a message's metadata."""
    return _PREFIX.pack(CONTINUATION, metadata_size)


def try_metadata_size(view: memoryview, position: int) -> int | None:
    """Return the metadata length of the message at `position`, or `None`: there is no prefix."""
    continuation, size = _PREFIX.unpack_from(view, position)
    return size if continuation == CONTINUATION and size > 0 else None
