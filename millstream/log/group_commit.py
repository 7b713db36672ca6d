"""Makes what was written durable: one fsync for all who wait, in any number of processes."""

from __future__ import annotations

from collections.abc import Callable

from millstream.errors import LogError, OptionError
from millstream.log.control_file import LogEnd
from millstream.log.segments import Segments
from millstream.storage import AppendFile

LOCK_NAME = "sync.lock"


class GroupCommit:
    """Moves the durable end of the partition whose segments are `segments`.

    Whoever gets the sync lock first does the fsync, for all that was written by then. Appends go
    on meanwhile: who wrote before it began is woken when it is done and leaves without the lock,
    of who wrote later one is woken, for the next fsync.

    Parameters
    ----------
    segments
        The partition's.
    ring
        Called when the durable end has moved.
    """

    def __init__(self, segments: Segments, ring: Callable[[], None] | None = None) -> None:
        self._segments = segments
        self._ring = ring
        self._control = segments.control
        self.lock_path = f"{segments.directory}/{LOCK_NAME}"
        self._open: tuple[int, AppendFile] | None = None  # used under the lock only

    def try_sync(self, until_offset: int | None = None) -> bool:
        """Make the rows before `until_offset` (`None`: all written so far) durable.

        Returns
        -------
        bool
            `False`: a process died in a sync. It may have failed, and the kernel tells an error
            to those only who had the file open: the partition must be recovered first.
        """
        target = self._control.written() or LogEnd(0, 0, 0)
        if until_offset is not None and until_offset > target.offset:
            message = (
                f"partition {self._segments.name} cannot be synced to offset {until_offset}: it "
                f"is written to {target.offset}; rows beyond were never appended"
            )
            raise OptionError(message)
        if self._is_durable(target, until_offset):
            return True
        try:
            is_done = self._sync_under_lock(target, until_offset)
        except OSError as error:
            self._segments.refuse_removed()
            message = f"partition {self._segments.name}: the disk refused a sync: {error}"
            raise LogError(message) from error
        # By everybody who waited: who did the sync may have died before it came to this.
        self._moved()
        return is_done

    def _sync_under_lock(self, target: LogEnd, until_offset: int | None) -> bool:
        def is_durable() -> bool:
            return self._is_durable(target, until_offset)

        wanted = target.offset if until_offset is None else until_offset

        def is_synced_now() -> bool:
            return self._control.will_sync(wanted)

        lock = self._segments.storage.lock(
            self.lock_path, unless=is_durable, is_served=is_synced_now
        )
        with lock as is_held:
            if not is_held or is_durable():
                return True
            self.refuse_after_failure()
            if self._control.sync_under_way:
                return False
            # What is written by now, not only by the time of the call: that is the group.
            end = self._control.written() or target
            if end.position:
                self._sync_file(self._open_file(end.segment_base), end)
            # Position 0: a roll is under way; it synced all segments before this one.
            self._control.publish_durable(end)
        return True

    def begin(self) -> None:
        """Let the disk begin with what was written, unless somebody syncs right now.

        Who syncs several partitions begins with all of them: the disk is busy with the next one
        while one is waited for. What goes wrong is told by the sync that follows.
        """
        control = self._control
        end, durable = control.written(), control.durable()
        if end is None or durable is None or end.position == 0 or durable >= end:
            return
        start = durable.position if durable.segment_base == end.segment_base else 0
        with self._segments.storage.lock(self.lock_path, unless=lambda: True) as is_held:
            if not is_held or control.sync_failed or control.sync_under_way:
                return
            try:
                file = self._open_file(end.segment_base)
            except OSError:
                return
            try:
                file.begin_sync(start, end.position - start)
            except OSError:
                control.sync_failed = True

    def try_seal(self, end: LogEnd) -> bool:
        """Make the segment that ends at `end`, and its length, durable for good.

        Returns what `try_sync` does. A sync it is in any case: the rows may be durable and the
        cut of a dead process's frame behind them not, which a power cut would bring back.
        """
        with self._segments.storage.lock(self.lock_path):
            self.refuse_after_failure()
            if self._control.sync_under_way:
                return False
            self._sync_file(self._open_file(end.segment_base), end)
            self._control.publish_durable(end)
        self._moved()
        return True

    def _moved(self) -> None:
        if self._ring is not None:
            self._ring()

    def _sync_file(self, file: AppendFile, end: LogEnd) -> None:
        """Sync `file`, which is written to `end`.

        Or make every process refuse to write, and raise `LogError`.
        """
        self._control.begin_sync(end.offset)
        try:
            file.sync()
        except OSError as error:
            # The kernel may drop what it could not write and call it clean: a second fsync
            # would succeed and mean nothing.
            self._control.sync_failed = True
            message = (
                f"partition {self._segments.name}: a sync failed ({error}); rows after offset "
                f"{self._segments.end().offset} may be lost and nothing is written until the "
                "partition was verified, by an append a second later: look at the disk"
            )
            raise LogError(message) from error
        self._control.end_sync()

    def refuse_after_failure(self) -> None:
        """Raise `LogError` where a sync failed and the partition was not verified since."""
        if self._control.sync_failed:
            message = (
                f"partition {self._segments.name} refuses to write; a sync failed, and the "
                "partition was not verified since: look at the disk; an append a second after the "
                "failure verifies it"
            )
            raise LogError(message)

    def _is_durable(self, target: LogEnd, until_offset: int | None) -> bool:
        durable = self._control.durable()
        if durable is None:
            return False
        return durable >= target if until_offset is None else durable.offset >= until_offset

    def reopen(self) -> None:
        """Open the file anew for the next sync: of what failed before this one would be told.

        The holder of the sync lock calls it.
        """
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _open_file(self, base: int) -> AppendFile:
        """Return the segment `base`, kept open: it is mostly the one of the last sync."""
        if self._open is None or self._open[0] != base:
            self.reopen()
            self._open = base, self._segments.storage.open_append(self._segments.path(base))
        return self._open[1]
