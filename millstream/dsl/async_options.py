"""How an async function of the user's own is called: `ms.udf(…)` on an `async def`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from millstream.dsl.windows import duration_option
from millstream.errors import OptionError
from millstream.operators.user_function import AsyncFunction

_DEFAULTS: dict[str, Any] = {
    "concurrency": 100,
    "timeout": "30s",
    "attempts": 1,
    "backoff": "100ms",
    "cache": 0,
}
_LEAST = {"concurrency": 1, "attempts": 1, "cache": 0}


@dataclass(frozen=True, slots=True)
class AsyncOptions:
    """Options of calls, checked; as in `operators.user_function.AsyncFunction`."""

    concurrency: int
    timeout_us: int
    attempts: int
    backoff_us: int
    cache: int

    def of(self, name: str, function: Callable[..., Any], skips_nulls: bool) -> AsyncFunction:
        """Return a function as it is called."""
        return AsyncFunction(
            name,
            function,
            skips_nulls,
            self.concurrency,
            self.timeout_us,
            self.attempts,
            self.backoff_us,
            self.cache,
        )


def async_options(
    function: Callable[..., Any], given: Mapping[str, Any], batch: bool, location: str
) -> AsyncOptions | None:
    """Return how an async function is called; `None` for one that is not.

    Raises
    ------
    OptionError
        When an option is out of its range, or is not for this function.
    """
    named = {name: value for name, value in given.items() if value is not None}
    if not any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
        if named:
            message = f"{location}: {', '.join(named)} is for an async def, which this is not"
            raise OptionError(message)
        return None
    if batch:
        message = f"{location}: an async function is called row by row; leave out batch=True"
        raise OptionError(message)
    options = _DEFAULTS | named
    for name, least in _LEAST.items():
        if type(options[name]) is not int or options[name] < least:
            message = f"{location}: {name} is a number, at least {least}; got {options[name]!r}"
            raise OptionError(message)
    timeout_us = duration_option("timeout", options["timeout"], location)
    if timeout_us == 0:
        message = f"{location}: nothing answers in no time; give timeout= more"
        raise OptionError(message)
    return AsyncOptions(
        options["concurrency"],
        timeout_us,
        options["attempts"],
        duration_option("backoff", options["backoff"], location),
        options["cache"],
    )
