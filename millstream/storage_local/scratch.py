"""Scratch files of this process, in a folder of their own that goes with it.

<directory>/millstream-scratch-<process>-<number>/<name>

The folder is the user's alone. Its lock is held as long as its process lives, so that whoever opens
scratch files later knows what a process that was killed left behind, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile

import pyarrow as pa

from millstream.reality import require_reality

_PREFIX = "millstream-scratch-"
_LOCK = "lock"


def default_scratch_directory() -> str:
    """Return `TMPDIR` where it is set, else a folder for temporary files that is on a disk."""
    if os.environ.get("TMPDIR") or not os.access("/var/tmp", os.W_OK):
        return tempfile.gettempdir()
    return "/var/tmp"


class LocalScratch:
    """Files of this process in a folder below `directory`; see `millstream.storage.Scratch`.

    Raises
    ------
    OSError
        Where no folder can be made there.
    """

    def __init__(self, directory: str) -> None:
        require_reality("LocalScratch")
        os.makedirs(directory, exist_ok=True)
        _remove_abandoned(directory)
        self.path = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=directory)
        self._lock = os.open(f"{self.path}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def create(self, name: str) -> pa.NativeFile:
        """Return what takes the bytes of a new file that only its user may read."""
        path = f"{self.path}/{name}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return pa.OSFile(path, "wb")

    def map(self, name: str) -> pa.Buffer:
        """Return a file's content, mapped: the machine drops and reads pages as it needs."""
        with pa.memory_map(f"{self.path}/{name}") as file:
            return file.read_buffer()

    def remove(self, name: str) -> None:
        """Remove a file; what is mapped of it stays."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.path}/{name}")

    def close(self) -> None:
        """Remove the folder; idempotent."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _remove_abandoned(directory: str) -> None:
    """Remove the folders of processes that are gone."""
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        if not name.startswith(_PREFIX) or os.path.islink(path):
            continue
        # Neither a folder of another user nor one that is just being made or removed is ours.
        with contextlib.suppress(OSError):
            if os.stat(path).st_uid != os.getuid():
                continue
            lock = os.open(f"{path}/{_LOCK}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
