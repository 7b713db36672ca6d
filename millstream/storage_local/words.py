"""Where a mapped file lies in memory, as the kernel's calls on words of it need to know."""

from __future__ import annotations

import ctypes
import mmap


def address_of(mapped: mmap.mmap) -> int:
    """Return the address of a mapping's first byte; it holds as long as `mapped` does."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))
