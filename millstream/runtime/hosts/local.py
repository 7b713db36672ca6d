"""The local host: a thread a worker in this process, channels in memory, for scripts and notebooks.

caller's thread: coordinator ── commands ──▶ worker threads ──▶ checkpoint threads
                      ▲ ◀───────────────── reports ──────────────────┘
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from millstream.errors import JobCancelledError, JobError, LogError
from millstream.log import Log
from millstream.reality import require_reality
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.attempt import Compiler
from millstream.runtime.channels import Inlet, Outlet
from millstream.runtime.control import JobState
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.handle import JobHandle
from millstream.runtime.hosts.drive import drive, job_error
from millstream.runtime.hosts.memory_channel import MemoryChannel
from millstream.runtime.hosts.publisher import OnStatus, RunPublisher
from millstream.runtime.hosts.wake import Wake
from millstream.runtime.hosts.worker_thread import WorkerFailed, WorkerThread
from millstream.runtime.messages import Command, Report
from millstream.runtime.options import RunOptions
from millstream.runtime.result import RunResult, WorkerResult, run_result
from millstream.runtime.worker import WorkerPlan


class _Exchange:
    """All channels of an attempt; made as they are first asked for."""

    def __init__(self, limit_bytes: int, wakes: Sequence[Wake]) -> None:
        self._limit_bytes = limit_bytes
        self._wakes = wakes
        self._lock = threading.Lock()
        self._channels: dict[tuple[str, int, int], MemoryChannel] = {}

    def channel(self, exchange: str, sender: int, receiver: int) -> MemoryChannel:
        with self._lock:
            key = exchange, sender, receiver
            if key not in self._channels:
                self._channels[key] = MemoryChannel(
                    self._limit_bytes, self._wakes[sender].set, self._wakes[receiver].set
                )
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


class _Threads:
    """The worker threads of one attempt, and the queue on which they report."""

    def __init__(self, log: Log, options: RunOptions, plans: Sequence[WorkerPlan]) -> None:
        self._log = log
        self._reports: queue.SimpleQueue[Report | WorkerFailed] = queue.SimpleQueue()
        wakes = [Wake(f"{each.graph.name} {each.worker}") for each in plans]
        exchange = _Exchange(options.channel_bytes, wakes)
        self.workers = [
            WorkerThread(
                plan,
                open_log=self._open_log,
                channels=_WorkerChannels(exchange, plan.worker),
                wake=wake,
                post=self._reports.put,
            )
            for plan, wake in zip(plans, wakes, strict=True)
        ]

    def command(self, command: Command) -> None:
        """Hand a command to every worker."""
        for each in self.workers:
            each.command(command)

    def next_report(self, timeout_s: float) -> Report | WorkerFailed | None:
        """Return the next report, or `None`: none came in time."""
        try:
            return self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def statuses(self) -> list[WorkerStatus]:
        """Return each worker's newest status."""
        return [each.status for each in self.workers]

    def start(self) -> None:
        """Start the threads."""
        for each in self.workers:
            each.start()

    def end(self) -> None:
        """Stop the threads and wait for them."""
        for each in self.workers:
            each.stop()
        for each in self.workers:
            each.join()

    def results(self, *, complete: bool) -> list[WorkerResult]:
        """Return what the workers said at their end.

        Parameters
        ----------
        complete
            Whether one that said nothing is an error: after a stop one may have failed on rows
            that are taken back.
        """
        while complete and (report := self.next_report(0)) is not None:
            if isinstance(report, WorkerFailed):
                raise job_error(report)
        silent = [each.index for each in self.workers if each.result is None]
        if complete and silent:
            message = f"worker {silent[0]} did not end when it was told to; its rows are missing"
            raise JobError(message)
        return [each.result for each in self.workers if each.result is not None]

    def _open_log(self) -> Log:
        return Log(self._log.path, storage=self._log.storage, clock=self._log.clock)


