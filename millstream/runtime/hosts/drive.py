"""Carries commands and reports between a coordinator and its workers, whatever these run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from millstream.clock import Clock
from millstream.errors import JobError, MillstreamError
from millstream.runtime.coordinator import Coordinator, Phase
from millstream.runtime.hosts.worker_thread import WorkerFailed
from millstream.runtime.messages import Command, Report

WAIT_MAX_US = 100_000


class Fleet(Protocol):
    """The workers of an attempt, as their coordinator sees them."""

    def command(self, command: Command) -> None:
        """Hand a command to every worker."""
        ...

    def next_report(self, timeout_s: float) -> Report | WorkerFailed | None:
        """Return the next report, or `None`: none came in time."""
        ...


def drive(
    coordinator: Coordinator, fleet: Fleet, clock: Clock, on_turn: Callable[[int], None]
) -> None:
    """Coordinate until the attempt is done.

    Parameters
    ----------
    on_turn
        Called several times a second with the monotonic time, between two reports; what it
        raises ends the attempt.

    Raises
    ------
    MillstreamError
        What made a worker or a checkpoint fail.
    """
    while True:
        now_us = clock.monotonic_us()
        for command in coordinator.tick(now_us):
            fleet.command(command)
        if coordinator.phase is Phase.DONE:
            return
        on_turn(now_us)
        due_us = coordinator.due_us()
        wait_us = WAIT_MAX_US if due_us is None else max(due_us - clock.monotonic_us(), 0)
        report = fleet.next_report(min(wait_us, WAIT_MAX_US) / 1e6)
        if isinstance(report, WorkerFailed):
            raise job_error(report)
        if report is not None:
            coordinator.on_report(report)


def job_error(failed: WorkerFailed) -> BaseException:
    """Return the error to raise for a worker that failed."""
    error = failed.error
    if isinstance(error, MillstreamError) or not isinstance(error, Exception):
        return error
    message = f"worker {failed.worker} failed: {type(error).__name__}: {error}"
    wrapped = JobError(message)
    wrapped.__cause__ = error
    return wrapped
