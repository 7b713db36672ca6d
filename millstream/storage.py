"""What the platform asks of a disk: the protocol that every file access goes through.

`millstream.storage_local` is the machine's disk; `millstream.storage_memory` is a disk in
memory that tears writes, loses what was not synced and crashes on demand. Paths are
absolute strings with `/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import pyarrow as pa

from millstream.clock import Clock

WORDS_MAX = 128
"""So many words of `SharedCells` can be waited for at once without looking at them in turns."""

Bytes: TypeAlias = bytes | bytearray | memoryview | pa.Buffer


class AppendFile(Protocol):
    """A file open for appending at its end; or, where it was opened so, for writing in place."""

    @property
    def size_bytes(self) -> int:
        """The file's present size, which another process may have changed."""
        ...

    def append(self, chunks: Sequence[Bytes]) -> None:
        """Write `chunks` one after another at the end, in one system call where possible.

        Raises `OSError` when not everything could be written; a part may then be in the file.
        """
        ...

    def write(self, position: int, chunks: Sequence[Bytes]) -> None:
        """Write `chunks` from `position` on, which is at most the size, over what is there.

        Of a file that was opened `in_place` only; otherwise as `append`.
        """
        ...

    def read(self, position: int, size_bytes: int) -> bytes:
        """Return what the file has at `position`; less than `size_bytes` at its end."""
        ...

    def begin_sync(self, position: int, size_bytes: int) -> None:
        """Let the disk begin with the bytes at `position`, where the machine can; wait for nothing.

        They are no more durable by that. Raises `OSError` where the disk refuses them: they may be
        lost then, and no later sync need tell.
        """
        ...

    def sync(self) -> None:
        """Return when the file's bytes and its size are on stable storage; raises `OSError`."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to `size_bytes`."""
        ...

    def close(self) -> None:
        """Close the file; idempotent."""
        ...


class SharedCells(Protocol):
    """A small file mapped into every process that uses it; lives as long as the boot.

    Writes of 8 bytes at a multiple of 8 are atomic; longer ones are not. What was written
    may be lost in a power cut, so whoever reads it compares the boot id stored in it.
    """

    def read(self, position: int, size_bytes: int) -> bytes:
        """Return `size_bytes` at `position`."""
        ...

    def read_word(self, position: int) -> int:
        """Return the signed 64-bit word at `position` (a multiple of 8), atomically."""
        ...

    def write(self, position: int, content: bytes) -> None:
        """Store `content` at `position`."""
        ...

    def write_word(self, position: int, value: int) -> None:
        """Store the signed 64-bit word `value` at `position` (a multiple of 8), atomically."""
        ...

    def wait(self, words: Sequence[tuple[int, int]], timeout_us: int, clock: Clock) -> bool:
        """Sleep until a word may have changed, without using the processor.

        Parameters
        ----------
        words
            Position of each word and the value that it had. Only the low 32 bits are compared.
        timeout_us
            How long at most.
        clock
            Lets the time pass where the machine cannot wait for a word.

        Returns
        -------
        bool
            `False`: the time is over and nobody called `wake`. `True` may be a false alarm.
        """
        ...

    def wake(self, position: int) -> None:
        """Wake everybody, in any process, who waits for the word at `position`."""
        ...


class Storage(Protocol):
    """A file system, as far as the log and the runtime need one."""

    def boot_id(self) -> str:
        """Return an identifier that changes whenever unsynced writes may have been lost."""
        ...

    def make_directory(self, path: str) -> None:
        """Create `path` and its parents, durably; does nothing where it exists."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make durable which names are in the folder `path`, whoever put them there."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """Return the sorted names in `path`; empty where it does not exist."""
        ...

    def exists(self, path: str) -> bool:
        """Return `True` iff `path` exists."""
        ...

    def is_link(self, path: str) -> bool:
        """Return `True` iff `path` is a symbolic link, to whatever."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all it holds; does nothing where it is gone."""
        ...

    def read_file(self, path: str) -> bytes:
        """Return the content of `path`; raises `FileNotFoundError`."""
        ...

    def write_file(self, path: str, content: Bytes) -> None:
        """Replace `path` by `content`, whole or not at all, durable when this returns.

        (Write to a temporary name, sync, rename, sync the folder.)
        """
        ...

    def open_append(self, path: str, *, in_place: bool = False) -> AppendFile:
        """Open `path` for appending, creating it (and its folder entry, durably) if missing.

        With `in_place` for `AppendFile.write`, and not for `append`: whoever does that says where
        the end is, and excludes others.
        """
        ...

    def rename(self, path: str, new_path: str) -> None:
        """Let the file `path` replace `new_path`, in the same folder, durably and at once.

        Who has the replaced file mapped or open keeps its content.
        """
        ...

    def file_size(self, path: str) -> int:
        """Return the size of `path` in bytes; raises `FileNotFoundError`."""
        ...

    def map(self, path: str, size_bytes: int | None = None) -> pa.Buffer:
        """Return the first `size_bytes` (`None`: all) of `path`, read-only and without copying.

        Raises `OSError` where it has fewer.
        """
        ...

    def shared_cells(self, path: str, size_bytes: int) -> SharedCells:
        """Map `path`, creating it with zeros (`size_bytes`) if missing."""
        ...

    def lock(
        self,
        path: str,
        timeout_us: int = 10_000_000,
        unless: Callable[[], bool] | None = None,
        is_served: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[bool]:
        """Hold the lock named `path` against all threads and processes inside `with`.

        A dead holder frees it.

        Parameters
        ----------
        timeout_us
            How long to wait for it.
        unless
            Looked at whenever the lock was let go by another: where it returns `True` the wait
            ends, and the `with` block is entered, with `False`, without the lock.
        is_served
            Where all who take the lock do the same work for all: whether what the holder does
            now, or begins after this was asked, will make `unless` true. Who says so is not asked
            to be the next holder; one that is asked and finds `unless` true asks nobody else.

        Raises
        ------
        LockTimeoutError
            Where it was not free in time; names the holder's process id.
        """
        ...

    def run_later(self, name: str, work: Callable[[Callable[[], bool]], None]) -> None:
        """Do `work` soon, beside the caller; not, where work of that name waits already.

        It gets a function that tells whether to stop, for the process ends. It may not be done
        at all, and what goes wrong in it is a warning.
        """
        ...


class Objects(Protocol):
    """Whole byte strings under names, as an object store or a folder on a spare disk has them.

    An object is put once and never changed. Names use `/`; nothing is locked or renamed.
    """

    def put(self, name: str, content: Bytes) -> None:
        """Store `content`, whole or not at all, durable as far as the store promises it."""
        ...

    def get(self, name: str) -> pa.Buffer:
        """Return an object's content; raises `FileNotFoundError`."""
        ...

    def exists(self, name: str) -> bool:
        """Return `True` iff there is an object of that name."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names of the objects in the folder `prefix` (empty: all) and below."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object; does nothing where it is gone."""
        ...


class Scratch(Protocol):
    """Files of one process that mean nothing once it is gone: what has no room in its memory.

    Nothing is durable. A file is written once, under a name that is not used again.
    """

    def create(self, name: str) -> AbstractContextManager[pa.NativeFile]:
        """Return what takes the bytes of a new file, whole when the `with` block is left."""
        ...

    def map(self, name: str) -> pa.Buffer:
        """Return a file's content without copying; it stays as it is when the file is removed."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...

    def close(self) -> None:
        """Remove all files; idempotent."""
        ...
