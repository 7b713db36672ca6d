"""The switch that forbids the machine's own clock, disk and threads during a simulated run.

The simulated host claims that one seed decides everything. A real clock or file used by
mistake would make that claim false without any test noticing, so the classes that reach
the machine call `require_reality` when they are constructed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_simulations_running = 0


def require_reality(what: str) -> None:
    """Raise `AssertionError` when a simulated run is under way; `what` names the caller."""
    if _simulations_running:
        message = f"{what} constructed during a simulated run; pass the simulated one down instead"
        raise AssertionError(message)


@contextmanager
def simulation() -> Iterator[None]:
    """Forbid real clocks, disks and threads inside the `with` block."""
    global _simulations_running
    _simulations_running += 1
    try:
        yield
    finally:
        _simulations_running -= 1
