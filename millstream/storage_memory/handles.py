"""Open files and mapped cells of a process on a disk in memory."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from millstream.clock import Clock
from millstream.storage import Bytes
from millstream.storage_memory.contents import FileContent

if TYPE_CHECKING:
    from millstream.storage_memory.disk import MemoryStorage

_WORD = struct.Struct("<q")


class MemoryAppendFile:
    """A file open for appending, or in place; see `millstream.storage.AppendFile`."""

    def __init__(self, storage: MemoryStorage, file: FileContent, in_place: bool) -> None:
        self._storage = storage
        self._in_place = in_place
        self._file = file
        self._told = file.failed_syncs

    @property
    def size_bytes(self) -> int:
        """The file's present size."""
        self._storage.check_alive()
        return self._file.size

    def append(self, chunks: Sequence[Bytes]) -> None:
        """Write `chunks` at the end; any first part of them where the process dies inside."""
        assert not self._in_place, "whoever writes in place says where"
        self._storage.write("append", self._file, _joined(chunks))

    def write(self, position: int, chunks: Sequence[Bytes]) -> None:
        """Write `chunks` at `position`; any first part of them where the process dies inside."""
        assert self._in_place, "a file that is open for appending is written at its end"
        assert position <= self._file.size, (position, self._file.size)
        self._storage.write("append", self._file, _joined(chunks), position)

    def read(self, position: int, size_bytes: int) -> bytes:
        """Return what the file has at `position`; less than `size_bytes` at its end."""
        self._storage.check_alive()
        end = min(position + size_bytes, self._file.size)
        return bytes(memoryview(self._file.content)[position:end])

    def begin_sync(self, position: int, size_bytes: int) -> None:
        """Do nothing, or lose what is dirty: in a power cut any of it may be durable anyway."""
        assert position >= 0, position
        assert size_bytes > 0, size_bytes
        self._storage.effect("begin_sync", lambda: None, refused=self._file.drop_dirty)

    def sync(self) -> None:
        """Make the content durable; where it is refused, what was dirty is lost for good.

        Raises also where the file was open when the sync of another process was refused.
        """
        self._storage.effect("sync", self._file.sync, refused=self._refuse)
        if self._told != self._file.failed_syncs:
            self._told = self._file.failed_syncs
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _refuse(self) -> None:
        self._file.drop_dirty()
        self._told = self._file.failed_syncs

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to `size_bytes`."""
        self._storage.effect("truncate", lambda: self._file.truncate(size_bytes))

    def close(self) -> None:
        """Do nothing: also a dead process closes its files."""


def _joined(chunks: Sequence[Bytes]) -> bytes:
    return b"".join([memoryview(chunk).cast("B") for chunk in chunks if len(chunk)])


class MemoryCells:
    """A mapped file; see `millstream.storage.SharedCells`."""

    def __init__(self, storage: MemoryStorage, file: FileContent, size_bytes: int) -> None:
        self._storage = storage
        self._file = file
        self._size = size_bytes

    def read(self, position: int, size_bytes: int) -> bytes:
        """Return `size_bytes` at `position`."""
        self._storage.check_alive()
        return bytes(self._file.content[position : min(position + size_bytes, self._size)])

    def write(self, position: int, content: bytes) -> None:
        """Store `content` at `position`; more than a word is not atomic."""
        assert position + len(content) <= self._size, (position, len(content), self._size)
        if len(content) > _WORD.size or position % _WORD.size:
            self._storage.write("cells", self._file, content, position)
        else:
            self._storage.effect("cells", lambda: self._file.write(position, content))

    def read_word(self, position: int) -> int:
        """Return the signed word at `position`, a multiple of 8."""
        assert position % 8 == 0, position
        self._storage.check_alive()
        return int(_WORD.unpack_from(self._file.content, position)[0])

    def write_word(self, position: int, value: int) -> None:
        """Store the signed word `value` at `position`, a multiple of 8."""
        assert position % 8 == 0, position
        assert position + _WORD.size <= self._size, (position, self._size)
        content = _WORD.pack(value)
        self._storage.effect("cells", lambda: self._file.write(position, content))

    def wait(self, words: Sequence[tuple[int, int]], timeout_us: int, clock: Clock) -> bool:
        """Let others run, and then, unless one of them woke somebody, the whole time pass."""
        if timeout_us <= 0:
            return False
        if any((self.read_word(position) ^ value) & 0xFFFFFFFF for position, value in words):
            return True
        before = [self._file.wakes.get(position, 0) for position, _ in words]
        self._storage.let_others_run()
        if [self._file.wakes.get(position, 0) for position, _ in words] != before:
            return True
        clock.sleep_us(timeout_us)
        return False

    def wake(self, position: int) -> None:
        """Note that somebody called: `wait` looks whether it was during its time."""
        self._storage.check_alive()
        self._file.wakes[position] = self._file.wakes.get(position, 0) + 1
