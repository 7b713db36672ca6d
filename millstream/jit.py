"""The way from a Python loop to machine code: Numba, with a cache on disk that is the user's own.

Only kernel modules import this file, since it imports Numba. Numba's cache holds code that is
run when it is loaded, so its folder belongs to the user alone (mode 0700); one that others may
write is refused. The folder is `MILLSTREAM_CACHE`, or `~/.cache/millstream`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

from millstream.errors import OptionError

# Names of generated modules start with this, so that a traceback says where a frame is from.
GENERATED_PREFIX = "millstream_generated_"

# Nobody calls a kernel by its address, which needs a wrapper (`cfunc`).
_OPTIONS: dict[str, object] = {"error_model": "numpy", "no_cfunc_wrapper": True}

_choosing_place = threading.Lock()


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


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled by Numba at its first call with each set of argument types.

    The machine code is kept on disk, runs without the GIL, divides as NumPy does (no
    `ZeroDivisionError`), and does not check bounds: callers pass arrays that are long enough.
    """
    # Numba chooses the cache's place while it decorates; the user's own kernels keep theirs.
    # One thread at a time: what another one sets back meanwhile would be the wrong place.
    config: Any = numba_config  # its settings are made at run time
    with _choosing_place:
        before = config.CACHE_DIR
        config.CACHE_DIR = str(cache_directory())
        try:
            compiled: Callable[..., Any] = _njit(nogil=True, cache=True)(function)
        finally:
            config.CACHE_DIR = before
    return compiled


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled for kernels of its own module to call, and for nobody else.

    It is kept as a part of the kernels that call it: Numba notices a change of their own file
    only.
    """
    compiled: Callable[..., Any] = _njit(no_cpython_wrapper=True)(function)
    return compiled


def _njit(**options: bool) -> Any:
    """Return Numba's decorator with the options of all kernels and `options`."""
    njit: Any = numba.njit  # its stubs do not know all of its options
    return njit(**_OPTIONS, **options)


def load_generated(source: str, name: str) -> Callable[..., Any]:
    """Return function `name` of generated `source`, compiled as by `kernel`.

    The source is kept in the cache under the hash of its text, where Numba finds the machine
    code of an earlier process beside it.

    Parameters
    ----------
    source
        A module that defines the plain function `name` and what it needs; no decorator.
    """
    # Numba does not notice other options; a changed source has another name anyway.
    digest = hashlib.sha256(f"{_OPTIONS}\n{source}".encode()).hexdigest()[:32]
    module_name = f"{GENERATED_PREFIX}{digest}"
    module = sys.modules.get(module_name)
    if module is None:
        path = cache_directory() / f"{module_name}.py"
        if not path.exists():
            _write_whole(path, source)
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        setattr(module, name, kernel(getattr(module, name)))
        sys.modules[module_name] = module
    compiled: Callable[..., Any] = getattr(module, name)
    return compiled


def _write_whole(path: Path, text: str) -> None:
    """Write `text` so that a process that looks at the same time sees all of it or nothing."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
