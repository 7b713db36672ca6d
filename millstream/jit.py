"""The way from a Python loop to machine code: Numba, with a cache on disk that is the user's own.

Only kernel modules import this file, since it imports Numba. Where the cache lies and who may
write it: `millstream.storage_local.kernel_cache`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numba
from numba.core import config as numba_config

from millstream.storage_local.kernel_cache import cache_directory, choosing_place, source_file

# Names of generated modules start with this, so that a traceback says where a frame is from.
GENERATED_PREFIX = "millstream_generated_"

# Nobody calls a kernel by its address, which needs a wrapper (`cfunc`).
_OPTIONS: dict[str, object] = {"error_model": "numpy", "no_cfunc_wrapper": True}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled by Numba at its first call with each set of argument types.

    The machine code is kept on disk, runs without the GIL, divides as NumPy does (no
    `ZeroDivisionError`), and does not check bounds: callers pass arrays that are long enough.
    """
    # Numba chooses the cache's place while it decorates; the user's own kernels keep theirs.
    # One thread at a time: what another one sets back meanwhile would be the wrong place.
    config: Any = numba_config  # its settings are made at run time
    with choosing_place:
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
        path = source_file(module_name, source)
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        setattr(module, name, kernel(getattr(module, name)))
        sys.modules[module_name] = module
    compiled: Callable[..., Any] = getattr(module, name)
    return compiled
