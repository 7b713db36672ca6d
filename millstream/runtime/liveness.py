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
    begin_timeout_us
        For how long it may before its thread comes round first: it has state to read.

    Examples
    --------
    >>> liveness = Liveness(timeout_us=10, begin_timeout_us=100)
    >>> status = WorkerStatus(0, waiting=True)
    >>> [liveness.stands_still(1 + now_us, status, now_us) for now_us in (0, 9, 10)]
    [None, None, 'has moved none of the rows that wait for it']
    """

    def __init__(self, timeout_us: int, begin_timeout_us: int) -> None:
        self._timeout_us = timeout_us
        self._begin_timeout_us = begin_timeout_us
        self._turns: int | None = None
        self._turned_us = 0
        self._progress: tuple[int, ...] | None = None
        self._progressed_us = 0

    def stands_still(self, turns: int, status: WorkerStatus, now_us: int) -> str | None:
        """Take note of a worker's answer at `now_us`; return why it is to be replaced, if it is.

        Parameters
        ----------
        turns
            How often its thread came round.
        """
        if turns != self._turns:
            self._turns, self._turned_us = turns, now_us
        progress = status.progress()
        if progress != self._progress or not status.waiting:
            self._progress, self._progressed_us = progress, now_us
        if turns == 0:
            late = now_us - self._turned_us >= self._begin_timeout_us
            return "has not begun" if late else None
        if now_us - self._turned_us >= self._timeout_us:
            return "hangs in one piece of work"
        if now_us - self._progressed_us >= self._timeout_us:
            return "has moved none of the rows that wait for it"
        return None
