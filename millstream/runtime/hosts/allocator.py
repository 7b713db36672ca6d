"""Lets the C library keep the memory that batches leave, instead of handing it back every time.

gRPC gives each message that arrives memory of its own. Blocks of such a size go back to the system
when they are freed, by glibc's defaults, so that the next message's pages are all made and cleared
anew: that is a third of what an exchange takes.
"""

from __future__ import annotations

import ctypes

MMAP_BYTES = 32 * 1024 * 1024
"""Larger blocks are still mapped one by one: the most that glibc allows."""
TRIM_BYTES = 64 * 1024 * 1024
"""A heap with more unused bytes at its end than these gives them back."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let this process keep up to `TRIM_BYTES` a heap; `False`: its C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((_M_MMAP_THRESHOLD, MMAP_BYTES), (_M_TRIM_THRESHOLD, TRIM_BYTES))
    return all([mallopt(name, value) == 1 for name, value in settings])
