"""Rows on their way to a server: messages of Arrow IPC, checked before they are believed."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from crc32c import crc32c

from millstream.errors import ProtocolError, SchemaMismatchError
from millstream.log.flatbuffer import read_message
from millstream.log.metadata import PREFIX_SIZE, try_metadata_size

BYTES_SCHEMA = pa.schema([pa.field("bytes", pa.uint8(), nullable=False)])
"""Of every stream in either direction: bytes travel as a column of them, which is not copied."""

ROWS_MAX = 16 * 1024 * 1024
"""Of one append: a column of nulls has no bytes that would set a limit."""

WHOLE_BYTES_MAX = 2 * 1024 * 1024 * 1024
"""Of frames, with what was left out of them."""

_END_SIZE = 8  # of what ends a stream of Arrow IPC


def bytes_batch(buffer: pa.Buffer) -> pa.RecordBatch:
    """Return `buffer` as a batch of `BYTES_SCHEMA`, without copying it."""
    column = pa.Array.from_buffers(pa.uint8(), buffer.size, [None, buffer])
    return pa.record_batch([column], schema=BYTES_SCHEMA)


def without(content: pa.Buffer, gaps: Sequence[tuple[int, int]]) -> pa.Buffer:
    """Return `content` without `gaps`: where each begins, rising, and its size."""
    kept = pa.allocate_buffer(content.size - sum(size for _, size in gaps))
    source, target = (memoryview(each).cast("B") for each in (content, kept))
    start = at = 0
    for position, size in (*gaps, (content.size, 0)):
        target[at : at + position - start] = source[start:position]
        at += position - start
        start = position + size
    return kept


def bytes_of(
    batch: pa.RecordBatch | None, before: bytes = b"", gaps: Sequence[tuple[int, int]] = ()
) -> pa.Buffer:
    """Return the bytes of a batch that came over the wire, behind `before`, in aligned memory.

    Where they lie in what gRPC received is chance; Arrow's columns must start at multiples of 8.
    In place of the `gaps` that were left out are zeros, which take no memory.
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
    if gaps:
        return _spread(content, before, gaps)
    copy = pa.allocate_buffer(len(before) + len(content))
    view = memoryview(copy).cast("B")
    view[: len(before)] = before
    view[len(before) :] = content
    return copy


def _spread(content: memoryview, before: bytes, gaps: Sequence[tuple[int, int]]) -> pa.Buffer:
    missing = sum(size for _, size in gaps)
    whole = len(content) + missing
    end = 0
    for position, size in gaps:
        if not (end <= position and 0 <= size <= whole - position and whole <= WHOLE_BYTES_MAX):
            message = f"{size} bytes are said to be left out at {position} of {whole}, behind {end}"
            raise ProtocolError(message)
        end = position + size
    spread = pa.py_buffer(np.zeros(len(before) + whole, np.uint8))
    view = memoryview(spread).cast("B")
    view[: len(before)] = before
    start = at = 0
    for position, size in (*gaps, (whole, 0)):
        piece = content[at : at + position - start]
        view[len(before) + start : len(before) + position] = piece
        at += len(piece)
        start = position + size
    return spread


def encode_rows(batch: pa.RecordBatch, *, has_dictionaries: bool = True) -> tuple[pa.Buffer, int]:
    """Return the messages of `batch`, dictionaries first, and the CRC-32C of them all."""
    if not has_dictionaries:
        message: pa.Buffer = batch.serialize()
        return message, crc32c(message)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: pa.Buffer = sink.getvalue()
    start = batch.schema.serialize().size
    messages = content.slice(start, content.size - start - _END_SIZE)
    return messages, crc32c(messages)


def decode_rows(messages: pa.Buffer, schema: pa.Schema, checksum: int) -> pa.RecordBatch:
    """Return the rows in `messages`, every value of them checked.

    Raises
    ------
    ProtocolError
        Where these are not the bytes that were sent.
    SchemaMismatchError
        Where they are no rows of `schema`: lengths or offsets that do not fit, text that is not
        UTF-8.
    """
    if crc32c(messages) != checksum:
        text = "the checksum of the rows does not hold: they were changed on their way; send again"
        raise ProtocolError(text)
    try:
        has_dictionaries = _check_messages(memoryview(messages).cast("B"))
        if has_dictionaries:
            stream = pa.BufferReader(pa.py_buffer(b"".join([schema.serialize(), messages])))
            batch = pa.ipc.open_stream(stream).read_next_batch()
        else:
            batch = pa.ipc.read_record_batch(messages, schema)
        batch.validate(full=True)
    except (pa.ArrowException, struct.error, IndexError, OSError, StopIteration) as error:
        text = f"the rows are damaged, or none of these columns ({schema.names}): {error}"
        raise SchemaMismatchError(text) from error
    for name, field, column in zip(schema.names, schema, batch.columns, strict=True):
        if column.null_count and not field.nullable:
            text = f"column {name!r} may not be null; got {column.null_count} nulls"
            raise SchemaMismatchError(text)
    return batch


def _check_messages(view: memoryview) -> bool:
    """Return `True` iff dictionaries come before the rows.

    Refuses what no client sends, and messages of which a few bytes could claim terabytes.
    """
    position, count, is_last = 0, 0, False
    while position < len(view):
        size = try_metadata_size(view, position)
        if is_last or size is None or size > len(view) - position - PREFIX_SIZE:
            text = f"no message of rows starts at byte {position}"
            raise SchemaMismatchError(text)
        start = position + PREFIX_SIZE
        fields = read_message(view[start : start + size])
        if fields.is_compressed:
            text = "rows come without compression; got a compressed body"
            raise SchemaMismatchError(text)
        if not 0 <= fields.row_count <= ROWS_MAX:
            text = f"at most {ROWS_MAX} rows come at once; got {fields.row_count}"
            raise SchemaMismatchError(text)
        if not 0 <= fields.body_length <= len(view) - start - size:
            text = f"the body of a message has {fields.body_length} bytes; less came"
            raise SchemaMismatchError(text)
        position = start + size + fields.body_length
        is_last = not fields.is_dictionary
        count += 1
    if not is_last:
        text = "the rows are no record batch message"
        raise SchemaMismatchError(text)
    return count > 1
