"""The machine's disk, as files: opens, writes and maps them.

Everything above takes a `Storage`; this is the one that production uses. `LocalStorage`
keeps no state but the boot id and the files of its locks, so any number of them, in any number
of processes and threads, may be used on the same files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from millstream.clock import Clock
from millstream.reality import require_reality
from millstream.storage import Bytes
from millstream.storage_local import background, brief_calls, futex, write_back
from millstream.storage_local.locks import Held, LockFile
from millstream.storage_local.words import MappedFile

BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"
CHUNKS_MAX = 1024  # IOV_MAX of Linux: more chunks than this are refused by writev
LOCKS_OPEN_MAX = 256
WAIT_PAUSE_FIRST_US = 100  # where the machine cannot wait for a word
WAIT_PAUSE_MAX_US = 5_000

_WORD = struct.Struct("<q")
# What makes a file's size durable, but not the time of its last change.
_sync_data = getattr(os, "fdatasync", os.fsync)


def read_boot_id(path: str = BOOT_ID_PATH) -> str:
    """Return the kernel's boot id, or the boot time where the kernel gives none (not Linux)."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        # Rounded: the difference of two clocks that are read one after the other jitters.
        return f"boot-{round((time.time() - time.monotonic()) / 10) * 10}"


def sync_directory(path: str) -> None:
    """Make the entries of the folder `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalAppendFile:
    """A file that is open for appending, or in place; see `millstream.storage.AppendFile`."""

    def __init__(self, path: str, in_place: bool) -> None:
        self._path = path
        # Linux appends whatever is written to a file with O_APPEND, wherever it was to go.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if in_place else os.O_APPEND)
        self._descriptor = os.open(path, flags, 0o644)
        try:
            # Empty: new, or its creator died before the entry was durable.
            if self.size_bytes == 0:
                sync_directory(os.path.dirname(path))
        except OSError:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """The file's present size."""
        return brief_calls.size_bytes(self._descriptor)

    def append(self, chunks: Sequence[Bytes]) -> None:
        """Write `chunks` at the end; one system call, unless the kernel takes only a part."""
        if len(chunks) > CHUNKS_MAX:
            _write_all(self._descriptor, chunks, self._path)
            return
        written = os.writev(self._descriptor, chunks)
        if written != sum(map(len, chunks)):
            _write_all(self._descriptor, _after(_not_empty(chunks), written), self._path)

    def write(self, position: int, chunks: Sequence[Bytes]) -> None:
        """Write `chunks` from `position` on; one system call, unless the kernel takes a part."""
        if len(chunks) <= CHUNKS_MAX:
            written = os.pwritev(self._descriptor, chunks, position)
            if written == sum(map(len, chunks)):
                return
            chunks = _after(_not_empty(chunks), written)
            position += written
        os.lseek(self._descriptor, position, os.SEEK_SET)
        _write_all(self._descriptor, chunks, self._path)

    def read(self, position: int, size_bytes: int) -> bytes:
        """Return what the file has at `position`; less than `size_bytes` at its end."""
        return os.pread(self._descriptor, size_bytes, position)

    def begin_sync(self, position: int, size_bytes: int) -> None:
        """Have the kernel begin to write the bytes at `position` to the disk."""
        write_back.begin(self._descriptor, position, size_bytes)

    def sync(self) -> None:
        """Return when the file's bytes and its size are on stable storage."""
        _sync_data(self._descriptor)

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to `size_bytes`."""
        os.ftruncate(self._descriptor, size_bytes)

    def close(self) -> None:
        """Close the file; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # Holders of append files are dropped without ceremony, e.g. by a Ctrl-C in a notebook.
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


def _write_all(descriptor: int, chunks: Sequence[Bytes], path: str) -> None:
    """Write `chunks` one after another, in one system call where the kernel takes all."""
    rest = _not_empty(chunks)
    while rest:
        written = os.writev(descriptor, rest[:CHUNKS_MAX])
        if written == 0:
            message = f"wrote nothing to {path}; the disk may be full"
            raise OSError(message)
        rest = _after(rest, written)


