"""Where a row was read, as one number: the hidden column `_position`.

    sign 0 │ source 5 │ generation 6 │ partition 12 │ offset 40 bits

Only jobs that need it have it: those with dead letters, and those with random numbers. A row made
of others, as by an aggregate, has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_OFFSET_BITS, _PARTITION_BITS, _GENERATION_BITS, _SOURCE_BITS = 40, 12, 6, 5
_PLACE_BITS = _OFFSET_BITS + _PARTITION_BITS + _GENERATION_BITS
PLACE_MASK = (1 << _PLACE_BITS) - 1
"""What of a position is the same in whatever job the row is read."""

UNKNOWN = -1
"""The position of a row whose offset, generation or source has too many bits."""


@dataclass(frozen=True, slots=True)
class Place:
    """A position, taken apart; `source` counts the job's stream sources."""

    source: int
    generation: int
    partition: int
    offset: int


def positions(
    source: int, generation: int, partition: int, offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the position of each row of a partition, int64, shape (n,)."""
    if generation >> _GENERATION_BITS or source >> _SOURCE_BITS or partition >> _PARTITION_BITS:
        return np.full(len(offsets), UNKNOWN, np.int64)
    head = ((source << _GENERATION_BITS | generation) << _PARTITION_BITS) | partition
    made = np.int64(head << _OFFSET_BITS) | offsets
    return np.where(offsets >> _OFFSET_BITS == 0, made, UNKNOWN)


def place_of(position: int | None) -> Place | None:
    """Return a position taken apart; `None` where it is not known.

    Examples
    --------
    >>> place_of(int(positions(1, 2, 3, np.array([4]))[0]))
    Place(source=1, generation=2, partition=3, offset=4)
    """
    if position is None or position == UNKNOWN:
        return None
    offset = position & ((1 << _OFFSET_BITS) - 1)
    rest = position >> _OFFSET_BITS
    partition, rest = rest & ((1 << _PARTITION_BITS) - 1), rest >> _PARTITION_BITS
    return Place(rest >> _GENERATION_BITS, rest & ((1 << _GENERATION_BITS) - 1), partition, offset)


POSITION_TYPE = pa.int64()
