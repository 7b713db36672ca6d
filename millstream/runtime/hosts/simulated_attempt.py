"""One attempt in a simulation: its processes, what travels between them, what can happen next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from millstream.clock import ManualClock
from millstream.errors import LogError
from millstream.log import Log
from millstream.runtime.attempt import Compiler
from millstream.runtime.background import Done
from millstream.runtime.channels import Inlet, Outlet
from millstream.runtime.checkpoint import persist
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.hosts.simulated_lookups import SimulatedLookups
from millstream.runtime.messages import Batch, CheckpointTaken, Command, Message, Report
from millstream.runtime.options import RunOptions
from millstream.runtime.worker import Worker
from millstream.storage_memory import MemoryDisk, MemoryStorage, SimulatedCrash
from millstream.storage_memory.scratch import MemoryScratch

Event = tuple[str, Callable[[], object]]
T = TypeVar("T")

APPENDS_WAITING_MAX = 3
"""A worker's background has room for no more appends."""


class _Channel:
    """Messages that were sent and may not have arrived yet; their order is kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting_bytes = 0
        self.sent: deque[Message] = deque()
        self._arrived: deque[Message] = deque()

    def has_room(self) -> bool:
        return self._waiting_bytes < self._limit_bytes

    def send(self, message: Message) -> None:
        self._waiting_bytes += message.size_bytes
        self.sent.append(message)

    def deliver(self) -> None:
        self._arrived.append(self.sent.popleft())

    def peek(self) -> Message | None:
        return self._arrived[0] if self._arrived else None

    def take(self) -> Message:
        message = self._arrived.popleft()
        self._waiting_bytes -= message.size_bytes
        return message

    def rows(self) -> int:
        waiting = [*self.sent, *self._arrived]
        return sum(each.rows.num_rows for each in waiting if isinstance(each, Batch))


class _Later(Generic[T]):
    """Work that was handed over, and what became of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._outcome: Done[T] | LogError | None = None

    def run(self) -> None:
        try:
            self._outcome = Done(self._work())
        except LogError as error:
            self._outcome = error

    def done(self) -> bool:
        return self._outcome is not None

    def result(self) -> T:
        assert self._outcome is not None, "nobody waits in a simulation"
        if isinstance(self._outcome, LogError):
            raise self._outcome
        return self._outcome.result()


class _Background:
    """What one worker handed over, to be done one after another, each as an event."""

    def __init__(self) -> None:
        self.waiting: deque[_Later[Any]] = deque()

    def has_room(self) -> bool:
        return len(self.waiting) < APPENDS_WAITING_MAX

    def submit(self, work: Callable[[], T], size_bytes: int = 0) -> _Later[T]:
        later = _Later(work)
        self.waiting.append(later)
        return later

    def run_next(self) -> None:
        try:
            self.waiting.popleft().run()
        except SimulatedCrash:
            self.waiting.clear()  # the process is dead: nothing of it goes on
            raise


class _WorkerChannels:
    """The channels of one worker."""

    def __init__(self, attempt: SimulatedAttempt, worker: int) -> None:
        self._attempt = attempt
        self._worker = worker

    def outlet(self, exchange: str, receiver: int) -> Outlet:
        return self._attempt.channel(exchange, self._worker, receiver)

    def inlet(self, exchange: str, sender: int) -> Inlet:
        return self._attempt.channel(exchange, sender, self._worker)


