"""What a batch changes of windows: the results of those it touches, before and after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Changes:
    """Results before and after a batch, of windows that it may have changed.

    Parameters
    ----------
    slots_before, slots_after
        int64, each once; a slot that is in both is one window, which may have moved.
    before, after
        Key columns, `window_start`, `window_end` and results of these slots.
    """

    slots_before: Int64Array
    before: list[pa.Array]
    slots_after: Int64Array
    after: list[pa.Array]
