"""Calls of the kernel that never wait, made without letting other threads run meanwhile.

Python lets go of its interpreter around every call of the kernel, and where threads are busy has
to wait for it afterwards: an append of 50 µs, with five such calls, then takes as many turns of
all threads. These are over sooner than a turn begins.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import sys

_library = ctypes.PyDLL(None, use_errno=True)
# Arguments are given as they are wanted: without declared types a call takes half the time.
_flock = _library.flock
_lseek = _library.lseek
_lseek.restype = ctypes.c_long
_statx = getattr(_library, "statx", None) if sys.platform == "linux" else None

_TRY_LOCK = fcntl.LOCK_EX | fcntl.LOCK_NB
_START = ctypes.c_long(0)
_NO_NAME = ctypes.c_char_p(b"")
_AT_EMPTY_PATH = 0x1000
_STATX_NLINK = 0x4
_STATX_SIZE = 256
_LINK_COUNT = struct.Struct("<16xI")


def try_lock(descriptor: int) -> bool:
    """Take the flock of an open file if it is free; return whether it was."""
    if _flock(descriptor, _TRY_LOCK) == 0:
        return True
    if ctypes.get_errno() != errno.EWOULDBLOCK:
        raise _error()
    return False


def unlock(descriptor: int) -> None:
    """Let go of the flock of an open file."""
    if _flock(descriptor, fcntl.LOCK_UN) != 0:
        raise _error()


def size_bytes(descriptor: int) -> int:
    """Return the size of an open file."""
    size: int = _lseek(descriptor, _START, os.SEEK_END)
    if size < 0:
        raise _error()
    return size


class LinkCount:
    """How many names an open file has, asked again and again."""

    def __init__(self) -> None:
        # Two threads that ask at once about one file are told the same.
        self._found = ctypes.create_string_buffer(_STATX_SIZE)

    def of(self, descriptor: int) -> int:
        """Return how many names the file has, the same at each call, that is open there."""
        if (
            _statx is not None
            and _statx(descriptor, _NO_NAME, _AT_EMPTY_PATH, _STATX_NLINK, self._found) == 0
        ):
            return int(_LINK_COUNT.unpack_from(self._found)[0])
        return os.fstat(descriptor).st_nlink


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
