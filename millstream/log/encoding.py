"""Turns a record batch into the bytes of a frame, copying no column.

What does not depend on the batch's place in the log (metadata, body, checksums of columns)
is made before the partition's lock is taken; the header is packed under it.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
from crc32c import crc32c

from millstream.log.flatbuffer import read_message
from millstream.log.frame_header import (
    FrameHeader,
    LaterMessage,
    frame_header_size,
    pack_checksums,
    pack_frame_header,
)
from millstream.log.messages import COPIED_BYTES_MAX, ArrowMessage, messages_of
from millstream.log.metadata import (
    PREFIX_SIZE,
    ColumnLayout,
    column_range,
    pack_prefix,
    padded,
)
from millstream.log.word_message import try_copied_words, try_word_message
from millstream.storage import Bytes


class EncodedBatch(NamedTuple):
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
        What follows the header: the buffers of the first message with their padding, and the
        later messages; they keep the batch's memory alive.
    body_size
        Bytes of these, a multiple of 64.
    column_checksums
        CRC-32C of each top-level column's dictionaries and range of the body.
    frame_size
        Bytes of the whole frame; a multiple of 64.
    before_checksum
        CRC-32C of `before`.
    packed_checksums
        These, and what the header says of later messages, as they stand in it.
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
            header,
            self.layout.column_count,
            self.layout.dictionary_count,
            self.packed_checksums,
            self.before_checksum,
        )
        return [self.before, packed, *self.body]


def encode_batch(
    batch: pa.RecordBatch, layout: ColumnLayout, compression: str = "none"
) -> EncodedBatch:
    """Return `batch` as a frame without header.

    `batch` has the schema of `layout`, nullability and metadata aside; it may be a slice of
    another one. Costs the checksum of its bytes: whole buffers are neither copied nor moved,
    unless they are compressed (`"lz4"`, `"zstd"`).
    """
    header_size = frame_header_size(layout.column_count, layout.dictionary_count)
    if layout.word_widths and compression == "none":
        words = None
        if batch.num_rows * layout.row_bytes <= COPIED_BYTES_MAX:
            words = try_copied_words(batch, layout.word_widths, header_size)
        if words is None:
            words = try_word_message(batch, layout.word_widths, header_size)
        if words is not None:
            return EncodedBatch(layout, batch.num_rows, *words)
    messages = messages_of(batch, layout.dictionary_count > 0, compression)
    assert len(messages) == layout.dictionary_count + 1, (len(messages), layout.dictionary_columns)
    checksums = [0] * layout.column_count
    for column, dictionary in zip(layout.dictionary_columns, messages, strict=False):
        dictionary.pad_body()
        checksums[column] = dictionary.body_checksum(checksums[column])
    _add_column_checksums(checksums, messages[-1], layout)
    zeros = messages[-1].pad_body()
    if zeros:
        last = _last_with_buffers(layout)
        checksums[last] = crc32c(zeros, checksums[last])
    before = _metadata_of(messages[0], header_size)
    body = messages[0].body
    size = messages[0].body_size
    later = []
    for message in messages[1:]:
        metadata = _metadata_of(message, 0)
        position = len(before) + header_size + size
        later.append(LaterMessage(position, len(metadata), crc32c(metadata)))
        body += [metadata, *message.body]
        size += len(metadata) + message.body_size
    return EncodedBatch(
        layout=layout,
        row_count=batch.num_rows,
        before=before,
        body=body,
        body_size=size,
        column_checksums=checksums,
        frame_size=len(before) + header_size + size,
        before_checksum=crc32c(before),
        packed_checksums=pack_checksums(checksums, later),
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


def _metadata_of(message: ArrowMessage, header_size: int) -> bytes:
    """Return a message's prefix, flatbuffer and zeros up to a multiple of 64.

    The metadata length counts `header_size` bytes (a multiple of 64) that follow these.
    """
    size = padded(PREFIX_SIZE + len(message.flatbuffer))
    prefix = pack_prefix(size - PREFIX_SIZE + header_size)
    return (prefix + message.flatbuffer).ljust(size, b"\0")


def _add_column_checksums(
    checksums: list[int], message: ArrowMessage, layout: ColumnLayout
) -> None:
    """Go on with each column's CRC-32C over its range of the record batch's body.

    A chunk of the body lies within one of them, unless there is one chunk alone.
    """
    view, body, body_size = memoryview(message.flatbuffer), message.body, message.body_size
    buffers = read_message(view).buffers
    position = 0
    index = 0
    copied = memoryview(body[0]) if len(body) == 1 else None
    for column in range(layout.column_count):
        start, end = column_range(view, buffers, layout, column, body_size)
        assert start == position, f"column {column} starts at {start}, not at {position}"
        checksum = checksums[column]
        if copied is not None:
            checksum = crc32c(copied[start:end], checksum)
            position = end
        while position < end:
            checksum = crc32c(body[index], checksum)
            position += len(body[index])
            index += 1
        assert position == end, f"column {column} ends at {position}, not at {end}"
        checksums[column] = checksum
    assert position == body_size, f"the columns end at {position}, not at {body_size}"
    view.release()


def _last_with_buffers(layout: ColumnLayout) -> int:
    """Return the index of the last column that has buffers: the body's end is its range's."""
    last = layout.first_buffers[-1]
    return next(
        index
        for index in reversed(range(layout.column_count))
        if layout.first_buffers[index] < last
    )
