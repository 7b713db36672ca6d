"""The workers of an attempt in other processes: polled, numbered, watched.

One thread a worker asks it again and again; there is at most one call on its way to each, so
that nothing queues up before a worker that is slow. A worker that is dead, does not answer in
time, or answers but stands still, is reported as failed.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from millstream.clock import Clock
from millstream.errors import JobError
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.hosts.worker_actor import Answer
from millstream.runtime.hosts.worker_thread import WorkerFailed
from millstream.runtime.liveness import Liveness
from millstream.runtime.messages import Command, Report
from millstream.runtime.result import WorkerResult

POLL_S = 0.1
RETRY_PAUSE_US = 50_000


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
    """

    answer_s: float = 5.0
    advance_s: float = 30.0


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
            each.worker.begin(locations)
        for each in self._pollers:
            each.start()

    def command(self, command: Command) -> None:
        """Hand a command to every worker."""
        for each in self._pollers:
            each.command(command)

    def next_report(self, timeout_s: float) -> Report | WorkerFailed | None:
        """Return the next report, or `None`: none came in time."""
        try:
            return self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def post(self, report: Report | WorkerFailed) -> None:
        """Take a report from a poller."""
        self._reports.put(report)

    def statuses(self) -> list[WorkerStatus]:
        """Return each worker's newest status."""
        return [each.status for each in self._pollers]

    def results(self) -> list[WorkerResult]:
        """Stop the workers in good order and return what they came to."""
        self.closing.set()
        for each in self._pollers:
            each.join()
        results = [each.worker.finish() for each in self._pollers]
        return [each for each in results if each is not None]

    def abandon(self) -> None:
        """Poll the workers no more; what they still write is refused by the log."""
        self.closing.set()


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
        self._liveness = Liveness(int(fleet.patience.advance_s * 1e6))
        self._thread = threading.Thread(target=self._run, name=f"poll-{index}", daemon=True)

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
            except WorkerDeadError as error:
                self._fail(f"died: {error}")
                return
            except WorkerUnreachableError as error:
                silent_us = fleet.clock.monotonic_us() - answered_us
                if silent_us >= fleet.patience.answer_s * 1e6:
                    self._fail(f"did not answer for {silent_us / 1e6:.1f} s ({error})")
                    return
                fleet.clock.sleep_us(RETRY_PAUSE_US)
                continue
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
        if self._liveness.stands_still(answer.turns, answer.status, now_us):
            self._fail(
                f"answers but has not advanced for {self._fleet.patience.advance_s:g} s "
                "while rows wait for it"
            )
            return True
        return False

    def _fail(self, what: str) -> None:
        if self._fleet.closing.is_set():
            return
        status = self.status
        where = f" (process {status.pid} on {status.node})" if status.pid else ""
        message = f"worker {self.index}{where} {what}"
        self._fleet.post(WorkerFailed(self.index, JobError(message, worker=self.index)))
