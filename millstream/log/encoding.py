"""Turns a record batch into the bytes of a frame, copying no column.

What does not depend on the batch's place in the log (metadata, body, checksums of columns)
is made before the partition's lock is taken; the header is packed under it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from crc32c import crc32c

from millstream.log.frame_header import (
    FrameHeader,
    frame_header_size,
    pack_checksums,
    pack_frame_header,
)
from millstream.log.metadata import (
    PREFIX_SIZE,
    ColumnLayout,
    body_length,
    body_length_position,
    buffers_position,
    column_range,
    pack_prefix,
    padded,
)
from millstream.storage import Bytes

COPIED_BYTES_MAX = 64 * 1024
"""A batch of so few bytes is sooner copied, into one chunk, than taken apart."""

_I64 = struct.Struct("<q")
_OPTIONS = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V5)


class _ChunkSink:
    """A file that keeps what is written to it as it comes: pyarrow hands over whole buffers."""

    closed = False

    def __init__(self) -> None:
        self.chunks: list[Any] = []

    def write(self, chunk: Any) -> int:
        self.chunks.append(chunk)
        return len(chunk)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A record batch as a frame, but for the header.

    Attributes
    ----------
    layout
        Its columns.
    row_count
        Number of rows.
    before
        Prefix, metadata and zeros up to the header.
    body
        The columns' buffers and their padding; they keep the batch's memory alive.
    body_size
        Bytes of the body, a multiple of 64.
    column_checksums
        CRC-32C of each top-level column's body range.
    frame_size
        Bytes of the whole frame; a multiple of 64.
    before_checksum
        CRC-32C of `before`.
    packed_checksums
        `column_checksums` as they stand in the header.
    """

    layout: ColumnLayout
    row_count: int
    before: bytes
    body: list[Bytes]
    body_size: int
    column_checksums: list[int]
    frame_size: int
    before_checksum: int
    packed_checksums: bytes

    def chunks(self, header: FrameHeader) -> list[Bytes]:
        """Return the frame's bytes, to be written one after another."""
        assert header.frame_size == self.frame_size, (header.frame_size, self.frame_size)
        assert header.row_count == self.row_count, (header.row_count, self.row_count)
        packed = pack_frame_header(
            header, len(self.column_checksums), self.packed_checksums, self.before_checksum
        )
        return [self.before, packed, *self.body]


def encode_batch(batch: pa.RecordBatch, layout: ColumnLayout) -> EncodedBatch:
    """Return `batch` as a frame without header.

    `batch` has the schema of `layout`, nullability and metadata aside; it may be a slice of
    another one. Costs the checksum of its bytes: whole buffers are neither copied nor moved.
    """
    flatbuffer, body = _message_of(batch)
    view = memoryview(flatbuffer)
    size = body_length(view)
    padding = padded(size) - size
    checksums = _column_checksums(view, body, layout, size)
    if padding:
        zeros = bytes(padding)
        body.append(zeros)
        _I64.pack_into(flatbuffer, body_length_position(view), size + padding)
        checksums[_last_with_buffers(layout)] = crc32c(zeros, checksums[_last_with_buffers(layout)])
    view.release()
    # The header is a multiple of 64 long: it starts at one and so does the body.
    before_size = padded(PREFIX_SIZE + len(flatbuffer))
    flatbuffer.extend(bytes(before_size - PREFIX_SIZE - len(flatbuffer)))
    header_size = frame_header_size(layout.column_count)
    before = pack_prefix(before_size - PREFIX_SIZE + header_size) + flatbuffer
    return EncodedBatch(
        layout=layout,
        row_count=batch.num_rows,
        before=before,
        body=body,
        body_size=size + padding,
        column_checksums=checksums,
        frame_size=before_size + header_size + size + padding,
        before_checksum=crc32c(before),
        packed_checksums=pack_checksums(checksums),
    )


def encode_schema(schema: pa.Schema, header_size: int) -> bytes:
    """Return the schema message's prefix, flatbuffer and zeros, with room for a header counted.

    The metadata length includes `header_size` bytes (a multiple of 64) that the caller
    appends; the message then ends at a multiple of 64.
    """
    flatbuffer = schema.serialize().to_pybytes()[PREFIX_SIZE:]
    size = padded(PREFIX_SIZE + len(flatbuffer))
    prefix = pack_prefix(size - PREFIX_SIZE + header_size)
    return (prefix + flatbuffer).ljust(size, b"\0")


def _message_of(batch: pa.RecordBatch) -> tuple[bytearray, list[Any]]:
    """Return the batch's flatbuffer and its body as chunks, as pyarrow's writer writes them."""
    if batch.nbytes <= COPIED_BYTES_MAX:
        message = batch.serialize()
        size = PREFIX_SIZE + int.from_bytes(message.slice(4, 4), "little")
        return bytearray(message.slice(PREFIX_SIZE, size - PREFIX_SIZE)), [message.slice(size)]
    sink = _ChunkSink()
    writer = pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), batch.schema, options=_OPTIONS)
    writer.write_batch(batch)
    _, schema_count = _take_metadata(sink.chunks, 0)
    flatbuffer, count = _take_metadata(sink.chunks, schema_count)
    return flatbuffer, sink.chunks[count:]


def _take_metadata(chunks: list[Any], count: int) -> tuple[bytearray, int]:
    """Return the flatbuffer that starts with chunk index `count`, and the index behind it.

    How prefix and flatbuffer are cut into pieces is pyarrow's affair; a buffer of the body
    starts a chunk of its own.
    """
    head = bytearray()
    size = PREFIX_SIZE
    while len(head) < size:
        head += chunks[count]
        count += 1
        if len(head) >= PREFIX_SIZE:
            size = PREFIX_SIZE + int.from_bytes(head[4:PREFIX_SIZE], "little")
    assert len(head) == size, (len(head), size)
    return head[PREFIX_SIZE:], count


def _column_checksums(
    view: memoryview, body: list[Any], layout: ColumnLayout, body_size: int
) -> list[int]:
    """Return the CRC-32C of each column's range of the body.

    A chunk of the body lies within one of them, unless there is one chunk alone.
    """
    buffers = buffers_position(view)
    checksums = []
    position = 0
    index = 0
    copied = memoryview(body[0]) if len(body) == 1 else None
    for column in range(layout.column_count):
        start, end = column_range(view, buffers, layout, column, body_size)
        assert start == position, f"column {column} starts at {start}, not at {position}"
        checksum = 0
        if copied is not None:
            checksum = crc32c(copied[start:end])
            position = end
        while position < end:
            checksum = crc32c(body[index], checksum)
            position += len(body[index])
            index += 1
        assert position == end, f"column {column} ends at {position}, not at {end}"
        checksums.append(checksum)
    assert position == body_size, f"the columns end at {position}, not at {body_size}"
    return checksums


def _last_with_buffers(layout: ColumnLayout) -> int:
    """Return the index of the last column that has buffers: the body's end is its range's."""
    last = layout.first_buffers[-1]
    return next(
        index
        for index in reversed(range(layout.column_count))
        if layout.first_buffers[index] < last
    )
