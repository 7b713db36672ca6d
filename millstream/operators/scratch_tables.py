"""Tables in scratch files: what a worker's memory has no room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from millstream.errors import SpillError
from millstream.storage import Scratch


class ScratchTables:
    """Writes tables to scratch files.

    Parameters
    ----------
    scratch
        Takes the files.
    limit_bytes
        The memory budget, for messages.
    """

    def __init__(self, scratch: Scratch, limit_bytes: int) -> None:
        self._scratch = scratch
        self._limit_bytes = limit_bytes
        self._number = 0

    def write(self, table: pa.Table) -> StoredTable:
        """Write a table to a new file.

        Raises
        ------
        SpillError
            Where the disk is full, or refuses for another reason.
        """
        self._number += 1
        name = f"{self._number}.arrow"
        with self._explained(), self._scratch.create(name) as file:
            # A stream, since the dictionaries of its batches may differ.
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            size_bytes = file.tell()
        return StoredTable(self, name, table.num_rows, size_bytes)

    def read(self, name: str) -> pa.Table:
        """Return the table of a file, mapped: it stays as it is when the file is removed."""
        with self._explained():
            return pa.ipc.open_stream(self._scratch.map(name)).read_all()

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._scratch.remove(name)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = (
                f"state beyond the memory budget of {self._limit_bytes:,} bytes cannot be kept in "
                f"scratch files: {error}; make room on that disk, name another one with "
                "spill_directory=, or give the job a larger memory_budget="
            )
            raise SpillError(message) from error


class StoredTable:
    """A table in a scratch file."""

    def __init__(self, tables: ScratchTables, name: str, num_rows: int, size_bytes: int) -> None:
        self._tables = tables
        self._name = name
        self.num_rows = num_rows
        self.size_bytes = size_bytes

    def read(self) -> pa.Table:
        """Return the table, mapped."""
        return self._tables.read(self._name)

    def remove(self) -> None:
        """Remove the file; what was read of it stays."""
        self._tables.remove(self._name)
