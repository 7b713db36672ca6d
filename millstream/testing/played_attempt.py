"""An attempt of a job on one thread: workers step in turn until nothing is left to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.errors import JobError
from millstream.log import Log
from millstream.operators.operator import OperatorCounters
from millstream.runtime.attempt import Compiler, read_manifest
from millstream.runtime.channels import Inlet, Outlet
from millstream.runtime.checkpoint import persist
from millstream.runtime.coordinator import Coordinator, Phase
from millstream.runtime.graph import KEY_GROUPS, OperatorNode
from millstream.runtime.hosts.drive import job_error
from millstream.runtime.hosts.lookups import LookupsAtOnce
from millstream.runtime.hosts.memory_channel import MemoryChannel
from millstream.runtime.hosts.worker_thread import WorkerFailed
from millstream.runtime.messages import CheckpointTaken
from millstream.runtime.options import RunOptions
from millstream.runtime.snapshots import read_snapshots
from millstream.runtime.worker import Worker

STEPS_MAX = 1_000_000
"""A job that has not come to rest by then never will."""


class _WorkerChannels:
    """The channels of one worker; all are kept in one dictionary, made when first asked for."""

    def __init__(
        self, channels: dict[tuple[str, int, int], MemoryChannel], limit_bytes: int, worker: int
    ) -> None:
        self._channels = channels
        self._limit_bytes = limit_bytes
        self._worker = worker

    def outlet(self, exchange: str, receiver: int) -> Outlet:
        return self._channel(exchange, self._worker, receiver)

    def inlet(self, exchange: str, sender: int) -> Inlet:
        return self._channel(exchange, sender, self._worker)

    def _channel(self, exchange: str, sender: int, receiver: int) -> MemoryChannel:
        key = exchange, sender, receiver
        return self._channels.setdefault(key, MemoryChannel(self._limit_bytes))


class PlayedAttempt:
    """A coordinator and its workers, without a thread.

    Parameters
    ----------
    compile_for
        The job.
    open_log
        Opens the log as a process of the job does.
    clock
        Of all of them.
    options
        Of the run, which ends when it is drained.
    """

    def __init__(
        self,
        compile_for: Compiler,
        open_log: Callable[[], Log],
        clock: ManualClock,
        options: RunOptions,
    ) -> None:
        self._open_log = open_log
        self._clock = clock
        self.coordinator = Coordinator(compile_for, open_log(), options)
        channels: dict[tuple[str, int, int], MemoryChannel] = {}
        self._lookups = LookupsAtOnce()
        self._workers = [
            Worker(
                each,
                open_log(),
                _WorkerChannels(channels, options.channel_bytes, each.worker),
                lookups=self._lookups,
            )
            for each in self.coordinator.start()
        ]

    def settle(self) -> None:
        """Step the workers in turn until none of them has anything to do."""
        for _ in range(STEPS_MAX):
            if not any([self._step(each) for each in self._workers]):
                return
        message = "the job does not come to rest: it gives itself new rows to read"
        raise JobError(message)

    def checkpoint(self) -> None:
        """Settle, and commit what there is."""
        before = self.coordinator.checkpoints
        while self.coordinator.checkpoints == before:
            self.settle()
            self._clock.sleep_us(self.coordinator.options.checkpoint_interval_us + 1)
            self._tick()
        self.settle()

    def advance(self, time_us: int) -> None:
        """Let every stream with event time know that it has come to `time_us`."""
        for each in self._workers:
            each.advance_event_time(time_us)

    def end(self, *, drained: bool) -> None:
        """End the attempt; `drained`: with what is open given out."""
        if drained:
            self.coordinator.request_drain()
        else:
            self.coordinator.request_stop()
        for _ in range(STEPS_MAX):
            self._tick()
            self.settle()
            if self.coordinator.phase is Phase.DONE:
                break
        self.coordinator.close()
        self._lookups.close()

    def counters(self) -> Iterator[tuple[str, OperatorCounters]]:
        """Give what each operator of each worker counted."""
        for each in self._workers:
            yield from each.counters().items()

    def operators(self) -> dict[str, OperatorNode]:
        """Return the job's operators by name."""
        stages = self.coordinator.graph.stages
        return {each.name: each for stage in stages for each in stage.operators}

    def state(self, operator: str) -> pa.Table | None:
        """Return an operator's state of the newest checkpoint, of all workers, as it is stored."""
        log, node = self._open_log(), self.operators()[operator]
        manifest = read_manifest(log, self.coordinator.graph.name)
        assert manifest is not None, "started"
        files = manifest.operators.get(node.restores_from or node.name, ())
        if not files:
            return None
        restored = node.config.build()
        restored.restore(read_snapshots(log.storage, log.path, node.name, files), range(KEY_GROUPS))
        snapshot = restored.snapshot(None, manifest.checkpoint)
        return None if snapshot is None else snapshot.rows

    def _step(self, worker: Worker) -> bool:
        with _as_job_error(worker):
            progressed = worker.step()
        for report in worker.take_reports():
            if isinstance(report, CheckpointTaken):
                job, epoch = self.coordinator.graph.name, self.coordinator.epoch
                self.coordinator.on_report(persist(report, job, epoch, self._open_log()))
            else:
                self.coordinator.on_report(report)
        return progressed

    def _tick(self) -> None:
        for command in self.coordinator.tick(self._clock.monotonic_us()):
            for each in self._workers:
                each.command(command)


@contextmanager
def _as_job_error(worker: Worker) -> Iterator[None]:
    """Raise what a worker raises as a host would."""
    try:
        yield
    except Exception as error:
        raised = job_error(WorkerFailed(worker.index, error))
        if raised is error:
            raise
        raise raised from error
