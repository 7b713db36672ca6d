"""What pyarrow's writer makes of a batch: Arrow messages, taken apart without copying columns."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from crc32c import crc32c

from millstream.log.flatbuffer import body_length_position, read_message
from millstream.log.metadata import PREFIX_SIZE, pack_prefix, padded

COPIED_BYTES_MAX = 64 * 1024
"""A batch of so few bytes is sooner copied, into one chunk, than taken apart."""

_I64 = struct.Struct("<q")
_OPTIONS = {
    codec: pa.ipc.IpcWriteOptions(
        metadata_version=pa.ipc.MetadataVersion.V5, compression=None if codec == "none" else codec
    )
    for codec in ("none", "lz4", "zstd")
}


@dataclass(slots=True)
class ArrowMessage:
    """A dictionary batch or record batch message.

    Attributes
    ----------
    flatbuffer
        Its metadata, without prefix and padding.
    body
        Its body in pieces, which keep the batch's memory alive. A buffer starts a piece of its
        own, unless all is one piece.
    body_size
        Bytes of the body.
    """

    flatbuffer: bytearray
    body: list[Any]
    body_size: int

    def pad_body(self) -> bytes:
        """Make the body a multiple of 64 bytes, and return the zeros that this took."""
        zeros = bytes(padded(self.body_size) - self.body_size)
        if zeros:
            self.body.append(zeros)
            self.body_size += len(zeros)
            with memoryview(self.flatbuffer) as view:
                position = body_length_position(view)
            _I64.pack_into(self.flatbuffer, position, self.body_size)
        return zeros

    def to_bytes(self) -> bytes:
        """Return the message by itself, with its prefix."""
        size = padded(PREFIX_SIZE + len(self.flatbuffer), 8)
        metadata = (pack_prefix(size - PREFIX_SIZE) + self.flatbuffer).ljust(size, b"\0")
        return b"".join([metadata, *(bytes(each) for each in self.body)])

    def body_checksum(self, checksum: int) -> int:
        """Return the CRC-32C of the whole body, behind bytes whose CRC-32C is `checksum`."""
        for each in self.body:
            checksum = crc32c(each, checksum)
        return checksum


def messages_of(
    batch: pa.RecordBatch, has_dictionaries: bool, compression: str
) -> list[ArrowMessage]:
    """Return the messages of a batch: its dictionaries, each whole, and last its record batch."""
    if batch.nbytes <= COPIED_BYTES_MAX and not has_dictionaries and compression == "none":
        message = batch.serialize()
        size = PREFIX_SIZE + int.from_bytes(message.slice(4, 4), "little")
        flatbuffer = bytearray(message.slice(PREFIX_SIZE, size - PREFIX_SIZE))
        return [ArrowMessage(flatbuffer, [message.slice(size)], message.size - size)]
    sink = _ChunkSink()
    file = pa.PythonFile(sink, mode="w")
    writer = pa.ipc.new_stream(file, batch.schema, options=_OPTIONS[compression])
    writer.write_batch(batch)
    _, count = _take_metadata(sink.chunks, 0)
    messages = []
    while count < len(sink.chunks):
        flatbuffer, count = _take_metadata(sink.chunks, count)
        with memoryview(flatbuffer) as view:
            body_size = read_message(view).body_length
        start, size = count, 0
        while size < body_size:
            size += len(sink.chunks[count])
            count += 1
        assert size == body_size, (size, body_size)
        messages.append(ArrowMessage(flatbuffer, sink.chunks[start:count], body_size))
    return messages


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
