"""What the state of a windowed aggregate says beside its open windows: which were given out.

It holds for the whole job, whatever the key group, and for the operator that combines rows
before they cross to the aggregate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.errors import CheckpointError
from millstream.operators.operator import StateSnapshot
from millstream.windows.watermark import WATERMARK_MIN

CLOSED_UNTIL = "closed_until_us"
GIVEN_END = "given_end_us"
GIVEN_OUT = "given_out"
WINDOW = "window"


@dataclass(frozen=True, slots=True)
class Restored:
    """Which windows were given out before.

    Parameters
    ----------
    closed_until_us
        Windows that end by then were flushed at the end of an earlier, bounded run.
    given_end_us
        The end of the last window that was given out.
    given_out
        How far windows were given out, by key group: texts of `GivenOut`.
    """

    closed_until_us: int
    given_end_us: int
    given_out: tuple[str, ...]

    def values(self, window: str) -> dict[str, int | str | None]:
        """Return it as a snapshot holds it, together with what the windows are."""
        return {
            CLOSED_UNTIL: self.closed_until_us,
            GIVEN_END: self.given_end_us,
            GIVEN_OUT: " ".join(self.given_out) or None,
            WINDOW: window,
        }

    @classmethod
    def of(cls, snapshots: Sequence[StateSnapshot], window: str) -> Restored:
        """Return what snapshots of all workers say together.

        Raises
        ------
        CheckpointError
            Where their windows were other ones than `window`.
        """
        closed_until_us = given_end_us = WATERMARK_MIN
        texts = []
        for snapshot in snapshots:
            assert snapshot.version == 1, f"state of version {snapshot.version}"
            values = snapshot.values
            if values[WINDOW] != window:
                message = f"its windows were of {values[WINDOW]}, and are of {window}"
                raise CheckpointError(message)
            closed_us, end_us, text = values[CLOSED_UNTIL], values[GIVEN_END], values[GIVEN_OUT]
            assert isinstance(closed_us, int)
            assert isinstance(end_us, int)
            closed_until_us = max(closed_until_us, closed_us)
            given_end_us = max(given_end_us, end_us)
            if isinstance(text, str):
                texts.append((end_us, text))
        # What ends before the end of an earlier run is late by that, whatever was read how fast.
        kept = tuple(text for end_us, text in texts if end_us > closed_until_us)
        return cls(closed_until_us, given_end_us, kept)
