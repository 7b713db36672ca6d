"""Locks that exclude all threads and processes, and that the kernel frees when a holder dies.

    0: process id of the holder, as text │ 24: not 0 while somebody waits │ 28 … 64

The lock is the kernel's flock on the open file. What lies in the mapped file only helps those
who wait: it names the holder, and has the holder wake them.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

from millstream.errors import LockTimeoutError
from millstream.storage_local import futex
from millstream.storage_local.words import MappedFile

PAUSE_MAX_S = 2e-3
"""A waiter looks again after this time at the latest: who should wake it may have died."""

_PAUSE_FIRST_S = 20e-6  # a critical section takes about this long
_SIZE = 64
_HOLDER_SIZE = 21
_WAITED_FOR = 24


class LockFile:
    """The lock of the file `path`, kept open; one thread of this object's users holds it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._threads = threading.Lock()  # the file is open once: flock excludes no thread of ours
        self._descriptor = -1
        _lock_files.add(self)

    def take(self, timeout_us: int, unless: Callable[[], bool] | None) -> bool:
        """Take the lock; `False`: it was not taken, for `unless` came true."""
        timeout_s = timeout_us / 1e6
        if not self._threads.acquire(blocking=False):
            start_s = time.monotonic()
            if not self._threads.acquire(timeout=max(timeout_s, 0)):
                raise LockTimeoutError(self._not_free(timeout_us))
            if unless is not None and unless():
                self._threads.release()
                return False
            timeout_s -= time.monotonic() - start_s
        try:
            self._open()
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not self._wait(time.monotonic() + timeout_s, timeout_us, unless):
                    self._threads.release()
                    return False
            self._mapped.bytes[:_HOLDER_SIZE] = b"%-20d\n" % os.getpid()
        except BaseException:
            self._threads.release()
            raise
        return True

    def let_go(self, *, wake_all: bool) -> None:
        """Let go of the lock, which this thread holds, and wake one or all who wait for it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        if self._words[_WAITED_FOR // 4]:
            self._words[_WAITED_FOR // 4] = 0
            futex.wake(self._address, one=not wake_all)
        self._threads.release()

    def is_removed(self) -> bool:
        """Return `True` iff the file is open and its name is gone: others take another one."""
        return self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0

    def _open(self) -> None:
        """Open the file, created where it is missing, unless it is open."""
        if self._descriptor >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o644)
        if os.fstat(self._descriptor).st_size < _SIZE:
            os.ftruncate(self._descriptor, _SIZE)
        self._mapped = MappedFile(self.path, _SIZE)
        self._words = self._mapped.bytes.cast("i")
        self._address = self._mapped.address + _WAITED_FOR

    def _wait(self, deadline_s: float, timeout_us: int, unless: Callable[[], bool] | None) -> bool:
        """Wait for a holder in another process; return as `take` does."""
        pause_s = _PAUSE_FIRST_S
        while True:
            # Set before the lock is tried: a holder that lets go after that try sees it.
            self._words[_WAITED_FOR // 4] = 1
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return True
            if unless is not None and unless():
                return False
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise LockTimeoutError(self._not_free(timeout_us))
            if futex.wait([(self._address, 1)], min(left_s, PAUSE_MAX_S)) is None:
                time.sleep(min(left_s, pause_s))
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _not_free(self, timeout_us: int) -> str:
        try:
            with open(self.path, "rb") as file:
                holder = file.read(_HOLDER_SIZE).decode("ascii", "replace").strip("\0 \n")
        except OSError:
            holder = ""
        return (
            f"lock {self.path} was not free within {timeout_us / 1e6:g} s; process "
            f"{holder or 'unknown'} holds it; it may be stopped (continue or end it), or its disk "
            "may hang"
        )

    def close(self) -> None:
        """Close the file; the next `take` opens it anew."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def forget(self) -> None:
        """Be as new, in a process that was forked: the lock belongs to the one it came from."""
        self.close()
        self._threads = threading.Lock()

    def __del__(self) -> None:
        self.close()


class Held:
    """Holds a lock inside `with`; `False` there: `unless` came true, and it is not held."""

    __slots__ = ("_is_held", "_lock", "_timeout_us", "_unless")

    def __init__(self, lock: LockFile, timeout_us: int, unless: Callable[[], bool] | None) -> None:
        self._lock = lock
        self._timeout_us = timeout_us
        self._unless = unless
        self._is_held = False

    def __enter__(self) -> bool:
        self._is_held = self._lock.take(self._timeout_us, self._unless)
        return self._is_held

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_held:
            self._is_held = False
            self._lock.let_go(wake_all=self._unless is not None)


_lock_files: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _forget_all() -> None:
    for each in list(_lock_files):
        each.forget()


if hasattr(os, "register_at_fork"):
    # A child shares the open files, and with them the locks: its own it has to open itself.
    os.register_at_fork(after_in_child=_forget_all)
