"""Overlapping windows that are over, each with the slots of its panes; a pane goes with its last.

panes      ├─a─┼─b─┼─c─┼─d─┤        watermark
window 1   └───────────┘ over: a, b, c are merged; a is forgotten   ▲
window 2       └───────────┘ over: b, c, d are merged …
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from millstream.windows.hopping import Hopping

if TYPE_CHECKING:
    from millstream.operators.window_state import WindowState


def closing_windows(
    state: WindowState, window: Hopping, after_us: int, last_us: int | None
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield start and slots of each window, the earliest first, and forget panes behind them.

    Parameters
    ----------
    after_us
        Windows that start by this were given out before.
    last_us
        The start of the last window; `None`: as long as a pane is there.
    """
    while (earliest := state.windows.earliest_us) is not None:
        pane_us = earliest - (earliest - window.offset_us) % window.pane_us
        start_us = max(window.first_of(pane_us), after_us + window.slide_us)
        if last_us is not None and start_us > last_us:
            return
        places, slots = state.windows.between(start_us, start_us + window.size_us - 1)
        slots = slots[window.count_in(places, start_us)]
        if len(slots):
            yield start_us, slots
        state.remove(state.windows.take_until(start_us + window.slide_us - 1))
        after_us = start_us
