"""The workers of an attempt in other processes: polled, numbered, watched.

One thread a worker asks it again and again; there is at most one call on its way to each, so
that nothing queues up before a worker that is slow. A worker that is dead, does not answer in
time, or answers but stands still, is reported as failed. A stream that broke is mostly a
consequence: the others wait a moment for the cause.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from millstream.clock import Clock
from millstream.errors import ExchangeError, JobError
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.hosts.worker_actor import Answer
from millstream.runtime.hosts.worker_thread import WorkerFailed
from millstream.runtime.liveness import Liveness
from millstream.runtime.messages import Command, Report
from millstream.runtime.result import WorkerResult

POLL_S = 0.1
RETRY_PAUSE_US = 50_000
CAUSE_S = 2.0
"""How long, at most, a broken stream waits for the reason."""

T = TypeVar("T")


class WorkerUnreachableError(Exception):
    """Raised when a call did not get through, or its answer did not: it may have been obeyed."""


class WorkerDeadError(Exception):
    """Raised when a worker's process is gone; says why."""


class RemoteWorker(Protocol):
    """A worker in another process; every call may raise the two errors above."""

    @property
    def location(self) -> str:
        """Where the other workers send to."""
        ...

    def begin(self, locations: Sequence[str]) -> None:
        """Let it connect to the others and start."""
        ...

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        """Hand over commands and take reports; see `WorkerProcess.poll`."""
        ...

    def finish(self) -> WorkerResult | None:
        """Stop it and return what it came to."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the coordinator waits before it gives a worker up.

    Parameters
    ----------
    answer_s
        For an answer.
    advance_s
        For progress, while there is something to do.
    begin_s
        For a worker's first step: it reads its state before that.
    """

    answer_s: float = 5.0
    advance_s: float = 30.0
    begin_s: float = 600.0


class RemoteFleet:
    """The workers of one attempt.

    Parameters
    ----------
    workers
        In order.
    clock
        By which patience is measured.
    patience
        When a worker is given up.
    """

    def __init__(self, workers: Sequence[RemoteWorker], clock: Clock, patience: Patience) -> None:
        self._clock = clock
        self._patience = patience
        self._reports: queue.SimpleQueue[Report | WorkerFailed] = queue.SimpleQueue()
        self._pollers = [_Poller(index, worker, self) for index, worker in enumerate(workers)]
        self.closing = threading.Event()

    @property
    def clock(self) -> Clock:
        """By which patience is measured."""
        return self._clock

    @property
    def patience(self) -> Patience:
        """When a worker is given up."""
        return self._patience

    def start(self) -> None:
        """Connect the workers to each other and let them begin."""
        locations = [each.worker.location for each in self._pollers]
        for each in self._pollers:
            each.begin(locations)
        for each in self._pollers:
            each.start()

    def command(self, command: Command) -> None:
        """Hand a command to every worker."""
        for each in self._pollers:
            each.command(command)

    def next_report(self, timeout_s: float) -> Report | WorkerFailed | None:
        """Return the next report, or `None`: none came in time."""
        try:
            report = self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return None
        return self._cause(report) if _is_broken_stream(report) else report

    def post(self, report: Report | WorkerFailed) -> None:
        """Take a report from a poller."""
        self._reports.put(report)

    def statuses(self) -> list[WorkerStatus]:
        """Return each worker's newest status."""
        return [each.status for each in self._pollers]

    def results(self, *, complete: bool) -> list[WorkerResult]:
        """Stop the workers in good order and return what they came to.

        Parameters
        ----------
        complete
            Whether one that cannot be asked any more is an error: where rows are kept in its
            memory. Else all that it did is committed, and only its counters are missing.
        """
        self.closing.set()
        for each in self._pollers:
            each.join()
        results = []
        for each in self._pollers:
            try:
                results.append(each.finish())
            except JobError:
                if complete:
                    raise
                continue
            if results[-1] is None and complete:
                message = f"worker {each.index} could not give its result at the end"
                raise JobError(message, worker=each.index)
        return [each for each in results if each is not None]

    def abandon(self) -> None:
        """Poll the workers no more; what they still write is refused by the log."""
        self.closing.set()

    def _cause(self, broken: Report | WorkerFailed) -> Report | WorkerFailed:
        """Return the failure that broke a stream, if one is reported soon."""
        until_us = self._clock.monotonic_us() + int(CAUSE_S * 1e6)
        while (left_us := until_us - self._clock.monotonic_us()) > 0:
            try:
                report = self._reports.get(timeout=left_us / 1e6)
            except queue.Empty:
                break
            if isinstance(report, WorkerFailed) and not _is_broken_stream(report):
                return report
        return broken


