"""The way from a Python loop to machine code: Numba, with a cache on disk that is the user's own.

Only kernel modules import this file, since it imports Numba. Where the cache lies and who may
write it: `millstream.storage_local.kernel_cache`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba.core import config as numba_config
from numba.core.caching import FunctionCache
from numba.core.errors import NumbaError, NumbaNotImplementedError
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys
from numba.np.numpy_support import as_dtype, from_dtype

from millstream.storage_local.kernel_cache import cache_directory, choosing_place, source_file

# Names of generated modules start with this, so that a traceback says where a frame is from.
GENERATED_PREFIX = "millstream_generated_"

# Nobody calls a kernel by its address, which needs a wrapper (`cfunc`).
_OPTIONS: dict[str, object] = {"error_model": "numpy", "no_cfunc_wrapper": True}


def prepare_to_load() -> None:
    """Do what the first kernel that is loaded would wait for; in a process that waits anyway."""
    rtsys.initialize(cpu_target.target_context)


class _QuickCache(FunctionCache):
    """Numba's cache, but that what is needed to compile only is not prepared in order to load.

    Numba's own imports and registers all that it knows of Python and NumPy before it looks for
    machine code: a quarter of a second, where most processes compile nothing. Where nothing is
    found, the compiler does it by itself.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled kernel for a signature, or `None`: it was never compiled."""
        rtsys.initialize(target_context)  # machine code that is loaded may call it
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]  # half of Numba has types


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled by Numba at its first call with each set of argument types.

    The machine code is kept on disk, runs without the GIL, divides as NumPy does (no
    `ZeroDivisionError`), and does not check bounds: callers pass arrays that are long enough.
    """
    return _kept(function)


def user_function(function: Callable[..., Any]) -> Any:
    """Return a user's function compiled for kernels to call: it divides and raises as Python does.

    Used as a decorator by the source that `load_user_function` is given.
    """
    return _kept(function, error_model="python")


def _kept(function: Callable[..., Any], **options: object) -> Callable[..., Any]:
    """Return `function` compiled at its first call, its machine code kept on disk."""
    compiled: Any = _njit(nogil=True)(function)
    # Numba chooses the cache's place when it makes one; the user's own kernels keep theirs.
    # One thread at a time: what another one sets back meanwhile would be the wrong place.
    config: Any = numba_config  # its settings are made at run time
    with choosing_place:
        before = config.CACHE_DIR
        config.CACHE_DIR = str(cache_directory())
        try:
            compiled._cache = _QuickCache(function)  # type: ignore[no-untyped-call]  # half of Numba has types
        finally:
            config.CACHE_DIR = before
    decorated: Callable[..., Any] = compiled
    return decorated


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled for kernels of its own module to call, and for nobody else.

    It is kept as a part of the kernels that call it: Numba notices a change of their own file
    only.
    """
    compiled: Callable[..., Any] = _njit(no_cpython_wrapper=True)(function)
    return compiled


def _njit(**options: object) -> Any:
    """Return Numba's decorator with the options of all kernels and `options`."""
    njit: Any = numba.njit  # its stubs do not know all of its options
    return njit(**{**_OPTIONS, **options})


def load_generated(source: str, name: str) -> Callable[..., Any]:
    """Return function `name` of generated `source`, compiled as by `kernel`.

    The source is kept in the cache under the hash of its text, where Numba finds the machine
    code of an earlier process beside it.

    Parameters
    ----------
    source
        A module that defines the plain function `name` and what it needs; no decorator.
    """
    module, is_new = _load_module(source)
    if is_new:
        setattr(module, name, kernel(getattr(module, name)))
    compiled: Callable[..., Any] = getattr(module, name)
    return compiled


def load_user_function(source: str, name: str) -> Any:
    """Return function `name` of `source`, which decorates it itself; kept as generated source is.

    Generated kernels call it to have what they call.
    """
    return getattr(_load_module(source)[0], name)


def result_dtype(source: str, name: str, dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any] | str:
    """Return what a user's function gives for arguments of `dtypes`, or why it is not compiled.

    It is compiled for them, unless the cache has it.
    """
    try:
        function = load_user_function(source, name)
        types = tuple(from_dtype(each) for each in dtypes)
        function.compile(types)
        result = function.overloads[types].signature.return_type
    except NumbaError as error:
        return _first_line(str(error))
    try:
        return as_dtype(result)
    except NumbaNotImplementedError:
        return f"it gives {result}, which is no number or bool"


def _first_line(message: str) -> str:
    """Return the line of Numba's message that says what is wrong."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    lines = [each.strip() for each in plain.splitlines() if each.strip()]
    passed = ("Failed in nopython", "During:", "File ")
    wanted = [each for each in lines if not each.startswith(passed)]
    return (wanted or lines or ["Numba gives no reason"])[0]


def _load_module(source: str) -> tuple[ModuleType, bool]:
    """Return the module of `source`, and whether it was loaded now."""
    # Numba does not notice other options; a changed source has another name anyway.
    digest = hashlib.sha256(f"{_OPTIONS}\n{source}".encode()).hexdigest()[:32]
    module_name = f"{GENERATED_PREFIX}{digest}"
    module = sys.modules.get(module_name)
    if module is not None:
        return module, False
    path = source_file(module_name, source)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[module_name] = module
    return module, True
