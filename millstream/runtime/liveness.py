"""Whether a worker that answers also advances: decisions, without a clock."""

from __future__ import annotations

from millstream.runtime.activity import WorkerStatus


class Liveness:
    """What is known of one worker's progress.

    A worker stands still when its thread has not come round for too long, or when rows wait
    for it and none moved for too long.

    Parameters
    ----------
    timeout_us
        For how long it may.

    Examples
    --------
    >>> liveness = Liveness(timeout_us=10)
    >>> status = WorkerStatus(0, waiting=True)
    >>> [liveness.stands_still(now_us, status, now_us) for now_us in (0, 9, 10)]
    [False, False, True]
    """

    def __init__(self, timeout_us: int) -> None:
        self._timeout_us = timeout_us
        self._turns = -1
        self._turned_us = 0
        self._progress: tuple[int, ...] | None = None
        self._progressed_us = 0

    def stands_still(self, turns: int, status: WorkerStatus, now_us: int) -> bool:
        """Take note of a worker's answer at `now_us`; return `True` iff it is to be replaced."""
        if turns != self._turns:
            self._turns, self._turned_us = turns, now_us
        progress = status.progress()
        if progress != self._progress or not status.waiting:
            self._progress, self._progressed_us = progress, now_us
        since_us = min(self._turned_us, self._progressed_us)
        return now_us - since_us >= self._timeout_us
