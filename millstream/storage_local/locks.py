"""Locks that exclude all threads and processes, and that the kernel frees when a holder dies.

    0: process id of the holder, as text │ 24: not 0 while somebody waits to be the next │ 28: …
    while somebody waits for what the holder does │ 32 … 64

The lock is the kernel's flock on the open file. What lies in the mapped file only helps those
who wait: it names the holder, and has the holder wake them.

A group that shares a piece of work (`unless`) stays small in its number of wake-ups: who is served
by what the holder does now sleeps until it is done, and all of these are woken at once; of the
others one is woken, to do it for the rest of them, who from then on wait for that.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

from millstream.errors import LockTimeoutError
from millstream.storage_local import brief_calls, futex
from millstream.storage_local.words import MappedFile

LOOK_AGAIN_S = 2e-3
"""A waiter looks again after this time, then after ever longer ones: who should wake it may have
died."""
LOOK_AGAIN_MAX_S = 50e-3

Question = Callable[[], bool]

_PAUSE_FIRST_S = 20e-6  # a critical section takes about this long
_SIZE = 64
_HOLDER_SIZE = 21
_NEXT = 24
_SERVED = 28


class LockFile:
    """The lock of the file `path`, kept open; one thread of this object's users holds it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._threads = threading.Lock()  # the file is open once: flock excludes no thread of ours
        self._descriptor = -1
        self._links = brief_calls.LinkCount()
        self._holder = b""
        _lock_files.add(self)

    def take(self, timeout_us: int, unless: Question | None, is_served: Question | None) -> bool:
        """Take the lock; `False`: it was not taken, for `unless` came true."""
        is_shared = unless is not None
        deadline_s = 0.0
        if not is_shared and not self._threads.acquire(blocking=False):
            deadline_s = time.monotonic() + timeout_us / 1e6
            if not self._threads.acquire(timeout=max(timeout_us / 1e6, 0)):
                raise LockTimeoutError(self._not_free(timeout_us))
        try:
            if not self._try_take(is_shared=is_shared):
                deadline_s = deadline_s or time.monotonic() + timeout_us / 1e6
                if not self._wait(deadline_s, timeout_us, unless, is_served):
                    return False
        except BaseException:
            if not is_shared:
                self._threads.release()
            raise
        self._mapped.bytes[:_HOLDER_SIZE] = self._holder
        return True

    def let_go(self, *, shares_work: bool) -> None:
        """Let go of the lock, which this thread holds, and wake who waits for that."""
        brief_calls.unlock(self._descriptor)
        self._threads.release()
        words, address = self._words, self._mapped.address
        if words[_SERVED // 4]:
            words[_SERVED // 4] = 0
            futex.wake(address + _SERVED)
        if words[_NEXT // 4]:
            words[_NEXT // 4] = 0
            if shares_work:
                # Who comes next, be it the one that is woken or one that was faster, does it for
                # all who wait by now.
                words[_SERVED // 4] = 1
                futex.wake_one_of(address + _NEXT, address + _SERVED)
            else:
                futex.wake(address + _NEXT, one=True)

    def is_removed(self) -> bool:
        """Return `True` iff the file is open and its name is gone: others take another one."""
        return self._descriptor >= 0 and self._links.of(self._descriptor) == 0

    def _try_take(self, *, is_shared: bool) -> bool:
        """Take the file's lock if it is free, and, where work is shared, that of our threads."""
        if is_shared and not self._threads.acquire(blocking=False):
            return False
        is_taken = False
        try:
            self._open()
            is_taken = brief_calls.try_lock(self._descriptor)
        finally:
            if is_shared and not is_taken:
                self._threads.release()
        return is_taken

    def _open(self) -> None:
        """Open the file, created where it is missing, unless it is open."""
        if self._descriptor >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o644)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                os.ftruncate(descriptor, _SIZE)
            self._mapped = MappedFile(self.path, _SIZE)
        except BaseException:
            os.close(descriptor)
            raise
        self._words = self._mapped.bytes.cast("i")
        self._holder = b"%-20d\n" % os.getpid()  # a forked child opens the file anew
        self._descriptor = descriptor

    def _wait(
        self,
        deadline_s: float,
        timeout_us: int,
        unless: Question | None,
        is_served: Question | None,
    ) -> bool:
        """Wait for a holder, in another process or one that shares work; return as `take` does."""
        pause_s, look_again_s = _PAUSE_FIRST_S, LOOK_AGAIN_S
        while True:
            word = _SERVED if is_served is not None and is_served() else _NEXT
            is_open = self._descriptor >= 0  # else a thread of ours is about to open it
            if is_open:
                # Set before the lock is tried: a holder that lets go after that try sees it.
                self._words[word // 4] = 1
            if self._try_take(is_shared=unless is not None):
                return True
            if unless is not None and unless():
                return False
            if word == _NEXT and is_served is not None and is_served():
                continue  # the lock changed hands meanwhile: who holds it now does it
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise LockTimeoutError(self._not_free(timeout_us))
            woken = None
            if is_open:
                address = self._mapped.address + word
                woken = futex.wait([(address, 1)], min(left_s, look_again_s))
                look_again_s = min(2 * look_again_s, LOOK_AGAIN_MAX_S)
            if woken is None:
                time.sleep(min(left_s, pause_s))
                pause_s = min(2 * pause_s, LOOK_AGAIN_S)
            if unless is not None and unless():
                return False  # without getting in the way of who takes the lock

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

    __slots__ = ("_is_held", "_is_served", "_lock", "_timeout_us", "_unless")

    def __init__(
        self,
        lock: LockFile,
        timeout_us: int,
        unless: Question | None,
        is_served: Question | None,
    ) -> None:
        self._lock = lock
        self._timeout_us = timeout_us
        self._unless = unless
        self._is_served = is_served
        self._is_held = False

    def __enter__(self) -> bool:
        self._is_held = self._lock.take(self._timeout_us, self._unless, self._is_served)
        return self._is_held

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_held:
            self._is_held = False
            self._lock.let_go(shares_work=self._unless is not None)


_lock_files: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _forget_all() -> None:
    for each in list(_lock_files):
        each.forget()


if hasattr(os, "register_at_fork"):
    # A child shares the open files, and with them the locks: its own it has to open itself.
    os.register_at_fork(after_in_child=_forget_all)