def run_job(
    compile_for: Compiler,
    log: Log,
    options: RunOptions,
    on_status: OnStatus | None = None,
) -> RunResult:
    """Run a job in this process and return when it has ended.

    An interrupt (Ctrl-C) or a termination ends it after one more checkpoint; a second one at
    once.

    Parameters
    ----------
    compile_for
        Compiles the job for a parallelism.
    log
        What it reads and writes.
    options
        Of the run.
    on_status
        Called a few times a second, and once at the end, with the run's record.

    Raises
    ------
    CheckpointError
        When the newest checkpoint cannot be gone on from.
    JobError
        When the job failed; what was not committed is taken back.
    JobCancelledError
        When it was asked to end at once.
    FencedError
        When another run of the same job began.
    """
    require_reality("the local host")
    coordinator = Coordinator(compile_for, log, options)
    plans = coordinator.start()
    publisher = RunPublisher(
        log,
        coordinator.graph.name,
        options.run,
        host="local",
        parallelism=coordinator.graph.parallelism,
        on_status=on_status,
        visible=coordinator.durable,
    )
    restored, workers = coordinator.restored, _run_attempt(coordinator, plans, log, publisher)
    checkpoints = coordinator.checkpoints
    while coordinator.moves_on and not coordinator.stopping:
        coordinator = Coordinator(compile_for, log, options)
        workers += _run_attempt(coordinator, coordinator.start(), log, publisher)
        checkpoints += coordinator.checkpoints
    publisher.over(JobState.FINISHED if coordinator.finished else JobState.STOPPED)
    return run_result(
        workers, checkpoints=checkpoints, restored=restored, finished=coordinator.finished
    )


def _run_attempt(
    coordinator: Coordinator, plans: Sequence[WorkerPlan], log: Log, publisher: RunPublisher
) -> list[WorkerResult]:
    """Run one attempt to its end; it moves on where a topic got other partitions."""
    threads = _Threads(log, coordinator.options, plans)
    with stop_on_signal(coordinator.request_stop) as check_interrupted:

        def on_turn(now_us: int) -> None:
            check_interrupted()
            publisher.on_turn(now_us)

        try:
            threads.start()
            publisher.attempt(coordinator, threads.statuses)
            drive(coordinator, threads, log.clock, on_turn)
        except BaseException as error:
            # What made the run fail is to be told; a disk that refuses more is not.
            with suppress(LogError, OSError):
                _end(coordinator, threads)
            cancelled = isinstance(error, JobCancelledError)
            publisher.over(JobState.CANCELLED if cancelled else JobState.FAILED, error)
            raise
        _end(coordinator, threads)
    return threads.results(complete=coordinator.finished or coordinator.moves_on)


def submit_job(compile_for: Compiler, log: Log, options: RunOptions) -> JobHandle:
    """Run a job in a thread of this process, with which it ends; return a handle on it."""
    graph = compile_for(options.parallelism, {})
    own = Log(log.path, storage=log.storage, clock=log.clock)
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"millstream-{graph.name}")
    future = pool.submit(run_job, compile_for, own, options)
    pool.shutdown(wait=False)

    def ended() -> RunResult | None:
        return future.result() if future.done() else None

    return JobHandle(log, graph.name, options.run, "local", graph.parallelism, ended)


def _end(coordinator: Coordinator, threads: _Threads) -> None:
    """End the threads, then decide what they left undecided."""
    try:
        threads.end()
    finally:
        coordinator.close()


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Let a first interrupt or termination stop the job in good order, a second one at once.

    Yields a function that raises `KeyboardInterrupt` after a second one: Python's own exception
    could come in the middle of a commit. A third one, for a commit that hangs, raises anywhere.

    Only the main thread is told of signals; in another one nothing changes.
    """
    asked = 0

    def check() -> None:
        if asked > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return

    def on_signal(number: int, frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            stop()
        if asked > 2:
            raise KeyboardInterrupt

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield check
    finally:
        for number, handler in before.items():
            # `None`: it was not set by Python, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