class SimulatedAttempt:
    """The coordinator and the workers of one attempt, each a process with its view of the disk.

    Parameters
    ----------
    number
        Names the processes.
    compile_for, options
        The job.
    disk, path, clock
        Where the log is, and what time it is.
    """

    def __init__(
        self,
        number: int,
        compile_for: Compiler,
        disk: MemoryDisk,
        path: str,
        options: RunOptions,
        clock: ManualClock,
    ) -> None:
        self.number = number
        self.storages: dict[str, MemoryStorage] = {}
        self.disk_refuses = False
        """Whether a call of some process was or will be refused."""
        self._compile_for = compile_for
        self._disk = disk
        self._path = path
        self._options = options
        self._clock = clock
        self._channels: dict[tuple[str, int, int], _Channel] = {}
        self._commands: list[deque[Command]] = []
        self._reports: list[deque[Report]] = []
        self._parts: list[CheckpointTaken] = []
        self._workers: list[Worker] = []
        self._backgrounds: list[_Background] = []
        self._lookups: list[SimulatedLookups] = []
        self.coordinator: Coordinator

    def begin(self) -> None:
        """Take the epoch and build the workers, each in a process of its own."""
        log = self._open_log("coordinator")
        self.coordinator = Coordinator(self._compile_for, log, self._options)
        for plan in self.coordinator.start():
            log = self._open_log(f"worker {plan.worker}")
            background = _Background()
            channels = _WorkerChannels(self, plan.worker)
            lookups = SimulatedLookups()
            self._lookups.append(lookups)
            self._workers.append(Worker(plan, log, channels, background, MemoryScratch(), lookups))
            self._backgrounds.append(background)
            self._commands.append(deque())
            self._reports.append(deque())

    def storage(self, process: str) -> MemoryStorage:
        """Return the disk as a process of the attempt sees it."""
        if process not in self.storages:
            self.storages[process] = self._disk.storage(f"attempt {self.number} {process}")
        return self.storages[process]

    def kill(self) -> None:
        """End every process that is alive; what it had locked is free again."""
        for each in self.storages.values():
            each.kill()

    def channel(self, exchange: str, sender: int, receiver: int) -> _Channel:
        """Return a channel, made when it is first asked for."""
        key = exchange, sender, receiver
        if key not in self._channels:
            self._channels[key] = _Channel(self._options.channel_bytes)
        return self._channels[key]

    def rows_in_channels(self) -> int:
        """Return how many rows are on their way between workers."""
        return sum(each.rows() for each in self._channels.values())

    def rows_replayed(self) -> int:
        """Return how many rows were read behind the newest checkpoint's positions."""
        committed = self.coordinator.positions()
        return sum(
            state.offset - committed.get((source, partition), 0)
            for worker in self._workers
            for source, partitions in worker.positions().items()
            for partition, state in partitions.items()
        )

    def events(self) -> list[Event]:
        """Return everything that can happen next."""
        found: list[Event] = [("tick", self._tick)]
        for index in range(len(self._workers)):
            # More steps than anything else: that is what work is made of.
            found += [(f"step {index}", partial(self._step, index))] * 4
            if self._commands[index]:
                found.append((f"command {index}", partial(self._command, index)))
            if self._reports[index]:
                found.append((f"report {index}", partial(self._report, index)))
            if self._backgrounds[index].waiting:
                found.append((f"append {index}", self._backgrounds[index].run_next))
            if self._lookups[index].waiting:
                found.append((f"lookup {index}", self._lookups[index].run_next))
        found += [
            (f"persist {number}", partial(self._persist, number))
            for number, part in enumerate(self._parts)
            if all(each.done() for each in part.participants)
        ]
        found += [
            (f"deliver {key}", channel.deliver)
            for key, channel in self._channels.items()
            if channel.sent
        ]
        return found

    def _open_log(self, process: str) -> Log:
        return Log(self._path, storage=self.storage(process), clock=self._clock)

    def _tick(self) -> None:
        for command in self.coordinator.tick(self._clock.monotonic_us()):
            for waiting in self._commands:
                waiting.append(command)

    def _step(self, index: int) -> None:
        worker = self._workers[index]
        worker.step()
        for report in worker.take_reports():
            if isinstance(report, CheckpointTaken):
                self._parts.append(report)
            else:
                self._reports[index].append(report)

    def _command(self, index: int) -> None:
        self._workers[index].command(self._commands[index].popleft())

    def _report(self, index: int) -> None:
        self.coordinator.on_report(self._reports[index].popleft())

    def _persist(self, number: int) -> None:
        taken = self._parts.pop(number)
        log = self._open_log(f"worker {taken.worker}")
        done = persist(taken, self.coordinator.graph.name, self.coordinator.epoch, log)
        self._reports[taken.worker].append(done)
