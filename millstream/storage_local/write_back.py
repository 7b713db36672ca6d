"""Has the kernel begin to write a file's bytes to the disk, without waiting for the disk.

Linux has a system call for it; Python has none, so it is reached through ctypes. Where the machine
has none, nothing is begun, and the sync that comes later has all the work.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


def _system_call() -> Callable[..., int] | None:
    """Return the C library's function; `None`: there is none."""
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


_sync_file_range = _system_call()


def begin(descriptor: int, position: int, size_bytes: int) -> None:
    """Begin to write `size_bytes` at `position`; raises `OSError` where they cannot be written.

    That makes nothing durable, and takes no error from a sync that comes later: only a sync waits,
    asks the disk to keep what it has, and is told what went wrong meanwhile.
    """
    if _sync_file_range is None:
        return
    if _sync_file_range(descriptor, position, size_bytes, _START_WRITING) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
