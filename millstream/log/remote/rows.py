"""Rows on their way to a server: a record batch message, checked before it is believed."""

from __future__ import annotations

import struct

import pyarrow as pa
from crc32c import crc32c

from millstream.errors import ProtocolError, SchemaMismatchError
from millstream.log.flatbuffer import read_message
from millstream.log.metadata import PREFIX_SIZE, try_metadata_size

BYTES_SCHEMA = pa.schema([pa.field("bytes", pa.uint8(), nullable=False)])
"""Of every stream in either direction: bytes travel as a column of them, which is not copied."""


ROWS_MAX = 16 * 1024 * 1024
"""Of one append: a column of nulls has no bytes that would set a limit."""


def bytes_batch(buffer: pa.Buffer) -> pa.RecordBatch:
    """Return `buffer` as a batch of `BYTES_SCHEMA`, without copying it."""
    column = pa.Array.from_buffers(pa.uint8(), buffer.size, [None, buffer])
    return pa.record_batch([column], schema=BYTES_SCHEMA)


def bytes_of(batch: pa.RecordBatch | None, before: bytes = b"") -> pa.Buffer:
    """Return the bytes of a batch that came over the wire, behind `before`, in aligned memory.

    Where they lie in what gRPC received is chance; Arrow's columns must start at multiples of 8.
    """
    content = memoryview(b"")
    if batch is not None:
        if not batch.schema.equals(BYTES_SCHEMA):
            message = f"bytes come as {BYTES_SCHEMA.to_string()}; got {batch.schema.to_string()}"
            raise ProtocolError(message)
        column = batch.column(0)
        buffer = column.buffers()[1]
        if column.null_count or buffer is None or buffer.size < column.offset + len(column):
            message = f"{len(column)} bytes should have come; the message holds less"
            raise ProtocolError(message)
        content = memoryview(buffer).cast("B")[column.offset : column.offset + len(column)]
    copy = pa.allocate_buffer(len(before) + len(content))
    view = memoryview(copy).cast("B")
    view[: len(before)] = before
    view[len(before) :] = content
    return copy


def encode_rows(batch: pa.RecordBatch) -> tuple[pa.Buffer, int]:
    """Return `batch` as a record batch message, and its CRC-32C."""
    message: pa.Buffer = batch.serialize()
    return message, crc32c(message)


def decode_rows(message: pa.Buffer, schema: pa.Schema, checksum: int) -> pa.RecordBatch:
    """Return the rows in `message`, every value of them checked.

    Raises
    ------
    ProtocolError
        Where these are not the bytes that were sent.
    SchemaMismatchError
        Where they are no rows of `schema`: lengths or offsets that do not fit, text that is not
        UTF-8.
    """
    if crc32c(message) != checksum:
        text = "the checksum of the rows does not hold: they were changed on their way; send again"
        raise ProtocolError(text)
    try:
        view = memoryview(message)
        size = try_metadata_size(view, 0) if len(view) >= PREFIX_SIZE else None
        if size is None or PREFIX_SIZE + size > len(view):
            text = "the rows are no record batch message"
            raise SchemaMismatchError(text)
        # A few bytes could claim to hold terabytes.
        if read_message(view[PREFIX_SIZE : PREFIX_SIZE + size]).is_compressed:
            text = "rows come without compression; got a compressed body"
            raise SchemaMismatchError(text)
        batch = pa.ipc.read_record_batch(message, schema)
        if batch.num_rows > ROWS_MAX:
            text = f"at most {ROWS_MAX} rows come at once; got {batch.num_rows}"
            raise SchemaMismatchError(text)
        batch.validate(full=True)
    except (pa.ArrowException, struct.error, IndexError, OSError) as error:
        text = f"the rows are damaged, or none of these columns ({schema.names}): {error}"
        raise SchemaMismatchError(text) from error
    for name, field, column in zip(schema.names, schema, batch.columns, strict=True):
        if column.null_count and not field.nullable:
            text = f"column {name!r} may not be null; got {column.null_count} nulls"
            raise SchemaMismatchError(text)
    return batch
