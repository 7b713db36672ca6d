"""Copies of moved segments on this disk, as many as there is room for.

<log>/cache/<SHA-256>        whole segments, in use or not; any process may remove any
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa

from millstream.errors import CorruptSegmentError, LogError
from millstream.log.tier.moved_segment import MovedSegment
from millstream.storage import Storage
from millstream.storage_objects import open_objects

FOLDER = "cache"


class SegmentCache:
    """The cache of the log in `path`. Any thread may use it.

    What is mapped stays readable when its copy is removed; its room is free when the last reader
    lets go of it.

    Parameters
    ----------
    storage, path
        Of the log.
    bytes_max
        Tells beyond what a new copy does not let the cache grow, but for a single larger one.
    """

    def __init__(self, storage: Storage, path: str, bytes_max: Callable[[], int]) -> None:
        self._storage = storage
        self._directory = f"{path}/{FOLDER}"
        self._bytes_max = bytes_max
        self._used: dict[str, None] = {}  # rising by last use, as far as this process knows

    def map(self, name: str, segment: MovedSegment) -> pa.Buffer:
        """Return the bytes of a moved segment; fetches it where there is no copy.

        Parameters
        ----------
        name
            Of the partition, for messages.
        segment
            What to read.

        Raises
        ------
        CorruptSegmentError
            Where the object is missing or is not what was moved.
        LogError
            Where the store does not answer.
        """
        path = f"{self._directory}/{segment.sha256}"
        try:
            content = self._storage.map(path, segment.size)
        except OSError:  # there is none, or a torn one
            content = None
        if content is None:
            fetched = self._fetch(name, segment)
            self._make_room(segment.size)
            self._storage.make_directory(self._directory)
            try:
                self._storage.write_file(path, fetched)
                content = self._storage.map(path, segment.size)
            except OSError:
                return fetched  # no room here, or removed at once: from memory then
        self._used.pop(segment.sha256, None)
        self._used[segment.sha256] = None
        return content

    def _fetch(self, name: str, segment: MovedSegment) -> pa.Buffer:
        where = f"segment {segment.name} of partition {name}, moved to {segment.place},"
        try:
            content = open_objects(segment.place, self._storage).get(segment.name)
        except FileNotFoundError as error:
            message = f"{where} is missing there: restore the object from a copy"
            raise CorruptSegmentError(message) from error
        except (OSError, pa.ArrowException) as error:
            message = f"{where} cannot be read now: {error}; is the store reachable?"
            raise LogError(message) from error
        if not segment.is_of(content):
            message = f"{where} is damaged there: restore the object from a copy"
            raise CorruptSegmentError(message)
        return content

    def _make_room(self, size_bytes: int) -> None:
        """Remove copies until `size_bytes` more fit: first those of others, then the unused."""
        sizes = {}
        for each in self._storage.list_directory(self._directory):
            with suppress(OSError):
                sizes[each] = self._storage.file_size(f"{self._directory}/{each}")
        total = sum(sizes.values()) + size_bytes
        others = [each for each in sizes if each not in self._used]
        for each in [*others, *[used for used in self._used if used in sizes]]:
            if total <= self._bytes_max():
                return
            with suppress(OSError):
                self._storage.remove(f"{self._directory}/{each}")
            total -= sizes[each]
            self._used.pop(each, None)
