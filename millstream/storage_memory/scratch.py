"""Scratch files of a simulated process, which die with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


class MemoryScratch:
    """Files in memory; see `millstream.storage.Scratch`."""

    def __init__(self) -> None:
        self.files: dict[str, pa.Buffer] = {}

    @contextmanager
    def create(self, name: str) -> Iterator[pa.NativeFile]:
        """Take the bytes of a new file."""
        assert name not in self.files, f"the name {name!r} is used again"
        sink = pa.BufferOutputStream()
        yield sink
        self.files[name] = sink.getvalue()

    def map(self, name: str) -> pa.Buffer:
        """Return a file's content."""
        return self.files[name]

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.files.pop(name, None)

    def close(self) -> None:
        """Remove all files."""
        self.files.clear()