def _is_broken_stream(report: Report | WorkerFailed) -> bool:
    return isinstance(report, WorkerFailed) and isinstance(report.error, ExchangeError)


class _Poller:
    """Asks one worker for its reports until the attempt ends or the worker fails."""

    def __init__(self, index: int, worker: RemoteWorker, fleet: RemoteFleet) -> None:
        self.index = index
        self.worker = worker
        self.status = WorkerStatus(index)
        self._fleet = fleet
        self._commands: deque[tuple[int, Command]] = deque()
        self._numbers = 0
        self._received = 0
        patience = fleet.patience
        self._liveness = Liveness(int(patience.advance_s * 1e6), int(patience.begin_s * 1e6))
        self._thread = threading.Thread(target=self._run, name=f"poll-{index}", daemon=True)

    def begin(self, locations: Sequence[str]) -> None:
        self._insist(lambda: self.worker.begin(locations))

    def finish(self) -> WorkerResult | None:
        return self._insist(self.worker.finish)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(self._fleet.patience.answer_s + 1)

    def command(self, command: Command) -> None:
        self._numbers += 1
        self._commands.append((self._numbers, command))

    def _run(self) -> None:
        fleet = self._fleet
        answered_us = fleet.clock.monotonic_us()
        while not fleet.closing.is_set():
            commands = tuple(self._commands)
            try:
                answer = self.worker.poll(self._received, commands, POLL_S)
            except WorkerUnreachableError as error:
                silent = self._too_silent(answered_us, error)
                if silent is not None:
                    self._fail(silent)
                    return
                fleet.clock.sleep_us(RETRY_PAUSE_US)
                continue
            except WorkerDeadError as error:
                self._fail(f"died: {error}")
                return
            except Exception as error:
                self._fail(f"cannot be asked: {error}")
                return
            answered_us = fleet.clock.monotonic_us()
            for _ in commands:
                self._commands.popleft()
            if self._take(answer, answered_us):
                return

    def _take(self, answer: Answer, now_us: int) -> bool:
        """Take an answer; return `True` iff the worker is to be polled no more."""
        self.status = answer.status
        for number, report in answer.reports:
            if number <= self._received:
                continue  # repeated: its number had not come back yet
            self._received = number
            self._fleet.post(report)
        reason = self._liveness.stands_still(answer.turns, answer.status, now_us)
        if reason is not None:
            patience = self._fleet.patience
            waited_s = patience.advance_s if answer.turns else patience.begin_s
            self._fail(f"answers but {reason} for {waited_s:g} s")
        return reason is not None

    def _insist(self, call: Callable[[], T]) -> T:
        """Call until it gets through; it may be carried out more than once."""
        clock = self._fleet.clock
        start_us = clock.monotonic_us()
        while True:
            try:
                return call()
            except WorkerUnreachableError as error:
                silent = self._too_silent(start_us, error)
                if silent is not None:
                    raise self._error(silent) from error
                clock.sleep_us(RETRY_PAUSE_US)
            except WorkerDeadError as error:
                reason = f"died: {error}"
                raise self._error(reason) from error

    def _too_silent(self, since_us: int, error: Exception) -> str | None:
        silent_us = self._fleet.clock.monotonic_us() - since_us
        if silent_us < self._fleet.patience.answer_s * 1e6:
            return None
        return f"did not answer for {silent_us / 1e6:.1f} s ({error})"

    def _fail(self, what: str) -> None:
        if not self._fleet.closing.is_set():
            self._fleet.post(WorkerFailed(self.index, self._error(what)))

    def _error(self, what: str) -> JobError:
        status = self.status
        where = f" (process {status.pid} on {status.node})" if status.pid else ""
        return JobError(f"worker {self.index}{where} {what}", worker=self.index)
