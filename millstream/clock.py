"""Time, injected: the only module that reads the machine's clock.

Everything else takes a `Clock`, so that tests and the simulated host decide what time it is.
"""

from __future__ import annotations

import time
from typing import Protocol

from millstream.reality import require_reality


class Clock(Protocol):
    """What the platform needs to know of time."""

    def now_us(self) -> int:
        """Return the wall clock: microseconds since 1970-01-01 UTC; may jump."""
        ...

    def monotonic_us(self) -> int:
        """Return microseconds that never go back; for intervals and time-outs only."""
        ...

    def sleep_us(self, duration_us: int) -> None:
        """Let `duration_us` microseconds pass."""
        ...


class SystemClock:
    """The machine's clock. Cannot be constructed during a simulated run."""

    def __init__(self) -> None:
        require_reality("SystemClock")

    def now_us(self) -> int:
        """Return the wall clock in microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        """Return the monotonic clock in microseconds."""
        return time.monotonic_ns() // 1_000

    def sleep_us(self, duration_us: int) -> None:
        """Block the calling thread for `duration_us` microseconds."""
        time.sleep(duration_us / 1_000_000)


class ManualClock:
    """A clock that stands still until it is moved.

    Examples
    --------
    >>> clock = ManualClock(start_us=5)
    >>> clock.sleep_us(10)
    >>> clock.now_us()
    15
    """

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        self._wall_us = start_us
        self._monotonic_us = 0

    def now_us(self) -> int:
        """Return the wall clock as it was set."""
        return self._wall_us

    def monotonic_us(self) -> int:
        """Return how far the clock was moved forward since it was made."""
        return self._monotonic_us

    def sleep_us(self, duration_us: int) -> None:
        """Move both clocks forward by `duration_us`; nothing blocks."""
        self._wall_us += duration_us
        self._monotonic_us += duration_us

    def jump_us(self, delta_us: int) -> None:
        """Move the wall clock alone, as a correction of the machine's clock does."""
        self._wall_us += delta_us
