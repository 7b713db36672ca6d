"""The record batch message of columns that are all of fixed width and without nulls.

Most batches are such, and what pyarrow's writer makes of one differs from what it makes of another
in a few numbers only. Of a small batch it is what pyarrow writes, and how that is to be taken apart
is known from the last one with the same metadata; of a large one the numbers are put into a message
that pyarrow made once, and no column is copied.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
from crc32c import crc32c

from millstream.log.flatbuffer import (
    RecordBatchPlaces,
    body_length_position,
    buffer_ranges,
    read_message,
    record_batch_places,
)
from millstream.log.frame_header import pack_checksums
from millstream.log.messages import COPIED_BYTES_MAX
from millstream.log.metadata import PREFIX_SIZE, pack_prefix, padded
from millstream.storage import Bytes

_I64 = struct.Struct("<q")
_BUFFER_ALIGNMENT = 8


class WordMessage(NamedTuple):
    """A message, taken apart; the same as in `millstream.log.encoding.EncodedBatch`."""

    before: bytes
    body: list[Bytes]
    body_size: int
    column_checksums: list[int]
    frame_size: int
    before_checksum: int
    packed_checksums: bytes


def try_copied_words(
    batch: pa.RecordBatch, widths: tuple[int, ...], header_size: int
) -> WordMessage | None:
    """Return the message of a small batch, its columns copied; `None`: it has zeros in between.

    For the parameters see `try_word_message`.
    """
    message = memoryview(batch.serialize())
    size = PREFIX_SIZE + int.from_bytes(message[4:PREFIX_SIZE], "little")
    cut = _cut_of(bytes(message[:size]), widths, header_size)
    if cut is None:
        return None
    checksums = [crc32c(message[start:end]) for start, end in cut.columns]
    body: list[Bytes] = [message[size:]]
    if cut.zeros:
        body.append(cut.zeros)
        checksums[-1] = crc32c(cut.zeros, checksums[-1])
    packed = cut.checksums.pack(*checksums)
    return WordMessage(
        cut.before, body, cut.body_size, checksums, cut.frame_size, cut.before_checksum, packed
    )


class _Cut(NamedTuple):
    """Where to cut what pyarrow writes, and what becomes of its metadata.

    Attributes
    ----------
    columns
        From where to where each column goes.
    zeros
        Up to the end of the frame's body.
    """

    before: bytes
    columns: list[tuple[int, int]]
    zeros: bytes
    body_size: int
    frame_size: int
    before_checksum: int
    checksums: struct.Struct


@lru_cache(maxsize=1024)
def _cut_of(metadata: bytes, widths: tuple[int, ...], header_size: int) -> _Cut | None:
    """Return the cut of messages with this metadata; `None`: not all of it is values.

    There are nulls then, or no rows; or zeros behind a column, which pyarrow does not write where
    the batch is a slice: it writes what follows there.
    """
    flatbuffer = bytearray(metadata[PREFIX_SIZE:])
    fields = read_message(memoryview(flatbuffer))
    ranges = buffer_ranges(memoryview(flatbuffer), fields.buffers, 0, None)[1::2]
    columns = []
    position = 0
    for (start, size), width in zip(ranges, widths, strict=True):
        is_plain = start == position and size == fields.row_count * width
        if not is_plain or size == 0 or size % _BUFFER_ALIGNMENT:
            return None
        position += size
        columns.append((len(metadata) + start, len(metadata) + position))
    body_size = padded(position)
    _I64.pack_into(flatbuffer, body_length_position(memoryview(flatbuffer)), body_size)
    size = padded(len(metadata))
    prefix = pack_prefix(size - PREFIX_SIZE + header_size)
    before = (prefix + flatbuffer).ljust(size, b"\0")
    zeros = len(pack_checksums([0] * len(columns), [])) - 4 * len(columns)
    return _Cut(
        before,
        columns,
        bytes(body_size - position),
        body_size,
        size + header_size + body_size,
        crc32c(before),
        struct.Struct(f"<{len(columns)}I{zeros}x"),
    )


def try_word_message(
    batch: pa.RecordBatch, widths: tuple[int, ...], header_size: int
) -> WordMessage | None:
    """Return the message of `batch`; `None`: it has no rows, or a null.

    Parameters
    ----------
    batch
        May be a slice.
    widths
        Bytes of each value, by column.
    header_size
        Bytes of the frame's header, which the metadata's length counts.
    """
    count = batch.num_rows
    if count == 0:
        return None
    body: list[Bytes] = []
    buffers: list[int] = []
    checksums: list[int] = []
    position = 0
    for column, width in zip(batch.columns, widths, strict=True):
        if column.null_count:
            return None
        start, size = column.offset * width, count * width
        words = memoryview(column.buffers()[1])[start : start + size]
        body.append(words)
        checksum = crc32c(words)
        buffers += (position, 0, position, size)
        position += size
        zeros = -position % _BUFFER_ALIGNMENT
        if len(checksums) == len(widths) - 1:
            zeros = padded(position) - position
        if zeros:
            body.append(bytes(zeros))
            checksum = crc32c(body[-1], checksum)
            position += zeros
        checksums.append(checksum)
    if position <= COPIED_BYTES_MAX:
        body = [b"".join(body)]
    template = _template_of(len(widths), header_size)
    metadata, places = bytearray(template.metadata), template.places
    _I64.pack_into(metadata, PREFIX_SIZE + places.row_count, count)
    _I64.pack_into(metadata, PREFIX_SIZE + places.body_length, position)
    template.nodes.pack_into(metadata, PREFIX_SIZE + places.nodes, *(count, 0) * len(widths))
    template.buffers.pack_into(metadata, PREFIX_SIZE + places.buffers, *buffers)
    before = bytes(metadata)
    return WordMessage(
        before,
        body,
        position,
        checksums,
        len(before) + header_size + position,
        crc32c(before),
        pack_checksums(checksums, []),
    )


class _Template(NamedTuple):
    metadata: bytes
    places: RecordBatchPlaces
    nodes: struct.Struct
    buffers: struct.Struct


@lru_cache(maxsize=256)
def _template_of(column_count: int, header_size: int) -> _Template:
    """Return the metadata of such a message, prefix and padding included."""
    batch = pa.record_batch(
        [pa.array([1], pa.int64())] * column_count, names=list(map(str, range(column_count)))
    )
    message = batch.serialize().to_pybytes()
    size = PREFIX_SIZE + int.from_bytes(message[4:PREFIX_SIZE], "little")
    flatbuffer = message[PREFIX_SIZE:size]
    prefix = pack_prefix(padded(size) - PREFIX_SIZE + header_size)
    return _Template(
        (prefix + flatbuffer).ljust(padded(size), b"\0"),
        record_batch_places(memoryview(flatbuffer)),
        struct.Struct(f"<{2 * column_count}q"),
        struct.Struct(f"<{4 * column_count}q"),
    )
