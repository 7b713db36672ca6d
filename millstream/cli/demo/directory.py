"""The demo's data directory: its own, and emptied before each run."""

from __future__ import annotations

import shutil
from pathlib import Path

from millstream.errors import OptionError

MARKER = ".millstream-demo"


def empty_directory(path: Path) -> None:
    """Make `path` an empty demo directory; what an earlier demo left there is removed.

    Raises
    ------
    OptionError
        When something else lies there: only what a demo wrote is ever removed.
    """
    if path.exists() and not path.is_dir():
        message = f"{str(path)!r} is a file; the demo needs a directory of its own"
        raise OptionError(message)
    if path.is_dir() and any(path.iterdir()):
        if not (path / MARKER).exists():
            message = (
                f"{str(path)!r} holds something that is not the demo's, and the demo would empty "
                "it; name another directory: --directory PATH"
            )
            raise OptionError(message)
        for entry in path.iterdir():
            # The marker goes last: an interrupted emptying can be taken up again.
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    path.mkdir(parents=True, exist_ok=True)
    (path / MARKER).touch()
