"""Says what a disk refused: what was not done, which file, and the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from millstream.errors import LogError

_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in this user's quota",
    errno.EACCES: "let this user read and write there",
    errno.EPERM: "let this user read and write there",
    errno.EROFS: "mount the disk for writing",
    errno.EMFILE: "let the process open more files (ulimit -n)",
    errno.ENOTDIR: "a file is where a folder belongs: move it away",
}


@contextmanager
def told(what: str, note: str = "") -> Iterator[None]:
    """Raise a `LogError` where the disk refuses something inside.

    Parameters
    ----------
    what
        What was not done, and of what: "cleaning partition a/0".
    note
        What a user has to know then: "it goes on with the next cleaning".
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "look at the disk")
        message = f"{what} failed: {error}; {remedy}{note and f', {note}'}"
        raise LogError(message) from error
