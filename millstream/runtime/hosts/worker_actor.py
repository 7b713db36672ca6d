"""A worker as a process of its own: what its coordinator calls, however often it calls.

    attempt 1: prepare ─▶ begin ─▶ poll … ─▶ attempt 2: prepare ─▶ begin ─▶ poll … ─▶ finish

Calls may be carried out twice, late, or although they raised. So each names its attempt, and
commands and reports are numbered: a command is obeyed once, a report is repeated until its
number comes back.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from millstream.errors import ExchangeError, JobError, OptionError
from millstream.log import Log
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.hosts.drive import job_error
from millstream.runtime.hosts.flight import FlightExchange
from millstream.runtime.hosts.wake import Wake
from millstream.runtime.hosts.worker_thread import WorkerFailed, WorkerThread
from millstream.runtime.messages import Command, Report
from millstream.runtime.result import WorkerResult
from millstream.runtime.worker import WorkerPlan

Numbered = tuple[int, Report | WorkerFailed]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says when it is polled.

    Parameters
    ----------
    reports
        Those whose numbers did not come back yet.
    turns
        How often its thread came round.
    """

    reports: tuple[Numbered, ...]
    status: WorkerStatus
    turns: int


class WorkerProcess:
    """One worker of an attempt, with its threads and its end of the exchange.

    Parameters
    ----------
    plan
        What it does.
    log_path
        The log, which this process must reach under the same path.
    token
        The attempt's secret.
    host
        The address that the other workers reach this process at.
    """

    def __init__(self, plan: WorkerPlan, log_path: str, token: str, host: str) -> None:
        if not os.path.isdir(log_path):
            message = (
                f"worker {plan.worker} on {host} does not see the log {log_path!r}: a job on "
                "several machines needs its log on a file system that all of them share"
            )
            raise OptionError(message)
        self._plan = plan
        self._host = host
        self._log_path = log_path
        self._waiting: deque[Numbered] = deque()
        self._something = threading.Condition()
        self._number = 0
        self._obeyed = 0
        self._wake = Wake(f"{plan.graph.name} {plan.worker}")
        self._thread: WorkerThread | None = None
        self._exchange = FlightExchange(
            job=plan.graph.name,
            attempt=plan.writer.epoch,
            worker=plan.worker,
            token=token,
            limit_bytes=plan.options.channel_bytes,
            wake=self._wake.set,
            on_failure=self._on_failure,
            host=host,
        )

    def location(self) -> str:
        """Return where the other workers send to."""
        return self._exchange.location

    def begin(self, locations: Sequence[str]) -> None:
        """Connect to the other workers and start; does nothing the second time."""
        if self._thread is not None:
            return
        self._exchange.connect(locations)
        self._thread = WorkerThread(
            self._plan,
            open_log=lambda: Log(self._log_path),
            channels=self._exchange,
            wake=self._wake,
            post=self._post,
        )
        self._thread.start()

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        """Obey commands that are new, and return reports that are, waiting a while for some.

        Parameters
        ----------
        received
            The number of the last report that arrived.
        commands
            Numbered; those with a number that was obeyed are left out.
        """
        thread = self._thread
        assert thread is not None, "polled before it began"
        for number, command in commands:
            if number > self._obeyed:
                self._obeyed = number
                thread.command(command)
        with self._something:
            while self._waiting and self._waiting[0][0] <= received:
                self._waiting.popleft()
            if not self._waiting:
                self._something.wait(wait_s)
            reports = tuple(self._waiting)
        status = replace(thread.status, pid=os.getpid(), node=self._host)
        return Answer(reports, status, thread.turns)

    def close(self) -> None:
        """Stop everything, whatever it came to; the process can hold another worker then."""
        self._exchange.closing = True
        if self._thread is not None:
            self._thread.stop()
            self._thread.join()
        self._exchange.close()

    def finish(self) -> WorkerResult | None:
        """Stop, and return what the worker came to."""
        thread = self._thread
        if thread is None:
            return None
        # The streams are not closed: whoever closes first would wait for the others, and all
        # of them end with their processes.
        self._exchange.closing = True
        thread.stop()
        thread.join()
        result = thread.result
        if result is None:
            return None
        return replace(result, status=replace(result.status, pid=os.getpid(), node=self._host))

    def _on_failure(self, error: ExchangeError) -> None:
        self._post(WorkerFailed(self._plan.worker, error))

    def _post(self, report: Report | WorkerFailed) -> None:
        if isinstance(report, WorkerFailed):
            # As an error that another process can read, whatever was raised.
            report = WorkerFailed(report.worker, job_error(report))
        with self._something:
            self._number += 1
            self._waiting.append((self._number, report))
            self._something.notify_all()


class WorkerHost:
    """What a process does for its coordinator: hold the worker of one attempt after another.

    Calls of an attempt that is over are refused: one of them may come late, and its commands
    and numbers mean nothing to the worker that is there now.

    Parameters
    ----------
    host
        The address that other workers reach this process at.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._attempt = 0
        self._process: WorkerProcess | None = None
        self._preparing = threading.Lock()

    def prepare(self, attempt: int, plan: WorkerPlan, log_path: str, token: str) -> str:
        """Become the worker of a plan, and return where the other workers send to.

        Parameters
        ----------
        attempt
            Counted by the coordinator; the second call with the same one changes nothing.
        """
        with self._preparing:
            if attempt < self._attempt:
                raise self._late(attempt)
            if attempt > self._attempt:
                before, self._process, self._attempt = self._process, None, attempt
                if before is not None:
                    before.close()
            if self._process is None:
                self._process = WorkerProcess(plan, log_path, token, self._host)
            return self._process.location()

    def begin(self, attempt: int, locations: Sequence[str]) -> None:
        """Connect to the other workers and start."""
        self._of(attempt).begin(locations)

    def poll(
        self, attempt: int, received: int, commands: Sequence[tuple[int, Command]], wait_s: float
    ) -> Answer:
        """Obey commands and return reports."""
        return self._of(attempt).poll(received, commands, wait_s)

    def finish(self, attempt: int) -> WorkerResult | None:
        """Stop, and return what the worker came to."""
        return self._of(attempt).finish()

    def _of(self, attempt: int) -> WorkerProcess:
        process = self._process
        if attempt != self._attempt or process is None:
            raise self._late(attempt)
        return process

    def _late(self, attempt: int) -> JobError:
        message = f"a call of attempt {attempt} came in attempt {self._attempt}"
        return JobError(message)