def _not_empty(chunks: Sequence[Bytes]) -> list[memoryview]:
    """Return the bytes of `chunks`, without those that have none."""
    return [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]


def _after(chunks: list[memoryview], size_bytes: int) -> list[memoryview]:
    """Return what is left of `chunks` when the first `size_bytes` of them are done."""
    for index, chunk in enumerate(chunks):
        if size_bytes < len(chunk):
            return [chunk[size_bytes:], *chunks[index + 1 :]]
        size_bytes -= len(chunk)
    return []


class LocalCells:
    """A small file mapped for writing; see `millstream.storage.SharedCells`."""

    def __init__(self, path: str, size_bytes: int) -> None:
        created = not os.path.exists(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Only ever grows: another process that creates it at the same time has it mapped.
            if os.fstat(descriptor).st_size < size_bytes:
                os.ftruncate(descriptor, size_bytes)
        finally:
            os.close(descriptor)
        if created:
            sync_directory(os.path.dirname(path))
        self._mapped = MappedFile(path, size_bytes)
        self._bytes = self._mapped.bytes
        # A view of 64-bit words stores and loads each with one instruction.
        self._words = self._bytes.cast("q") if size_bytes % 8 == 0 else None

    def read(self, position: int, size_bytes: int) -> bytes:
        """Return `size_bytes` at `position`."""
        return bytes(self._bytes[position : position + size_bytes])

    def write(self, position: int, content: bytes) -> None:
        """Store `content` at `position`."""
        self._bytes[position : position + len(content)] = content

    def read_word(self, position: int) -> int:
        """Return the signed word at `position`, a multiple of 8."""
        assert position % 8 == 0, position
        if self._words is not None:
            return self._words[position >> 3]
        return int(_WORD.unpack_from(self._bytes, position)[0])

    def write_word(self, position: int, value: int) -> None:
        """Store the signed word `value` at `position`, a multiple of 8."""
        assert position % 8 == 0, position
        if self._words is not None:
            self._words[position >> 3] = value
        else:
            _WORD.pack_into(self._bytes, position, value)

    def wait(self, words: Sequence[tuple[int, int]], timeout_us: int, clock: Clock) -> bool:
        """Sleep until a word may have changed; see `millstream.storage.SharedCells`."""
        if timeout_us <= 0:
            return False
        addresses = [(self._mapped.address + position, value) for position, value in words]
        woken = futex.wait(addresses, timeout_us / 1e6) if words else None
        if woken is not None:
            return woken
        pause_us = WAIT_PAUSE_FIRST_US
        while timeout_us > 0:
            clock.sleep_us(min(pause_us, timeout_us))
            if any((self.read_word(position) ^ value) & 0xFFFFFFFF for position, value in words):
                return True
            timeout_us -= pause_us
            pause_us = min(2 * pause_us, WAIT_PAUSE_MAX_US)
        return False

    def wake(self, position: int) -> None:
        """Wake all who wait for the word at `position`."""
        futex.wake(self._mapped.address + position)


class LocalStorage:
    """The machine's file system. Cannot be constructed during a simulated run.

    Examples
    --------
    >>> storage = LocalStorage()
    >>> with storage.lock("/tmp/example.lock"):
    ...     storage.write_file("/tmp/example", b"whole or not at all")
    >>> storage.read_file("/tmp/example")
    b'whole or not at all'
    """

    def __init__(self) -> None:
        require_reality("LocalStorage")
        self._boot_id = read_boot_id()
        self._locks: dict[str, LockFile] = {}

    def __reduce__(self) -> tuple[type[LocalStorage], tuple[()]]:
        # A copy in another process, perhaps on another machine, has a boot and locks of its own.
        return type(self), ()

    @staticmethod
    def absolute_path(path: str) -> str:
        """Return `path` from the root, as the methods want it."""
        return os.path.abspath(path)

    def boot_id(self) -> str:
        """Return the identifier of this boot of the machine."""
        return self._boot_id

    def make_directory(self, path: str) -> None:
        """Create `path` and its parents, each entry durable."""
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        with os.scandir(path) as entries:
            if next(entries, None) is None:
                # Perhaps made by a process that died before its entry was durable.
                sync_directory(os.path.dirname(path))
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.mkdir(each)
            sync_directory(os.path.dirname(each))

    def sync_directory(self, path: str) -> None:
        """Make durable which names are in the folder `path`."""
        sync_directory(path)

    def list_directory(self, path: str) -> list[str]:
        """Return the sorted names in `path`; empty where it does not exist."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def exists(self, path: str) -> bool:
        """Return `True` iff `path` exists."""
        return os.path.exists(path)

    def is_link(self, path: str) -> bool:
        """Return `True` iff `path` is a symbolic link, to whatever."""
        return os.path.islink(path)

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all it holds, durably; nothing where it is gone."""
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            return
        sync_directory(os.path.dirname(path))

    def read_file(self, path: str) -> bytes:
        """Return the content of `path`; raises `FileNotFoundError`."""
        return Path(path).read_bytes()

    def write_file(self, path: str, content: Bytes) -> None:
        """Replace `path` by `content`, whole or not at all, durable when this returns."""
        # The writer's name is in the temporary one: two writers do not meet in one file.
        temporary = f"{path}.{os.getpid()}-{threading.get_ident()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o644)
            try:
                _write_all(descriptor, [content], temporary)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_directory(os.path.dirname(path))

    def open_append(self, path: str, *, in_place: bool = False) -> LocalAppendFile:
        """Open `path` for appending; creates it, with a durable entry, where it is missing."""
        return LocalAppendFile(path, in_place)

    def rename(self, path: str, new_path: str) -> None:
        """Let the file `path` replace `new_path`, in the same folder, durably and at once."""
        os.replace(path, new_path)
        sync_directory(os.path.dirname(new_path))

    def file_size(self, path: str) -> int:
        """Return the size of `path` in bytes; raises `FileNotFoundError`."""
        return os.stat(path).st_size

    def map(self, path: str, size_bytes: int | None = None) -> pa.Buffer:
        """Return the first `size_bytes` of `path` as a read-only buffer over the page cache.

        The mapping lives as long as the buffer or anything made from it. Raises `OSError`
        where the file is shorter: touching the missing pages would kill the process.
        """
        if size_bytes == 0:
            return pa.py_buffer(b"")
        # Unlike mmap.mmap, pyarrow's mapping keeps no file descriptor.
        with pa.memory_map(path, "r") as file:
            size = file.size()
            if size_bytes is not None and size < size_bytes:
                message = f"cannot map {size_bytes} bytes of {path}; it has {size}"
                raise OSError(message)
            # Arrow has the kernel fetch all that is read of a mapping: a segment that is opened
            # for its head alone would come from the disk whole.
            start = file.read_buffer(1)
            size = size if size_bytes is None else size_bytes
            return pa.foreign_buffer(start.address, size, base=start)

    def shared_cells(self, path: str, size_bytes: int) -> LocalCells:
        """Map `path` for reading and writing, creating it with zeros where it is missing."""
        return LocalCells(path, size_bytes)

    def run_later(self, name: str, work: Callable[[Callable[[], bool]], None]) -> None:
        """Do `work` soon, on a thread of this process; see `millstream.storage.Storage`."""
        background.run_later(name, work)

    def lock(
        self,
        path: str,
        timeout_us: int = 10_000_000,
        unless: Callable[[], bool] | None = None,
        is_served: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[bool]:
        """Hold the lock of the file `path` inside `with`; see `millstream.storage.Storage`.

        The file stays open for the next time.
        """
        lock = self._locks.get(path)
        if lock is not None and lock.is_removed():
            self._locks.pop(path, None)
            lock = None
        if lock is None:
            if len(self._locks) >= LOCKS_OPEN_MAX:
                # One that is held lives on until it is let go; another object is another holder.
                self._locks.pop(next(iter(self._locks)), None)
            lock = self._locks.setdefault(path, LockFile(path))
        return Held(lock, timeout_us, unless, is_served)
