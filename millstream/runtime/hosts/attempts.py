"""A run in other processes: attempts, one after another, until it is over.

attempt 1 ── a worker dies ──▶ decide what is open ── delay ──▶ attempt 2 ── … ──▶ outcome
(workers that live are used again)
"""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: with a result, or with the error that its driver raises."""

    result: RunResult | None
    error: BaseException | None


class WorkerPool(Protocol):
    """The processes that a run's workers live in."""

    def workers(self, plans: Sequence[WorkerPlan], failed: int | None) -> list[RemoteWorker]:
        """Return a worker for each plan, ready to begin.

        Parameters
        ----------
        failed
            The worker whose process is not to be used again.
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
        publisher: RunPublisher | None = None
        while True:
            coordinator = Coordinator(self._compile_for, self._log, self._options)
            publisher = publisher or self._publisher(coordinator)
            try:
                workers = self._run_attempt(coordinator, publisher)
            except BaseException as error:
                delay_us = self._restarts.on_failure(error, self._log.clock.monotonic_us())
                if delay_us is None:
                    cancelled = isinstance(error, JobCancelledError)
                    publisher.over(JobState.CANCELLED if cancelled else JobState.FAILED, error)
                    return Outcome(None, portable(error))
                self._failures += 1
                self._failed_worker = getattr(error, "worker", None)
                publisher.over(JobState.RESTARTING, error)
                self._log.clock.sleep_us(delay_us)
                continue
            publisher.over(JobState.FINISHED if coordinator.finished else JobState.STOPPED)
            return Outcome(self._result(workers, coordinator, publisher), None)

    def _run_attempt(self, coordinator: Coordinator, publisher: RunPublisher) -> list[WorkerResult]:
        """Run one attempt to its end; what it left undecided is decided when it failed."""
        plans = coordinator.start()
        if coordinator.finished:
            return []  # an earlier process of this run committed its end and died
        fleet: RemoteFleet | None = None
        try:
            workers = self._pool.workers(plans, self._failed_worker)
            fleet = RemoteFleet(workers, self._log.clock, self._patience)
            fleet.start()
            publisher.attempt(coordinator, fleet.statuses)
            drive(coordinator, fleet, self._log.clock, publisher.on_turn)
            return fleet.results()
        finally:
            if fleet is not None:
                fleet.abandon()
            coordinator.close()

    def _publisher(self, coordinator: Coordinator) -> RunPublisher:
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


def portable(error: BaseException) -> BaseException:
    """Return an error that another process can read."""
    if isinstance(error, MillstreamError):
        return error
    return JobError(f"{type(error).__name__}: {error}")
