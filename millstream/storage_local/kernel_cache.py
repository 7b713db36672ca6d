"""Where compiled kernels are kept: a folder of the user's own, `MILLSTREAM_CACHE` or the default.

What lies there is run when it is loaded, so the folder belongs to the user alone (mode 0700); one
that others may write is refused. The default is `~/.cache/millstream`.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from functools import cache
from pathlib import Path

from millstream.errors import OptionError

choosing_place = threading.Lock()
"""Held while Numba is told where to keep a kernel: its setting is one for all threads."""


@cache
def cache_directory() -> Path:
    """Return the folder of compiled kernels, created with mode 0700 where it is missing.

    Raises
    ------
    OptionError
        When the folder belongs to somebody else or others may write into it.
    """
    named = os.environ.get("MILLSTREAM_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "millstream"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = (
            f"the kernel cache {folder} may be written by others; got mode "
            f"{stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}; compiled kernels are run "
            f"when loaded, so make it yours alone (chmod 700) or set MILLSTREAM_CACHE"
        )
        raise OptionError(message)
    return folder


def source_file(name: str, source: str) -> Path:
    """Return the file of a generated module, written where it is missing.

    A process that looks at the same time sees all of it or nothing.
    """
    path = cache_directory() / f"{name}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(source)
        Path(file.name).replace(path)
    return path
