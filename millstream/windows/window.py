"""What every kind of window tells the operator that fills it."""

from __future__ import annotations

from typing import Protocol


class Window(Protocol):
    """A way of cutting event time into windows [start, end), all times in microseconds."""

    @property
    def size_us(self) -> int:
        """How long a window is."""
        ...

    @property
    def offset_us(self) -> int:
        """Start of some window, as an offset from 1970-01-01 UTC."""
        ...

    def start_of(self, time_us: int) -> int:
        """Return the start of the window that holds `time_us`."""
        ...

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        ...
