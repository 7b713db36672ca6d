"""A thread that steps one worker, and one beside it that makes its checkpoints durable."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from millstream.errors import SpillError
from millstream.log import Log
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.channels import Channels
from millstream.runtime.checkpoint import persist
from millstream.runtime.hosts.background_thread import BackgroundThread
from millstream.runtime.hosts.lookups import LookupLoop
from millstream.runtime.hosts.wake import Rest, Wake
from millstream.runtime.messages import CheckpointTaken, Command, Report
from millstream.runtime.options import RunOptions
from millstream.runtime.result import WorkerResult
from millstream.runtime.worker import Worker, WorkerPlan
from millstream.storage import Scratch
from millstream.storage_local.scratch import LocalScratch, default_scratch_directory

STATUS_INTERVAL_US = 200_000
REST_LEAST_US = 200
JOIN_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker's thread ended with an error."""

    worker: int
    error: BaseException


class WorkerThread:
    """Steps one worker until it is told to stop.

    Parameters
    ----------
    plan
        What the worker does.
    open_log
        Opens a log for the calling thread alone.
    channels
        To and from the other workers.
    wake
        Set when there may be something to do; the thread rests on it.
    post
        Takes what is to be reported to the coordinator; called from two threads.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        *,
        open_log: Callable[[], Log],
        channels: Channels,
        wake: Wake,
        post: Callable[[Report | WorkerFailed], None],
    ) -> None:
        self.index = plan.worker
        self.status = WorkerStatus(plan.worker)
        self.result: WorkerResult | None = None
        self.turns = 0
        """How often the thread looked for work: it stands still while the worker hangs."""
        self._plan = plan
        self._open_log = open_log
        self._channels = channels
        self._wake = wake
        self._post = post
        self._commands: deque[Command] = deque()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"checkpoint-{plan.worker}")
        self._pool_log: Log | None = None
        self._appends = BackgroundThread(f"append-{plan.worker}", wake.set)
        self._lookups = LookupLoop(f"lookups-{plan.worker}", wake.set)
        name = f"millstream-{plan.graph.name}-{plan.worker}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start stepping."""
        self._thread.start()

    def command(self, command: Command) -> None:
        """Hand a command to the worker."""
        self._commands.append(command)
        self._wake.set()

    def stop(self) -> None:
        """Tell the thread to end after the present step; `join` waits for it."""
        self._stop.set()
        self._wake.set()

    def join(self) -> None:
        """Wait for the thread's end; `result` is there then, unless the worker failed."""
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT_S)
        self._lookups.close()
        self._appends.close()
        self._pool.shutdown(wait=True)

    def _run(self) -> None:
        try:
            with closing_scratch(self._plan.options) as scratch:
                worker = Worker(
                    self._plan,
                    self._open_log(),
                    self._channels,
                    self._appends,
                    scratch,
                    self._lookups,
                )
                self._loop(worker)
                self.status = worker.status()
                self.result = WorkerResult(self.status, worker.counters(), worker.tables())
        except BaseException as error:
            self._post(WorkerFailed(self.index, error))

    def _loop(self, worker: Worker) -> None:
        clock, wake = worker.clock, self._wake
        rest = Rest(worker, wake)
        status_due_us = 0
        while not self._stop.is_set():
            self.turns += 1
            wake.clear()
            while self._commands:
                worker.command(self._commands.popleft())
            start_us = clock.monotonic_us()
            progressed = worker.step()
            for report in worker.take_reports():
                self._report(report)
            now_us = clock.monotonic_us()
            if now_us >= status_due_us:
                self.status = worker.status()
                status_due_us = now_us + STATUS_INTERVAL_US
            if progressed:
                rest.found_work(now_us)
            elif not self._stop.is_set():
                rest_us = min(status_due_us, worker.due_us()) - now_us
                rest.take(now_us, now_us - start_us, max(rest_us, REST_LEAST_US))
                worker.waited(clock.monotonic_us() - now_us)

    def _report(self, report: Report | CheckpointTaken) -> None:
        if isinstance(report, CheckpointTaken):
            self._pool.submit(self._persist, report).add_done_callback(self._persisted)
        else:
            self._post(report)

    def _persist(self, taken: CheckpointTaken) -> Report:
        if self._pool_log is None:
            self._pool_log = self._open_log()
        plan = self._plan
        return persist(taken, plan.graph.name, plan.writer.epoch, self._pool_log)

    def _persisted(self, future: Future[Report]) -> None:
        error = future.exception()
        if error is None:
            self._post(future.result())
        else:
            self._post(WorkerFailed(self.index, error))


@contextmanager
def closing_scratch(options: RunOptions) -> Iterator[Scratch | None]:
    """Give a worker scratch files, if its memory is limited, and remove them afterwards.

    Raises
    ------
    SpillError
        Where there can be none.
    """
    if options.memory_budget_bytes is None:
        yield None
        return
    directory = options.spill_directory or default_scratch_directory()
    try:
        scratch = LocalScratch(directory)
    except OSError as error:
        message = (
            f"there can be no scratch files for state beyond the memory budget in {directory!r}: "
            f"{error}; name another folder with spill_directory="
        )
        raise SpillError(message) from error
    try:
        yield scratch
    finally:
        scratch.close()
