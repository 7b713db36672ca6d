"""A run in other processes: attempts, one after another, until it is over.

attempt 1 ── a worker dies ──▶ decide what is open ── delay ──▶ attempt 2 ── … ──▶ outcome
(workers that live are used again)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from millstream.errors import JobCancelledError, JobError, MillstreamError
from millstream.log import Log
from millstream.runtime.attempt import Compiler
from millstream.runtime.control import JobState
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.hosts.drive import drive
from millstream.runtime.hosts.publisher import RunPublisher
from millstream.runtime.hosts.remote_fleet import Patience, RemoteFleet, RemoteWorker
from millstream.runtime.options import RunOptions
from millstream.runtime.restart import Restarts, RestartStrategy
from millstream.runtime.result import RunResult, WorkerResult, run_result
from millstream.runtime.worker import WorkerPlan

PAUSE_US = 100_000
"""Between two looks at what is asked of a run that waits."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: with a result, or with the error that its driver raises."""

    result: RunResult | None
    error: BaseException | None


class WorkerPool(Protocol):
    """The processes that a run's workers live in."""

    def workers(
        self, plans: Sequence[WorkerPlan], failed: int | None, on_wait: Callable[[str], None]
    ) -> list[RemoteWorker]:
        """Return a worker for each plan, ready to begin.

        Parameters
        ----------
        failed
            The worker whose process is not to be used again.
        on_wait
            Called several times a second, while there is something to wait for, with what that
            is; what it raises is passed on.

        Raises
        ------
        ResourcesError
            When there was no room for them in time.
        """
        ...

    def close(self) -> None:
        """End all processes."""
        ...


class Attempts:
    """Runs a job in the processes of a pool.

    Parameters
    ----------
    compile_for, log, options
        The job.
    host
        What the processes are, for who looks at the job.
    pool
        Where the workers are.
    patience, strategy
        When a worker is given up, and how often an attempt is followed by another.
    """

    def __init__(
        self,
        compile_for: Compiler,
        log: Log,
        options: RunOptions,
        *,
        host: str,
        pool: WorkerPool,
        patience: Patience,
        strategy: RestartStrategy,
    ) -> None:
        self._compile_for = compile_for
        self._log = log
        self._options = options
        self._host = host
        self._pool = pool
        self._patience = patience
        self._restarts = Restarts(strategy)
        self._publisher: RunPublisher | None = None
        self._before: Coordinator | None = None
        """Of the attempt before."""
        self._workers: list[WorkerResult] = []
        self._failures = 0
        self._failed_worker: int | None = None

    def run(self) -> Outcome:
        """Run to the end, and end the processes."""
        try:
            return self._run()
        except BaseException as error:
            return Outcome(None, portable(error))
        finally:
            self._pool.close()

    def _run(self) -> Outcome:
        while True:
            try:
                return self._attempted()
            except BaseException as error:
                outcome = self._failed(error)
                if outcome is not None:
                    return outcome

    def _attempted(self) -> Outcome:
        """Run one attempt to its end."""
        coordinator = Coordinator(self._compile_for, self._log, self._options)
        publisher = self._publisher = self._publisher or self._new_publisher(coordinator)
        with suppress(_StoppedEarlyError):
            self._workers += self._run_attempt(coordinator, publisher)
        if coordinator.moves_on and not coordinator.stopping:
            return self._attempted()
        publisher.over(JobState.FINISHED if coordinator.finished else JobState.STOPPED)
        return Outcome(self._result(self._workers, coordinator, publisher), None)

    def _run_attempt(self, coordinator: Coordinator, publisher: RunPublisher) -> list[WorkerResult]:
        """Run one attempt; what it left undecided is decided when it failed."""
        # One that was cut off may have been replaced: it must not fence who goes on in its place.
        if self._before is not None:
            self._before.check_present()
        publisher.starts(coordinator)
        plans = coordinator.start()
        self._before = coordinator
        if coordinator.finished:
            return []  # an earlier process of this run committed its end and died

        def on_wait(reason: str) -> None:
            coordinator.check_present()
            publisher.waits(reason)
            if coordinator.stopping:
                raise _StoppedEarlyError

        fleet: RemoteFleet | None = None
        try:
            workers = self._pool.workers(plans, self._failed_worker, on_wait)
            fleet = RemoteFleet(workers, self._log.clock, self._patience)
            fleet.start()
            publisher.attempt(coordinator, fleet.statuses)
            drive(coordinator, fleet, self._log.clock, publisher.on_turn)
            return fleet.results(complete=not coordinator.durable)
        finally:
            if fleet is not None:
                fleet.abandon()
            coordinator.close()

    def _failed(self, error: BaseException) -> Outcome | None:
        """Return how the run ended with this error; `None`: another attempt is to follow."""
        publisher, clock = self._publisher, self._log.clock
        delay_us = self._restarts.on_failure(error, clock.monotonic_us())
        if publisher is None or delay_us is None:
            if publisher is not None:
                cancelled = isinstance(error, JobCancelledError)
                publisher.over(JobState.CANCELLED if cancelled else JobState.FAILED, error)
            return Outcome(None, portable(error))
        self._failures += 1
        self._failed_worker = getattr(error, "worker", None)
        publisher.over(JobState.RESTARTING, error)
        try:
            until_us = clock.monotonic_us() + delay_us
            while (left_us := until_us - clock.monotonic_us()) > 0:
                publisher.on_turn(clock.monotonic_us())
                clock.sleep_us(min(left_us, PAUSE_US))
        except JobCancelledError as cancelled_error:
            return self._failed(cancelled_error)
        return None

    def _new_publisher(self, coordinator: Coordinator) -> RunPublisher:
        return RunPublisher(
            self._log,
            coordinator.graph.name,
            self._options.run,
            host=self._host,
            parallelism=coordinator.graph.parallelism,
            on_status=None,
            visible=coordinator.durable,
        )

    def _result(
        self, workers: list[WorkerResult], coordinator: Coordinator, publisher: RunPublisher
    ) -> RunResult:
        return run_result(
            workers,
            checkpoints=publisher.record.checkpoints,
            restored=coordinator.restored,
            finished=coordinator.finished,
            restarts=self._failures,
        )


class _StoppedEarlyError(Exception):
    """Raised where a run that waits for its processes was asked to stop."""


def portable(error: BaseException) -> BaseException:
    """Return an error that another process can read."""
    if isinstance(error, MillstreamError):
        return error
    return JobError(f"{type(error).__name__}: {error}")
