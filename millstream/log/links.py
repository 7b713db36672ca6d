"""Refuses symbolic links below a log's folder: what is written would be somewhere else."""

from __future__ import annotations

from millstream.errors import LinkedPathError
from millstream.storage import Storage


def refuse_links(storage: Storage, root: str, path: str) -> None:
    """Raise `LinkedPathError` where anything on the way from `root` down to `path` is a link.

    `root` itself may be one: it is what a user named.
    """
    at = root
    for name in path.removeprefix(root).strip("/").split("/"):
        at = f"{at}/{name}"
        refuse_link(storage, at)


def refuse_link(storage: Storage, path: str) -> None:
    """Raise `LinkedPathError` where `path` is a link."""
    if storage.is_link(path):
        message = (
            f"{path} is a symbolic link; a log follows none inside of its folder, for they may "
            "lead out of it: put the file or folder itself there (the log's own folder may be one)"
        )
        raise LinkedPathError(message)
