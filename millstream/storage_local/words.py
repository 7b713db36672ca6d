"""A file mapped for writing, which keeps no file descriptor and knows its address.

`mmap.mmap` keeps a copy of the descriptor, and with it, in a forked child, the lock of the file.
"""

from __future__ import annotations

import ctypes

import pyarrow as pa


class MappedFile:
    """The first `size_bytes` of the file at `path`, which has as many.

    Attributes
    ----------
    bytes
        Of the file; what is stored there, every process that maps it sees.
    address
        Of the first byte in memory; it holds as long as this object does.
    """

    def __init__(self, path: str, size_bytes: int) -> None:
        with pa.memory_map(path, "r+") as file:
            if file.size() < size_bytes:
                message = f"cannot map {size_bytes} bytes of {path}; it has {file.size()}"
                raise OSError(message)
            self._mapping = file.read_buffer(size_bytes)  # ends when nobody has it any more
        self.address: int = self._mapping.address
        array = (ctypes.c_char * size_bytes).from_address(self.address)
        self.bytes = memoryview(array).cast("B")
