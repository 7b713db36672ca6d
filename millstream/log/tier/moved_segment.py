"""What is left here of a segment that was moved: where it is, and what it must be.

00000000000000131072.moved       JSON, in the segment's place, beside its index
"""

from __future__ import annotations

import hashlib

import msgspec
import pyarrow as pa

from millstream.errors import CorruptSegmentError
from millstream.log.checked_json import decode_checked, encode_checked
from millstream.log.segment import MOVED_SUFFIX
from millstream.storage import Storage

FORMAT_VERSION = 1


class MovedSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A moved segment.

    Attributes
    ----------
    place
        The store: a folder, or a URI that `pyarrow.fs` knows.
    name
        Of the object in it.
    size
        In bytes.
    sha256
        Of the bytes, in hex digits.
    head
        The segment's first bytes, so that it can be listed without being fetched.
    """

    place: str
    name: str
    size: int
    sha256: str
    head: bytes
    format: int = FORMAT_VERSION

    def is_of(self, content: pa.Buffer) -> bool:
        """Return `True` iff `content` are the bytes that were moved."""
        return content.size == self.size and sha256_of(content) == self.sha256


def sha256_of(content: pa.Buffer) -> str:
    """Return the SHA-256 of `content` in hex digits."""
    return hashlib.sha256(content).hexdigest()


def moved_path(directory: str, base_offset: int) -> str:
    """Return the path of what is left of the segment `base_offset` in a partition's folder."""
    return f"{directory}/{base_offset:020d}{MOVED_SUFFIX}"


def read_moved(storage: Storage, directory: str, base_offset: int) -> MovedSegment | None:
    """Return what is left of a segment that was moved; `None`: it was not.

    Raises
    ------
    CorruptSegmentError
        Where that is damaged.
    """
    path = moved_path(directory, base_offset)
    try:
        content = storage.read_file(path)
    except FileNotFoundError:
        return None
    try:
        found = decode_checked(content, MovedSegment)
    except msgspec.DecodeError as error:
        message = f"{path} is damaged: {error}; restore it from a copy"
        raise CorruptSegmentError(message) from error
    if found.format > FORMAT_VERSION:
        message = f"{path} is of format {found.format}; update Millstream to read it"
        raise CorruptSegmentError(message)
    return found


def write_moved(storage: Storage, directory: str, base_offset: int, segment: MovedSegment) -> None:
    """Say, durably, that a segment was moved."""
    storage.write_file(moved_path(directory, base_offset), encode_checked(segment))
