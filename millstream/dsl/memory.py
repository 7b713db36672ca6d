"""How much memory the state of a job's workers may take, as a user says it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from millstream.dsl.run_context import RunOverrides
from millstream.errors import OptionError

BUDGET_MIN_BYTES = 1024 * 1024
"""A worker with no key at all has about as much."""

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?\s*")
_UNITS = {"": 1, "B": 1, "kB": 10**3}
_UNITS |= {f"{each}iB": 1024 ** (index + 1) for index, each in enumerate("KMGT")}
_UNITS |= {f"{each}B": 1000 ** (index + 1) for index, each in enumerate("KMGT")}


@dataclass(frozen=True, slots=True)
class Memory:
    """What the state of each worker's operators may take.

    Parameters
    ----------
    budget_bytes
        `None`: as much as it needs.
    spill_directory
        Where what is beyond it goes; `None`: where the machine has temporary files.
    """

    budget_bytes: int | None = None
    spill_directory: str | None = None


def checked_memory(
    budget: str | int | None,
    spill_directory: str | os.PathLike[str] | None,
    overrides: RunOverrides,
    location: str,
) -> Memory:
    """Return what state may take: options from outside before the script's own.

    Raises
    ------
    OptionError
        When an option cannot be used as given.
    """
    budget_bytes = overrides.memory_budget_bytes
    if budget_bytes is None and budget is not None:
        budget_bytes = memory_budget_bytes(budget, location)
    directory = overrides.spill_directory or spill_directory
    if directory is not None and budget_bytes is None:
        message = (
            f"{location}: spill_directory is where state beyond a memory budget goes, and there "
            'is none; give memory_budget, too, e.g. "512MiB"'
        )
        raise OptionError(message)
    return Memory(budget_bytes, None if directory is None else os.path.abspath(directory))


def memory_budget_bytes(budget: str | int, location: str) -> int:
    """Return how many bytes a budget is; raises `OptionError` where that is none.

    Examples
    --------
    >>> memory_budget_bytes("1.5 MiB", "here")
    1572864
    """
    match = _SIZE.fullmatch(str(budget)) if not isinstance(budget, bool) else None
    size_bytes = 0 if match is None else int(float(match[1]) * _UNITS[match[2] or ""])
    if size_bytes < BUDGET_MIN_BYTES:
        message = (
            f'{location}: memory_budget is a number of bytes from 1 MiB up, e.g. "512MiB"; '
            f"got {budget!r}"
        )
        raise OptionError(message)
    return size_bytes
