"""Tells the world how a run is doing, and the run what the world asks of it.

It is called on the coordinator's thread between two reports, some times a second.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import suppress

import msgspec

from millstream.errors import FencedError, JobCancelledError
from millstream.log import Log
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.control import JobControl, JobRecord, JobState, Request
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.journal import Journal, JournalRecord

PUBLISH_INTERVAL_US = 500_000
CHECKPOINT_INTERVAL_US = 100_000
"""A completed checkpoint is told of sooner, but no more often than so."""
STATUS_INTERVAL_US = 200_000

OnStatus = Callable[[JobRecord], None]


class RunPublisher:
    """Publishes one run's state and obeys requests.

    Parameters
    ----------
    log, job, run, host, parallelism
        Of the run.
    on_status
        Called with the run's record a few times a second.
    visible
        `False` for a run that only collects rows: it leaves nothing in the log.
    """

    def __init__(
        self,
        log: Log,
        job: str,
        run: str,
        *,
        host: str,
        parallelism: int,
        on_status: OnStatus | None,
        visible: bool,
    ) -> None:
        now_us = log.clock.now_us()
        self.record = JobRecord(
            job=job,
            run=run or f"{platform.node()}-{os.getpid()}-{now_us}",
            state=JobState.STARTING,
            host=host,
            pid=os.getpid(),
            node=platform.node(),
            parallelism=parallelism,
            started_us=now_us,
            updated_us=now_us,
        )
        self._log = log
        self._control = JobControl(log, job) if visible else None
        self._journal = Journal(log, job) if visible else None
        self._on_status = on_status
        self._coordinator: Coordinator | None = None
        self._statuses: Callable[[], list[WorkerStatus]] = list
        self._published_us = -PUBLISH_INTERVAL_US
        self._status_due_us = 0
        self._completed = 0
        self._obeyed: Request | None = None
        self._go_on_from(self._control.record() if self._control is not None else None)

    def starts(self, coordinator: Coordinator) -> None:
        """Speak of an attempt that is about to start, and may fail before it runs."""
        self._coordinator, self._statuses = coordinator, list
        self._completed = 0
        self._obeyed = None  # what was asked for holds for this attempt too

    def waits(self, reason: str) -> None:
        """Say what the attempt that starts waits for, and obey; to be called again and again.

        Raises
        ------
        JobCancelledError
            When the run was asked to end at once.
        """
        if reason != self.record.reason:
            self._change(reason=reason)
            self._note("waiting", reason)
        self.on_turn(self._log.clock.monotonic_us())

    def attempt(self, coordinator: Coordinator, statuses: Callable[[], list[WorkerStatus]]) -> None:
        """Speak of a new attempt from now on."""
        self.starts(coordinator)
        self._statuses = statuses
        self._change(
            state=JobState.RUNNING,
            attempt=self.record.attempt + 1,
            parallelism=coordinator.graph.parallelism,
            reason=None,
        )
        if coordinator.restored is None:
            self._note("started", f"began anew on {self.record.parallelism} workers")
        else:
            self._note("restored", f"goes on from checkpoint {coordinator.restored}")

    def on_turn(self, now_us: int) -> None:
        """Publish and obey, where it is time to.

        Raises
        ------
        JobCancelledError
            When the run was asked to end at once.
        """
        if now_us >= self._status_due_us:
            self._status_due_us = now_us + STATUS_INTERVAL_US
            if self._on_status is not None:
                self._look()
                self._on_status(self.record)
            if self._control is not None:
                self._obey(self._control.requested(self.record.run))
        due_us = self._published_us + PUBLISH_INTERVAL_US
        if self._coordinator is not None and self._coordinator.checkpoints > self._completed:
            due_us = self._published_us + CHECKPOINT_INTERVAL_US
        if now_us >= due_us:
            self._published_us = now_us
            self._change()

    def over(self, state: JobState, error: BaseException | None = None) -> None:
        """Publish how the run ended, or why it restarts."""
        reason = None if error is None else str(error) or type(error).__name__
        with suppress(OSError):  # a full disk must not hide why the run ended
            if not isinstance(error, FencedError):  # else another run speaks of the job now
                self._change(state=state, reason=reason)
            self._note(state.value, reason or f"job {self.record.job!r} {state.value}", error)
        if self._on_status is not None and state.is_over:
            self._on_status(self.record)

    def _go_on_from(self, before: JobRecord | None) -> None:
        """Count on where an earlier process of the same run died."""
        if before is not None and before.run == self.record.run:
            self.record = msgspec.structs.replace(
                self.record,
                started_us=before.started_us,
                epoch=before.epoch,
                attempt=before.attempt,
                restored=before.restored,
                checkpoint=before.checkpoint,
                checkpoint_us=before.checkpoint_us,
                checkpoint_bytes=before.checkpoint_bytes,
                checkpoints=before.checkpoints,
            )

    def _change(self, **changes: object) -> None:
        self._look(**changes)
        if self._control is not None:
            self._control.publish(self.record)

    def _look(self, **changes: object) -> None:
        """Bring the record up to date."""
        coordinator, now_us = self._coordinator, self._log.clock.now_us()
        if coordinator is not None:
            # One that failed before it had an epoch or a checkpoint takes nothing back.
            if coordinator.epoch:
                changes["epoch"] = coordinator.epoch
            if coordinator.checkpoint is not None:
                changes["restored"] = coordinator.restored
                changes["checkpoint"] = coordinator.checkpoint
                changes["checkpoint_bytes"] = coordinator.checkpoint_bytes
            changes["workers"] = tuple(self._statuses())
            if coordinator.checkpoints > self._completed:
                changes["checkpoint_us"] = now_us
                changes["checkpoints"] = (
                    self.record.checkpoints + coordinator.checkpoints - self._completed
                )
                self._completed = coordinator.checkpoints
        self.record = msgspec.structs.replace(self.record, updated_us=now_us, **changes)

    def _note(self, event: str, message: str, error: BaseException | None = None) -> None:
        """Write into the job's journal."""
        if self._journal is None:
            return
        record = self.record
        self._journal.write(
            JournalRecord(
                record.updated_us,
                record.job,
                record.run,
                record.attempt,
                event,
                message,
                operator=getattr(error, "operator", None),
                worker=getattr(error, "worker", None),
                checkpoint=record.checkpoint,
            )
        )

    def _obey(self, request: Request | None) -> None:
        if request is None or request == self._obeyed or self._coordinator is None:
            return
        self._obeyed = request
        match request.action:
            case "cancel":
                message = f"job {self.record.job!r} was cancelled; {_TAKEN_BACK}"
                raise JobCancelledError(message)
            case "drain" if request.flush:
                self._coordinator.request_drain()
            case _:
                self._coordinator.request_stop()


_TAKEN_BACK = "what it wrote since its last checkpoint is taken back"
