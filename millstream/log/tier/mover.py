"""Moves sealed segments to a store of objects, and removes them from there.

read back and compared ─▶ descriptor, synced ─▶ the local file is removed

A local file counts before a descriptor: who dies between two steps has moved nothing, and who
rewrites a moved segment puts a local file in its place.
"""

from __future__ import annotations

import pyarrow as pa

from millstream.errors import LogError, OptionError
from millstream.log.segment import MOVED_SUFFIX, SUFFIX, Segment
from millstream.log.tier.moved_segment import (
    MovedSegment,
    moved_path,
    read_moved,
    sha256_of,
    write_moved,
)
from millstream.storage import Storage
from millstream.storage_objects import files_below, open_objects


def move_out(storage: Storage, directory: str, segment: Segment, place: str, folder: str) -> None:
    """Store a sealed segment, say that it is there, and remove the local file.

    Parameters
    ----------
    directory
        The partition's folder.
    segment
        Which; it is verified.
    place
        Where to.
    folder
        Of `place`, in which the object is put.

    Raises
    ------
    CorruptSegmentError
        Where the segment is damaged; it stays here.
    LogError
        Where the store does not take it, or gives back something else; it stays here.
    """
    segment.verify()
    content, head = segment.content, segment.head
    digest = sha256_of(content)
    # Named by what it is: a restored copy of the log never meets other rows under one name.
    name = f"{folder}/{head.base_offset:020d}-{digest[:16]}{SUFFIX}"
    start = content.slice(0, head.size_bytes).to_pybytes()
    moved = MovedSegment(place, name, content.size, digest, start)
    try:
        objects = open_objects(place, storage)
        objects.put(name, content)
        back = objects.get(name)
    except (OSError, pa.ArrowException, OptionError) as error:
        message = f"cannot move {segment.source[1]} to {place}: {error}; it stays where it is"
        raise LogError(message) from error
    if not moved.is_of(back):
        message = f"{place} gives back something else than {name} was; the segment stays here"
        raise LogError(message)
    write_moved(storage, directory, head.base_offset, moved)
    storage.remove(segment.source[1])


def remove_all_moved(storage: Storage, directory: str) -> None:
    """Remove the moved segments of all partitions below `directory` from their stores."""
    for path in files_below(storage, directory):
        folder, _, name = path.rpartition("/")
        if name.endswith(MOVED_SUFFIX):
            remove_moved(storage, folder, int(name.removesuffix(MOVED_SUFFIX)))


def remove_moved(storage: Storage, directory: str, base_offset: int) -> None:
    """Remove a moved segment, or what a rewritten one left there; nothing where there is none."""
    found = read_moved(storage, directory, base_offset)
    if found is None:
        return
    # First the descriptor: an object that nobody knows of is rubbish, one that is missing damage.
    storage.remove(moved_path(directory, base_offset))
    try:
        open_objects(found.place, storage).remove(found.name)
    except (OSError, pa.ArrowException) as error:
        message = (
            f"the object {found.name} in {found.place} is not needed any more but could not be "
            f"removed: {error}; remove it by hand"
        )
        raise LogError(message) from error
