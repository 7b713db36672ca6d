"""The record batch message of columns that are all of fixed width and without nulls.

Most batches are such, and what pyarrow's writer makes of one differs from what it makes of another
in a few numbers only: here these are put into a message that it made once. Taking apart what it
writes each time costs as much as all else that is done for a small append.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
from crc32c import crc32c

from millstream.log.flatbuffer import RecordBatchPlaces, record_batch_places
from millstream.log.messages import COPIED_BYTES_MAX
from millstream.log.metadata import PREFIX_SIZE, pack_prefix, padded
from millstream.storage import Bytes

_I64 = struct.Struct("<q")
_BUFFER_ALIGNMENT = 8


class WordMessage(NamedTuple):
    """A message, taken apart.

    Attributes
    ----------
    before
        Prefix, metadata and zeros up to the frame's header.
    body
        Its body in pieces, or in one where it is small; they keep the batch's memory alive.
    body_size
        Bytes of the body, a multiple of 64.
    checksums
        CRC-32C of each column's range of the body.
    """

    before: bytes
    body: list[Bytes]
    body_size: int
    checksums: list[int]


class _Template(NamedTuple):
    metadata: bytes
    places: RecordBatchPlaces
    nodes: struct.Struct
    buffers: struct.Struct


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
    before, places = bytearray(template.metadata), template.places
    _I64.pack_into(before, PREFIX_SIZE + places.row_count, count)
    _I64.pack_into(before, PREFIX_SIZE + places.body_length, position)
    template.nodes.pack_into(before, PREFIX_SIZE + places.nodes, *(count, 0) * len(widths))
    template.buffers.pack_into(before, PREFIX_SIZE + places.buffers, *buffers)
    return WordMessage(bytes(before), body, position, checksums)


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
