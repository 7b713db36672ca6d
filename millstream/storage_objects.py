"""Stores of objects: a folder of a `Storage`, or whatever `pyarrow.fs` reaches (S3, GCS, HDFS, …).

A folder is written through the storage, so every object is synced before `put` returns; of the
others each store promises what it promises. `pyarrow.fs` is imported where one is used, since every
log imports this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.errors import OptionError
from millstream.storage import Bytes, Objects, Storage

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_TEMPORARY = ".tmp"


class FolderObjects:
    """Objects as files in `directory` of `storage`."""

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._made: set[str] = set()

    def __str__(self) -> str:
        return self._directory

    def put(self, name: str, content: Bytes) -> None:
        """Write a file, synced; see `Objects`."""
        path = f"{self._directory}/{name}"
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            self._storage.make_directory(folder)
            self._made.add(folder)
        self._storage.write_file(path, content)

    def get(self, name: str) -> pa.Buffer:
        """Return a file's content."""
        return pa.py_buffer(self._storage.read_file(f"{self._directory}/{name}"))

    def exists(self, name: str) -> bool:
        """Return `True` iff the file is there."""
        return self._storage.exists(f"{self._directory}/{name}")

    def names(self, prefix: str) -> list[str]:
        """Return the files below the folder `prefix`."""
        return sorted(
            path.removeprefix(f"{self._directory}/")
            for path in files_below(self._storage, f"{self._directory}/{prefix}".rstrip("/"))
            if not path.endswith(_TEMPORARY)
        )

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._storage.remove(f"{self._directory}/{name}")


class FileSystemObjects:
    """Objects in the folder `base` of a `pyarrow.fs` file system."""

    def __init__(self, system: FileSystem, base: str, uri: str) -> None:
        self._system = system
        self._base = base.rstrip("/")
        self._uri = uri
        # A store of objects shows an object when it is whole; a file system shows every byte.
        self._renames = system.type_name in {"local", "hdfs"}

    def __str__(self) -> str:
        return self._uri

    def put(self, name: str, content: Bytes) -> None:
        """Write an object; see `Objects`."""
        path = f"{self._base}/{name}"
        written = f"{path}{_TEMPORARY}" if self._renames else path
        if self._renames:
            self._system.create_dir(path.rpartition("/")[0], recursive=True)
        with self._system.open_output_stream(written) as stream:
            stream.write(content)
        if self._renames:
            self._system.move(written, path)

    def get(self, name: str) -> pa.Buffer:
        """Return an object's content."""
        with self._system.open_input_file(f"{self._base}/{name}") as file:
            return file.read_buffer()

    def exists(self, name: str) -> bool:
        """Return `True` iff the object is there."""
        from pyarrow.fs import FileType

        info = self._system.get_file_info(f"{self._base}/{name}")
        return bool(info.type == FileType.File)

    def names(self, prefix: str) -> list[str]:
        """Return the objects below the folder `prefix`."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(
            f"{self._base}/{prefix}".rstrip("/"), allow_not_found=True, recursive=True
        )
        return sorted(
            each.path.removeprefix(f"{self._base}/")
            for each in self._system.get_file_info(selector)
            if each.type == FileType.File and not each.path.endswith(_TEMPORARY)
        )

    def remove(self, name: str) -> None:
        """Remove an object."""
        if self.exists(name):
            self._system.delete_file(f"{self._base}/{name}")


def open_objects(place: str, storage: Storage) -> Objects:
    """Return the objects at `place`: a folder of `storage`, or a URI that `pyarrow.fs` knows.

    Raises
    ------
    OptionError
        Where the URI cannot be used.
    """
    if "://" not in place:
        return FolderObjects(storage, place.rstrip("/"))
    from pyarrow.fs import FileSystem

    try:
        system, base = FileSystem.from_uri(place)
    except (pa.ArrowException, OSError, ValueError) as error:
        message = f"cannot use {place!r}: {error}; give a folder, or a URI such as s3://bucket/path"
        raise OptionError(message) from error
    return FileSystemObjects(system, base, place)


def files_below(storage: Storage, directory: str) -> list[str]:
    """Return the paths of all files below `directory`, sorted; empty where there is none."""
    found = []
    for name in storage.list_directory(directory):
        path = f"{directory}/{name}"
        try:
            below = files_below(storage, path)
        except NotADirectoryError:
            found.append(path)
        else:
            found += below
    return found
