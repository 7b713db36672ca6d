"""A user's function as a typed expression holds it: option `function` of a call of `udf`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CompiledFunction:
    """A function of numbers that kernels call; it is shipped as its source.

    Parameters
    ----------
    name
        Of the function in the source.
    source
        A module that defines it with all that it needs.
    """

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """A function that Python calls for each row.

    Parameters
    ----------
    name
        For messages.
    function
        Takes a Python object an argument, and returns one.
    reason
        Why it is not compiled.
    skips_nulls
        Whether a null argument gives null, without a call.
    """

    name: str
    function: Callable[..., Any]
    reason: str
    skips_nulls: bool


@dataclass(frozen=True, slots=True)
class BatchFunction:
    """A function of Arrow arrays.

    Parameters
    ----------
    name
        For messages.
    function
        Takes an array an argument, all of one length, and returns as many values.
    """

    name: str
    function: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class AsyncFunction:
    """An async function, called for each row by an event loop of the host.

    Parameters
    ----------
    name
        For messages.
    function
        Takes a Python object an argument, and returns one when awaited.
    skips_nulls
        Whether a null argument gives null, without a call.
    concurrency
        How many calls are in flight at most, of each worker.
    timeout_us
        How long an attempt may take.
    attempts, backoff_us
        How often a call is made that fails, and how long after the first time it is made again;
        twice as long after each further one.
    cache
        How many answers a worker keeps.
    """

    name: str
    function: Callable[..., Awaitable[Any]]
    skips_nulls: bool
    concurrency: int
    timeout_us: int
    attempts: int
    backoff_us: int
    cache: int
