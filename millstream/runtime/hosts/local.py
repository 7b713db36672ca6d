"""The local host: a thread a worker in this process, channels in memory, for scripts and notebooks.

caller's thread: coordinator ── commands ──▶ worker threads ──▶ checkpoint threads
                      ▲ ◀───────────────── reports ──────────────────┘
"""

from __future__ import annotations

import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from millstream.errors import JobError, MillstreamError
from millstream.log import Log
from millstream.operators.operator import OperatorCounters
from millstream.reality import require_reality
from millstream.runtime.attempt import Compiler
from millstream.runtime.channels import Inlet, Outlet
from millstream.runtime.checkpoint import persist
from millstream.runtime.coordinator import Coordinator, Phase
from millstream.runtime.messages import (
    CheckpointTaken,
    Command,
    Message,
    Report,
)
from millstream.runtime.options import RunOptions
from millstream.runtime.worker import Worker, WorkerPlan, WorkerStatus

PAUSE_FIRST_S = 0.000_2
PAUSE_MAX_S = 0.005
"""How long a worker waits for new rows; what other workers send wakes it at once."""
STATUS_INTERVAL_US = 200_000
JOIN_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    Parameters
    ----------
    checkpoints
        Completed in this run.
    restored
        Number of the checkpoint that it went on from; `None`: it began anew.
    finished
        `False` where it was stopped before its end.
    rows_read, rows_written
        Over all sources and all sinks, in this run.
    counters
        What each operator did, by its name, over all workers.
    tables
        Rows that were kept in memory, by the name of the result.
    """

    checkpoints: int
    restored: int | None
    finished: bool
    rows_read: int
    rows_written: int
    counters: Mapping[str, OperatorCounters]
    tables: Mapping[str, pa.Table]


@dataclass(frozen=True, slots=True)
class _Failed:
    """A worker's thread ended with an error."""

    worker: int
    error: BaseException


class _Channel:
    """Messages from one worker to another, bounded in bytes; one thread at each end."""

    def __init__(self, limit_bytes: int, wake_sender: Callable[[], None]) -> None:
        self._messages: deque[Message] = deque()
        self._limit_bytes = limit_bytes
        # Each is written by one end only, so that no lock is needed.
        self._sent_bytes = 0
        self._taken_bytes = 0
        self._wake_sender = wake_sender
        self.wake_receiver: Callable[[], None] = lambda: None

    def has_room(self) -> bool:
        return self._sent_bytes - self._taken_bytes < self._limit_bytes

    def send(self, message: Message) -> None:
        self._sent_bytes += message.size_bytes
        self._messages.append(message)
        self.wake_receiver()

    def peek(self) -> Message | None:
        return self._messages[0] if self._messages else None

    def take(self) -> Message:
        message = self._messages.popleft()
        had_room = self.has_room()
        self._taken_bytes += message.size_bytes
        if not had_room:
            self._wake_sender()
        return message


class _Exchange:
    """All channels of an attempt; made as they are first asked for."""

    def __init__(self, limit_bytes: int, wakes: Sequence[threading.Event]) -> None:
        self._limit_bytes = limit_bytes
        self._wakes = wakes
        self._lock = threading.Lock()
        self._channels: dict[tuple[str, int, int], _Channel] = {}

    def channel(self, exchange: str, sender: int, receiver: int) -> _Channel:
        with self._lock:
            key = exchange, sender, receiver
            if key not in self._channels:
                made = _Channel(self._limit_bytes, self._wakes[sender].set)
                made.wake_receiver = self._wakes[receiver].set
                self._channels[key] = made
            return self._channels[key]


class _WorkerChannels:
    """The channels of one worker."""

    def __init__(self, exchange: _Exchange, worker: int) -> None:
        self._exchange = exchange
        self._worker = worker

    def outlet(self, exchange: str, receiver: int) -> Outlet:
        return self._exchange.channel(exchange, self._worker, receiver)

    def inlet(self, exchange: str, sender: int) -> Inlet:
        return self._exchange.channel(exchange, sender, self._worker)


