"""Lets the disk begin with what was written before anybody waits for it.

A sync of many bytes mostly waits for the disk to take them. Where the disk has begun with them at
the append, it has taken most of them by then, and worked while the next batch was encoded.
"""

from __future__ import annotations

from millstream.log.control_file import ControlFile, LogEnd
from millstream.storage import AppendFile

BEGIN_BYTES = 256 * 1024
"""So many are begun with at once: of fewer a sync itself is as quick."""
PAGE_BYTES = 4096
"""Of the kernel: a page that is not full yet would be written twice."""


class WriteBack:
    """Begins to write the active segment of a partition; the holder of its append lock calls it.

    Parameters
    ----------
    control
        The partition's.
    """

    def __init__(self, control: ControlFile) -> None:
        self._control = control
        self._base = 0
        self._begun = 0

    def go_on(self, file: AppendFile, end: LogEnd, durable: LogEnd | None) -> None:
        """Begin with what lies before `end`, where that is a good deal; costs 50 µs then.

        Where the disk refuses, it is as if a sync had failed: every process is told, and nothing
        is written until the partition was verified. The append is done, for what that is worth.

        Parameters
        ----------
        file
            The active segment's.
        end, durable
            The written and the durable end.
        """
        base = end.segment_base
        if self._base != base or self._begun > end.position:
            self._base, self._begun = base, 0
        if durable is not None and durable.segment_base == base:
            self._begun = max(self._begun, durable.position)
        if end.position - self._begun < BEGIN_BYTES:
            return
        start, self._begun = self._begun, end.position // PAGE_BYTES * PAGE_BYTES
        try:
            file.begin_sync(start, self._begun - start)
        except OSError:
            self._control.sync_failed = True
