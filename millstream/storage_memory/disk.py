"""The disk in memory, and the view that each simulated process has of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import pyarrow as pa

from millstream.errors import LockTimeoutError
from millstream.storage import Bytes
from millstream.storage_memory.contents import Chooser, FileContent, Folder, Node
from millstream.storage_memory.handles import MemoryAppendFile, MemoryCells


class SimulatedCrash(BaseException):
    """The process dies here; not an `Exception`, for nothing may handle it and go on."""


class MemoryDisk:
    """The disk that all simulated processes share.

    Parameters
    ----------
    chooser
        Decides what half of an effect was done, and what survives a power cut.

    Examples
    --------
    >>> import random
    >>> disk = MemoryDisk(random.Random(1))
    >>> storage = disk.storage("a")
    >>> storage.write_file("/file", b"whole or not at all")
    >>> disk.power_cut()
    >>> disk.storage("b").read_file("/file")
    b'whole or not at all'
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.root = Folder()
        self._boots = 1
        self._views: list[MemoryStorage] = []

    @property
    def boot_id(self) -> str:
        """Changes with every power cut."""
        return f"boot-{self._boots}"

    def storage(self, process: str) -> MemoryStorage:
        """Return the disk as a new process sees it; `process` names it in messages."""
        view = MemoryStorage(self, process)
        self._views = [each for each in self._views if each.alive]
        self._views.append(view)
        return view

    def copy(self, chooser: Chooser) -> MemoryDisk:
        """Return a disk of its own, on which no process is, with all that is on this one."""
        copied = MemoryDisk(chooser)
        copied.root, copied._boots = deepcopy(self.root), self._boots
        return copied

    def power_cut(self) -> None:
        """End all processes; keep what was synced, and of the rest what the chooser leaves."""
        for view in self._views:
            view.kill()
        self._views.clear()
        self._boots += 1
        self.root.power_cut(self.chooser, set())


