"""Which windows are open, the earliest first, so that a watermark touches only what it closes.

As in a log-structured merge tree, sorted runs are merged with ones of their size, so that there
are few::

    added ─▶ run, sorted ─▶ ┌ 9:00 10:00 11:00 ┐
                            ┌ 9:00 9:00 10:00 10:00 11:00 11:00 … ┐ ──▶ the starts up to a time
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]


class OpenWindows:
    """Slots in the order of their windows' starts; adding and taking cost O(log n) each."""

    def __init__(self) -> None:
        # Each run: starts, ascending, and the slot of each.
        self._runs: list[tuple[Int64Array, Int64Array]] = []

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return sum(starts.nbytes + slots.nbytes for starts, slots in self._runs)

    @property
    def earliest_us(self) -> int | None:
        """The least start, `None` where no window is open."""
        return min((int(starts[0]) for starts, _ in self._runs), default=None)

    @property
    def latest_us(self) -> int | None:
        """The greatest start, `None` where no window is open."""
        return max((int(starts[-1]) for starts, _ in self._runs), default=None)

    def add(self, starts: Int64Array, slots: Int64Array) -> None:
        """Add `slots`, whose windows start at `starts`."""
        if len(slots) == 0:
            return
        self._runs.append(_ordered(starts, slots))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            merged = _merged(self._runs[-2:])
            self._runs[-2:] = [merged]

    def between(self, start_min_us: int, start_max_us: int) -> tuple[Int64Array, Int64Array]:
        """Return starts and slots of windows that start in this range, which stay open."""
        found = []
        for starts, slots in self._runs:
            begin = int(np.searchsorted(starts, start_min_us, side="left"))
            end = int(np.searchsorted(starts, start_max_us, side="right"))
            if begin < end:
                found.append((starts[begin:end], slots[begin:end]))
        if not found:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return _merged(found)

    def take_until(self, start_max_us: int | None) -> Int64Array:
        """Return the slots of windows that start by `start_max_us` (`None`: all), no longer open.

        The earliest come first; of one start, in the order in which they were added.
        """
        taken, kept = [], []
        for starts, slots in self._runs:
            count = len(starts)
            if start_max_us is not None:
                count = int(np.searchsorted(starts, start_max_us, side="right"))
            if count:
                taken.append((starts[:count], slots[:count]))
            if count < len(starts):
                kept.append((starts[count:], slots[count:]))
        self._runs = kept
        return _merged(taken)[1] if taken else np.empty(0, dtype=np.int64)


def _merged(runs: list[tuple[Int64Array, Int64Array]]) -> tuple[Int64Array, Int64Array]:
    if len(runs) == 1:
        return runs[0]
    starts, slots = (np.concatenate(each) for each in zip(*runs, strict=True))
    return _ordered(starts, slots)


def _ordered(starts: Int64Array, slots: Int64Array) -> tuple[Int64Array, Int64Array]:
    order = np.argsort(starts, kind="stable")
    return starts[order], slots[order]