class _WorkerThread:
    """Steps one worker until it is told to stop."""

    def __init__(
        self, plan: WorkerPlan, host: _Attempt, exchange: _Exchange, wake: threading.Event
    ) -> None:
        self.index = plan.worker
        self.status = WorkerStatus(plan.worker, 0, 0, None, 0)
        self.counters: dict[str, OperatorCounters] = {}
        self.tables: dict[str, pa.Table] = {}
        self._plan = plan
        self._host = host
        self._channels = _WorkerChannels(exchange, plan.worker)
        self._wake = wake
        self._commands: deque[Command] = deque()
        self._status_due_us = 0
        self.thread = threading.Thread(
            target=self._run, name=f"millstream-{plan.graph.name}-{plan.worker}", daemon=True
        )

    def command(self, command: Command) -> None:
        self._commands.append(command)
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        try:
            log = self._host.open_log()
            worker = Worker(self._plan, log, self._channels)
            self._loop(worker)
            self.status = worker.status()
            self.counters = worker.counters()
            self.tables = worker.tables()
        except BaseException as error:
            self._host.post(_Failed(self.index, error))

    def _loop(self, worker: Worker) -> None:
        pause_s = PAUSE_FIRST_S
        while not self._host.stop.is_set():
            self._wake.clear()
            while self._commands:
                worker.command(self._commands.popleft())
            progressed = worker.step()
            for report in worker.take_reports():
                self._host.take(report)
            now_us = self._host.clock.monotonic_us()
            if now_us >= self._status_due_us:
                self.status = worker.status()
                self._status_due_us = now_us + STATUS_INTERVAL_US
            if progressed:
                pause_s = PAUSE_FIRST_S
            else:
                self._wake.wait(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)


class _Attempt:
    """The threads of one attempt, and the queue on which they report.

    Parameters
    ----------
    log
        The job's; threads open their own.
    coordinator
        Of the attempt.
    """

    def __init__(self, log: Log, coordinator: Coordinator) -> None:
        self.clock = log.clock
        self.stop = threading.Event()
        self._log = log
        self._coordinator = coordinator
        self._reports: queue.SimpleQueue[Report | _Failed] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(
            max_workers=coordinator.graph.parallelism, thread_name_prefix="millstream-checkpoint"
        )
        self._own = threading.local()
        self._workers: list[_WorkerThread] = []

    def open_log(self) -> Log:
        """Return a handle of the calling thread's own on the job's log."""
        if not hasattr(self._own, "log"):
            log = self._log
            self._own.log = Log(log.path, storage=log.storage, clock=log.clock)
        return self._own.log

    def post(self, report: Report | _Failed) -> None:
        """Hand a report to the coordinator's thread."""
        self._reports.put(report)

    def take(self, report: Report | CheckpointTaken) -> None:
        """Take what a worker reports; its part of a checkpoint is made durable beside it."""
        if isinstance(report, CheckpointTaken):
            self._pool.submit(self._persist, report).add_done_callback(self._persisted(report))
        else:
            self.post(report)

    def statuses(self) -> list[WorkerStatus]:
        """Return each worker's newest status."""
        return [each.status for each in self._workers]

    def start(self, plans: Sequence[WorkerPlan]) -> None:
        """Start a thread a worker."""
        wakes = [threading.Event() for _ in plans]
        exchange = _Exchange(self._coordinator.options.channel_bytes, wakes)
        self._workers = [
            _WorkerThread(plan, self, exchange, wake)
            for plan, wake in zip(plans, wakes, strict=True)
        ]
        for each in self._workers:
            each.thread.start()

    def drive(self, on_status: Callable[[Sequence[WorkerStatus]], None] | None) -> None:
        """Coordinate until the attempt is done, or raise what made a worker fail."""
        coordinator = self._coordinator
        status_due_us = 0
        while True:
            now_us = self.clock.monotonic_us()
            for command in coordinator.tick(now_us):
                for worker in self._workers:
                    worker.command(command)
            if coordinator.phase is Phase.DONE:
                return
            if on_status is not None and now_us >= status_due_us:
                on_status(self.statuses())
                status_due_us = now_us + STATUS_INTERVAL_US
            due_us = coordinator.due_us()
            wait_us = STATUS_INTERVAL_US if due_us is None else max(due_us - now_us, 0)
            try:
                report = self._reports.get(timeout=min(wait_us, STATUS_INTERVAL_US) / 1e6)
            except queue.Empty:
                continue
            if isinstance(report, _Failed):
                raise _job_error(report)
            coordinator.on_report(report)

    def end(self) -> None:
        """Stop the threads and wait for them."""
        self.stop.set()
        for each in self._workers:
            each.wake()
        for each in self._workers:
            each.thread.join(JOIN_TIMEOUT_S)
        self._pool.shutdown(wait=True)

    def result(self) -> RunResult:
        """Return what the run came to, after `end`."""
        coordinator = self._coordinator
        tables: dict[str, list[pa.Table]] = {}
        counters: dict[str, OperatorCounters] = {}
        for worker in self._workers:
            for name, table in worker.tables.items():
                tables.setdefault(name, []).append(table)
            for name, counted in worker.counters.items():
                counters[name] = _sum(counters.get(name), counted)
        statuses = self.statuses()
        return RunResult(
            checkpoints=coordinator.checkpoints,
            restored=coordinator.restored,
            finished=not coordinator.stopping,
            rows_read=sum(each.rows_read for each in statuses),
            rows_written=sum(each.rows_written for each in statuses),
            counters=counters,
            tables={name: pa.concat_tables(parts) for name, parts in tables.items()},
        )

    def _persist(self, taken: CheckpointTaken) -> Report:
        coordinator = self._coordinator
        return persist(taken, coordinator.graph.name, coordinator.epoch, self.open_log())

    def _persisted(self, taken: CheckpointTaken) -> Callable[[Future[Report]], None]:
        def done(future: Future[Report]) -> None:
            error = future.exception()
            self.post(future.result() if error is None else _Failed(taken.worker, error))

        return done


