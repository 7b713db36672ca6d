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
_flock = _library.flock
_flock.argtypes = [ctypes.c_int, ctypes.c_int]
_lseek = _library.lseek
_lseek.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int]
_lseek.restype = ctypes.c_long
_statx = getattr(_library, "statx", None) if sys.platform == "linux" else None
if _statx is not None:
    _statx.argtypes = [
        ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p,
    ]  # fmt: skip

_AT_EMPTY_PATH = 0x1000
_STATX_NLINK = 0x4
_STATX_SIZE = 256
_LINK_COUNT = struct.Struct("<16xI")


def try_lock(descriptor: int) -> bool:
    """Take the flock of an open file if it is free; return whether it was."""
    if _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0:
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
    size = int(_lseek(descriptor, 0, os.SEEK_END))
    if size < 0:
        raise _error()
    return size


def link_count(descriptor: int) -> int:
    """Return how many names an open file has."""
    if _statx is not None:
        found = ctypes.create_string_buffer(_STATX_SIZE)
        if _statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_NLINK, found) == 0:
            return int(_LINK_COUNT.unpack_from(found)[0])
    return os.fstat(descriptor).st_nlink


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