class MemoryStorage:
    """The disk as one process sees it, until that process dies; made by `MemoryDisk.storage`.

    Attributes
    ----------
    process
        Its name.
    disk
        What it sees.
    alive
        `False` once it died; every call then raises `SimulatedCrash`.
    effects
        How many changes of the disk it has begun: appends, syncs, truncations, writes of
        cells, created, renamed and removed names, synced folders.
    crash_at
        The number of the effect in which it dies; `None`: it lives on.
    interrupt
        Called before each effect, but not while it runs: what other processes do meanwhile.
    """

    def __init__(self, disk: MemoryDisk, process: str) -> None:
        self.process = process
        self.alive = True
        self.effects = 0
        self.crash_at: int | None = None
        self.interrupt: Callable[[], None] | None = None
        self._is_interrupted = False
        self.disk = disk
        self._chooser = disk.chooser
        self._boot_id = disk.boot_id
        self._failures: list[_Failure] = []
        self._held: list[FileContent] = []
        self._waiting: dict[str, Callable[[Callable[[], bool]], None]] = {}

    def crash_after(self, effects: int) -> None:
        """Die in the effect that is number `effects` from now on (1: the next), half done."""
        self.crash_at = self.effects + effects

    def kill(self) -> None:
        """Let the process die now, between two effects; its locks are free."""
        self.alive = False
        for file in self._held:
            file.holder = None
        self._held.clear()

    def fail(self, operation: str, error: OSError, after: int = 0) -> None:
        """Let a call be refused.

        Parameters
        ----------
        operation
            `"append"` (a part may be written), `"sync"` (what was dirty is lost for good, as
            kernels do), `"truncate"`, `"write_file"`, `"create"` (by `open_append` or
            `shared_cells`), `"make_directory"`, `"remove"`, `"cells"`, `"sync_directory"`.
        error
            What it raises.
        after
            How many such calls go well first.
        """
        self._failures.append(_Failure(operation, error, after))

    def boot_id(self) -> str:
        """Return the identifier of the time since the last power cut."""
        self.check_alive()
        return self._boot_id

    def make_directory(self, path: str) -> None:
        """Create `path` and its parents, each entry durable."""
        self.check_alive()
        directory = self.disk.root
        for name in _names(path):
            node = directory.entries.get(name)
            if node is None:
                self.effect("make_directory", _creating(directory, name, Folder()))
                self.effect("sync_directory", directory.sync)
                node = directory.entries[name]
            elif isinstance(node, Folder) and not node.entries:
                # Its creator may have died before the entry was durable.
                self.effect("sync_directory", directory.sync)
            if isinstance(node, FileContent):
                raise NotADirectoryError(20, "Not a directory", path)
            directory = node

    def sync_directory(self, path: str) -> None:
        """Make durable which names are in the folder `path`."""
        self.check_alive()
        node = self._find(path)
        if not isinstance(node, Folder):
            raise FileNotFoundError(2, "No such file or directory", path)
        self.effect("sync_directory", node.sync)

    def list_directory(self, path: str) -> list[str]:
        """Return the sorted names in `path`; empty where it does not exist."""
        self.check_alive()
        node = self._find(path)
        if isinstance(node, FileContent):
            raise NotADirectoryError(20, "Not a directory", path)
        return [] if node is None else sorted(node.entries)

    def exists(self, path: str) -> bool:
        """Return `True` iff `path` exists."""
        self.check_alive()
        return self._find(path) is not None

    def is_link(self, path: str) -> bool:
        """Return `False`: there are no links in memory."""
        del path
        return False

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all it holds, durably; nothing where it is gone."""
        self.check_alive()
        if self._find(path) is None:
            return
        directory, name = self._place(path)
        self._remove(directory, name)
        self.effect("sync_directory", directory.sync)

    def read_file(self, path: str) -> bytes:
        """Return the content of `path`; raises `FileNotFoundError`."""
        self.check_alive()
        return self._file(path).read()

    def write_file(self, path: str, content: Bytes) -> None:
        """Replace `path` by `content`, whole or not at all, durable when this returns."""
        self.check_alive()
        directory, name = self._place(path)
        if isinstance(directory.entries.get(name), Folder):
            raise IsADirectoryError(21, "Is a directory", path)
        temporary = f"{name}.{self.process.replace('/', '-')}.tmp"
        file = FileContent()
        self.effect("write_file", lambda: directory.put(temporary, file))
        try:
            self.write("", file, bytes(content), 0)
            self.effect("", file.sync)
            self.effect("rename", lambda: _rename(directory, temporary, name))
        except OSError:
            directory.put(temporary, None)
            raise
        self.effect("sync_directory", directory.sync)

    def open_append(self, path: str, *, in_place: bool = False) -> MemoryAppendFile:
        """Open `path` for appending; creates it, with a durable entry, where it is missing."""
        self.check_alive()
        directory, file = self._open(path)
        if file.size == 0:
            self.effect("sync_directory", directory.sync)
        return MemoryAppendFile(self, file, in_place)

    def rename(self, path: str, new_path: str) -> None:
        """Let the file `path` replace `new_path`, in the same folder, durably and at once."""
        self.check_alive()
        self._file(path)
        (directory, name), (_, new_name) = self._place(path), self._place(new_path)
        self.effect("rename", lambda: _rename(directory, name, new_name))
        self.effect("sync_directory", directory.sync)

    def file_size(self, path: str) -> int:
        """Return the size of `path` in bytes; raises `FileNotFoundError`."""
        self.check_alive()
        return self._file(path).size

    def map(self, path: str, size_bytes: int | None = None) -> pa.Buffer:
        """Return the first `size_bytes` of `path` as a read-only buffer, without a copy.

        Raises `OSError` where the file is shorter.
        """
        self.check_alive()
        if size_bytes == 0:
            return pa.py_buffer(b"")
        file = self._file(path)
        if size_bytes is None:
            size_bytes = file.size
        if file.size < size_bytes:
            message = f"cannot map {size_bytes} bytes of {path}; it has {file.size}"
            raise OSError(message)
        return pa.py_buffer(memoryview(file.content).toreadonly()[:size_bytes])

    def shared_cells(self, path: str, size_bytes: int) -> MemoryCells:
        """Map `path` for reading and writing, creating it with zeros where it is missing."""
        self.check_alive()
        created = not self.exists(path)
        directory, file = self._open(path)
        if file.size < size_bytes:
            file.mapped = True
            self.effect("", lambda: file.grow(size_bytes))
        if created:
            self.effect("sync_directory", directory.sync)
        return MemoryCells(self, file, size_bytes)

    def lock(
        self,
        path: str,
        timeout_us: int = 10_000_000,
        unless: Callable[[], bool] | None = None,
        is_served: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[bool]:
        """Hold the lock of the file `path` inside `with`; see `millstream.storage.Storage`.

        There is one thread: a lock that is held stays so, and is refused at once.
        """
        del is_served
        return self._locked(path, timeout_us, unless)

    @contextmanager
    def _locked(
        self, path: str, timeout_us: int, unless: Callable[[], bool] | None
    ) -> Iterator[bool]:
        self.check_alive()
        _, file = self._open(path)
        if file.holder is not None and unless is not None and unless():
            yield False
            return
        if file.holder is not None:
            message = (
                f"lock {path} was not free within {timeout_us / 1e6:g} s; process "
                f"{file.holder} holds it; it may be stopped (continue or end it), or its "
                "disk may hang"
            )
            raise LockTimeoutError(message)
        file.holder = self.process
        self._held.append(file)
        try:
            yield True
        finally:
            if file in self._held:  # else the process died inside
                self._held.remove(file)
                file.holder = None

    def run_later(self, name: str, work: Callable[[Callable[[], bool]], None]) -> None:
        """Keep `work` until `run_waiting`."""
        self.check_alive()
        self._waiting.setdefault(name, work)

    def run_waiting(self) -> None:
        """Do what was to be done later."""
        while self._waiting:
            work = self._waiting.pop(next(iter(self._waiting)))
            work(bool)

    def check_alive(self) -> None:
        """Raise `SimulatedCrash` where the process is dead."""
        if not self.alive:
            raise SimulatedCrash(self.process)

    def effect(
        self,
        operation: str,
        action: Callable[[], None],
        refused: Callable[[], None] | None = None,
    ) -> None:
        """Do an effect that is done wholly or not at all; or die before or after it.

        Parameters
        ----------
        operation
            As `fail` calls it; empty: a step inside of one, which cannot be refused alone.
        action
            Does it.
        refused
            What happens to the disk instead where it is refused.
        """
        stopped = self._begin(operation)
        if stopped is None:
            action()
            return
        if isinstance(stopped, SimulatedCrash):
            if self._chooser.random() < 0.5:
                action()
        elif refused is not None:
            refused()
        self._stop(stopped)

    def write(
        self, operation: str, file: FileContent, content: bytes, position: int | None = None
    ) -> None:
        """Write `content` into `file`; or a part of it, and die or be refused.

        Parameters
        ----------
        operation
            As for `effect`.
        file, content
            What is written, and where.
        position
            At most the file's size; `None`: at its end, wherever that is by then.
        """
        stopped = self._begin(operation)
        if stopped is not None:
            content = content[: self._chooser.randrange(0, len(content) + 1)]
        file.write(file.size if position is None else position, content)
        if stopped is not None:
            self._stop(stopped)

    def let_others_run(self) -> None:
        """Let other processes do something, as they do before each effect."""
        self.check_alive()
        if self.interrupt is not None and not self._is_interrupted:
            self._is_interrupted = True
            try:
                self.interrupt()
            finally:
                self._is_interrupted = False
            self.check_alive()

    def _begin(self, operation: str) -> SimulatedCrash | OSError | None:
        """Begin an effect; return what ends it before it is whole, if something does."""
        self.let_others_run()
        for failure in self._failures:
            if failure.operation == operation:
                if failure.after == 0:
                    self._failures.remove(failure)
                    return failure.error
                failure.after -= 1
        self.effects += 1
        if self.crash_at is not None and self.effects >= self.crash_at:
            return SimulatedCrash(f"{self.process} in effect {self.effects}: {operation}")
        return None

    def _stop(self, reason: SimulatedCrash | OSError) -> NoReturn:
        """Raise `reason`; the process is dead where it is a crash."""
        if isinstance(reason, SimulatedCrash):
            self.kill()
        raise reason

    def _find(self, path: str) -> Node | None:
        node: Any = self.disk.root
        try:
            for name in _names(path):
                node = node.entries[name]
        except (KeyError, AttributeError):  # nothing of that name; a file has no entries
            return None
        found: Node = node
        return found

    def _file(self, path: str) -> FileContent:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        if isinstance(node, Folder):
            raise IsADirectoryError(21, "Is a directory", path)
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        """Return the folder that has, or would have, the entry `path`, and its name there."""
        folder, _, name = path.rpartition("/")
        node = self._find(folder)
        if not isinstance(node, Folder):
            raise FileNotFoundError(2, "No such file or directory", path)
        return node, name

    def _open(self, path: str) -> tuple[Folder, FileContent]:
        """Return the file `path`, created where it is missing, and its folder."""
        directory, name = self._place(path)
        if name not in directory.entries:
            self.effect("create", _creating(directory, name, FileContent()))
        return directory, self._file(path)

    def _remove(self, directory: Folder, name: str) -> None:
        node = directory.entries.get(name)
        if isinstance(node, Folder):
            for each in sorted(node.entries):
                self._remove(node, each)
        self.effect("remove", lambda: directory.put(name, None))


@dataclass(slots=True)
class _Failure:
    """What will be refused; see `MemoryStorage.fail`."""

    operation: str
    error: OSError
    after: int


@lru_cache(maxsize=1024)
def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name)


def _creating(directory: Folder, name: str, node: Node) -> Callable[[], None]:
    """Return what puts `node` there, unless another process was faster by then."""

    def create() -> None:
        if name not in directory.entries:
            directory.put(name, node)

    return create


def _rename(directory: Folder, old: str, new: str) -> None:
    if old not in directory.entries:
        raise FileNotFoundError(2, "No such file or directory", old)  # somebody removed it
    directory.put(new, directory.entries[old])
    directory.put(old, None)