def run_job(
    compile_for: Compiler,
    log: Log,
    options: RunOptions,
    on_status: Callable[[Sequence[WorkerStatus]], None] | None = None,
) -> RunResult:
    """Run a job in this process and return when it has ended.

    An interrupt (Ctrl-C) ends it after one more checkpoint; a second one at once.

    Parameters
    ----------
    compile_for
        Compiles the job for a parallelism.
    log
        What it reads and writes.
    options
        Of the run.
    on_status
        Called a few times a second, and once at the end, with the workers' statuses.

    Raises
    ------
    CheckpointError
        When the newest checkpoint cannot be gone on from.
    JobError
        When the job failed; what was not committed is taken back.
    FencedError
        When another run of the same job began.
    """
    require_reality("the local host")
    coordinator = Coordinator(compile_for, log, options)
    plans = coordinator.start()
    attempt = _Attempt(log, coordinator)
    try:
        attempt.start(plans)
        with _stop_on_signal(coordinator):
            attempt.drive(on_status)
    finally:
        attempt.end()
        coordinator.close()
    if on_status is not None:
        on_status(attempt.statuses())
    return attempt.result()


@contextmanager
def _stop_on_signal(coordinator: Coordinator) -> Iterator[None]:
    """Let a first interrupt or termination stop the job in good order, a second one at once.

    Only the main thread is told of signals; in another one nothing changes. A handler instead
    of Python's exception, which could come in the middle of a commit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        if coordinator.stopping:
            raise KeyboardInterrupt
        coordinator.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _job_error(failed: _Failed) -> BaseException:
    error = failed.error
    if isinstance(error, MillstreamError) or not isinstance(error, Exception):
        return error
    message = f"worker {failed.worker} failed: {type(error).__name__}: {error}"
    wrapped = JobError(message)
    wrapped.__cause__ = error
    return wrapped


def _sum(total: OperatorCounters | None, more: OperatorCounters) -> OperatorCounters:
    if total is None:
        return replace(more)
    return OperatorCounters(
        *(
            getattr(total, name) + getattr(more, name)
            for name in OperatorCounters.__dataclass_fields__
        )
    )
