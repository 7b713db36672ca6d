"""A worker: every stage of a job on one share of its rows, as a machine that only reacts.

    command ─▶ ┌──────────────── Worker ────────────────┐ ─▶ report
               │ stage 0 ─▶ stage 1 ─▶ … (its own share) │
    inlets ──▶ └─────────────────────────────────────────┘ ─▶ outlets, the log

`step` does one bounded piece of work. A worker knows no thread, socket or wall clock: a host
steps it, carries what it sends, and wakes it when there may be something to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import CheckpointError, MillstreamError, SpillError
from millstream.log import Log
from millstream.log.bells import Bells
from millstream.log.transactions import Writer
from millstream.operators.lookup import Lookup, Lookups
from millstream.operators.operator import Operator, OperatorConfig, OperatorCounters
from millstream.runtime.activity import OperatorActivity, WorkerStatus, operator_status
from millstream.runtime.background import AtOnce, Background
from millstream.runtime.channels import Channels
from millstream.runtime.graph import (
    KEY_GROUPS,
    JobGraph,
    OperatorNode,
    SourceNode,
    Stage,
    key_groups_of_worker,
    partitions_of_worker,
)
from millstream.runtime.manifest import PartitionState, SourceState, StateFile
from millstream.runtime.messages import (
    CheckpointTaken,
    Command,
    EndSources,
    Finish,
    Finished,
    Report,
    SeamReached,
    SourcesDone,
    StartCheckpoint,
)
from millstream.runtime.options import RunOptions
from millstream.runtime.sink import LogSink, MemorySink, Sink
from millstream.runtime.snapshots import read_snapshots
from millstream.runtime.source import NEVER_US, Source, SourceStart
from millstream.runtime.spill import Spill
from millstream.runtime.stage import StagePart, StageRunner
from millstream.runtime.wanted_time import wants_time
from millstream.storage import Scratch
from millstream.windows.watermark import WATERMARK_MIN


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """All that a worker must know to begin or to go on.

    Parameters
    ----------
    graph
        The job.
    worker
        Which worker of the graph's parallelism.
    writer
        Under whose epoch it writes.
    checkpoint
        The checkpoint that it goes on from.
    sources, operators
        Of that checkpoint: where sources stand, which files hold state.
    options
        Of the run.
    """

    graph: JobGraph
    worker: int
    writer: Writer
    checkpoint: int
    sources: Mapping[str, SourceState]
    operators: Mapping[str, tuple[StateFile, ...]]
    options: RunOptions


class Worker:
    """One worker of an attempt.

    Parameters
    ----------
    plan
        What it does.
    log
        Its own handle on the job's log.
    channels
        To and from the other workers.
    background
        Appends to topics beside the worker; by default the worker does it itself.
    scratch
        Takes state beyond the memory budget; by default there is none.
    lookups
        Calls async functions; needed only where the job has some.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        log: Log,
        channels: Channels,
        background: Background | None = None,
        scratch: Scratch | None = None,
        lookups: Lookups | None = None,
    ) -> None:
        self.plan = plan
        self.index = plan.worker
        graph = plan.graph
        self._log = log
        self._started_us = log.clock.monotonic_us()
        self._backpressured_us = 0
        self._idle_us = 0
        self._reports: list[Report | CheckpointTaken] = []
        self._operators: dict[str, Operator] = {}
        self._sources: dict[str, Source] = {}
        self._sinks: dict[str, Sink] = {}
        build = self._builder(scratch)
        for stage in graph.stages:
            for source in stage.sources:
                self._sources[source.name] = self._open_source(stage, source)
            for operator in stage.operators:
                self._operators[operator.name] = build(operator.config)
            for sink in stage.sinks:
                memory = sink.kind == "memory"
                producer = None if memory else log.producer(sink.topic, writer=plan.writer)
                self._sinks[sink.name] = (
                    MemorySink(sink)
                    if producer is None
                    else LogSink(sink, producer, background or AtOnce())
                )
        self._give_lookups(lookups)
        self._restore()
        self._stages = [
            StageRunner(
                stage,
                self.index,
                graph.parallelism,
                self._operators,
                self._sources,
                self._sinks,
                channels,
                plan.checkpoint + 1,
                log.clock,
                plan.options,
            )
            for stage in graph.stages
        ]
        self._set_bounded(any(each.ends is not None for each in plan.sources.values()))
        self._taking: int | None = None
        self._parts: list[StagePart] = []
        self._loaded = False
        self._turn = 0
        self._sources_reported = False
        self._seams_reported: set[str] = set()
        self._finished = False

    def command(self, command: Command) -> None:
        """Take a command of the coordinator; `step` carries it out."""
        match command:
            case StartCheckpoint(checkpoint=checkpoint):
                assert self._taking is None, "one checkpoint at a time"
                self._taking, self._parts = checkpoint, []
                for stage in self._stages:
                    stage.request_checkpoint(checkpoint)
            case EndSources():
                self._set_bounded(True)
                for source in self._sources.values():
                    source.end_here()
            case Finish():
                for stage in self._stages:
                    stage.finish()

    def take_reports(self) -> list[Report | CheckpointTaken]:
        """Return what there is to report since the last call."""
        reports, self._reports = self._reports, []
        return reports

    def step(self) -> bool:
        """Do one piece of work; return `False` when there is none to do now.

        Later stages come first: they make room for the earlier ones, so that workers that
        send to each other never wait in a circle. A source is read when nothing else is to do
        and every outlet has room.
        """
        loaded = self._is_loaded()
        for stage in reversed(self._stages):
            if stage.busy:
                if stage.resume():
                    self._report_progress()
                    return True
                continue
            if self._try_barrier(stage) or stage.take_message(batches=loaded):
                self._report_progress()
                return True
        return self._read_sources(loaded) or self._pass_on_gathered()

    def status(self) -> WorkerStatus:
        """Return how far the worker is."""
        streams = [each for each in self._sources.values() if each.node.role == "stream"]
        # Without time, rows or partitions of its own, a stream holds nobody back.
        timed = [each for each in streams if each.watermark() != (WATERMARK_MIN, True)]
        slowest = min(timed, key=lambda each: each.watermark()[0], default=None)
        elapsed_us = self.clock.monotonic_us() - self._started_us
        activity = self._activity()
        return WorkerStatus(
            self.index,
            rows_read=sum(each.rows_read for each in self._sources.values()),
            rows_written=sum(each.rows_written for each in self._sinks.values()),
            watermark_us=None if slowest is None else slowest.watermark()[0],
            holding=None if slowest is None else slowest.slowest(),
            lag_rows=sum(each.lag_rows() for each in streams),
            busy_us=max(elapsed_us - self._backpressured_us - self._idle_us, 0),
            backpressured_us=self._backpressured_us,
            idle_us=self._idle_us,
            waiting=any(each.busy or each.has_message() for each in self._stages),
            operators={
                name: operator_status(each.counters, activity[name])
                for name, each in self._operators.items()
            },
        )

    @property
    def clock(self) -> Clock:
        """The clock of its log, by which its time is counted."""
        return self._log.clock

    @property
    def bells(self) -> Bells | None:
        """What rings when a source has more to read; `None`: it has none."""
        for source in self._sources.values():
            return source.bells
        return None

    def waits_for_log(self) -> bool:
        """Return whether more rows would be read; `False`: there is no room for them."""
        return (
            self._is_loaded() and self._has_room() and not any(each.busy for each in self._stages)
        )

    def unheard(self) -> list[int]:
        """Return the bells of partitions that are to be listened for before the next look."""
        return [bell for source in self._sources.values() for bell in source.unheard()]

    def listened(self, bells: AbstractSet[int]) -> None:
        """Take note that these bells ring from now on; see `Source.listened`."""
        for source in self._sources.values():
            source.listened(bells)

    def look_again(self, bells: AbstractSet[int] | None = None) -> None:
        """Look again at the partitions whose bells rang; at all of them, by default."""
        for source in self._sources.values():
            source.look_again(bells)

    def due_us(self) -> int:
        """Return the monotonic time at which time itself is something to do, or one far ahead."""
        return min((each.due_us() for each in self._sources.values()), default=NEVER_US)

    def waited(self, duration_us: int) -> None:
        """Take note that nothing could be done for so long.

        Where there is no room, a stage rests in the middle of its work, or does not read on.
        """
        if any(each.busy for each in self._stages) or not self._has_room():
            self._backpressured_us += duration_us
        else:
            self._idle_us += duration_us

    def _activity(self) -> dict[str, OperatorActivity]:
        return {name: each for stage in self._stages for name, each in stage.activity.items()}

    def positions(self) -> dict[str, dict[int, PartitionState]]:
        """Return where each stream stands, by partition."""
        return {
            name: each.positions()
            for name, each in self._sources.items()
            if each.node.role == "stream"
        }

    def advance_event_time(self, time_us: int) -> None:
        """Move the watermark of each stream's partitions up to `time_us`, without a row."""
        for each in self._sources.values():
            each.advance_event_time(time_us)

    def counters(self) -> dict[str, OperatorCounters]:
        """Return each operator's counters."""
        return {name: each.counters for name, each in self._operators.items()}

    def tables(self) -> dict[str, pa.Table]:
        """Return the rows of the memory sinks, by the name of their topic."""
        return {
            each.node.topic: each.table()
            for each in self._sinks.values()
            if isinstance(each, MemorySink)
        }

    def _read_sources(self, loaded: bool) -> bool:
        """Read what is to be read next: tables until they are loaded, then both in turn.

        Streams are read, and told of time, only if there is room for what that sets free.
        """
        room = loaded and self._has_room()
        # Time first: a source that has rows at any moment must not keep that of others back.
        if room and self._advance_time():
            return True
        self._turn += 1
        kinds = (True, False) if self._turn % 2 else (False, True)
        for tables in kinds:
            if (tables or room) and self._read_some(tables=tables):
                return True
        if not room:
            return False
        progressed = self._advance_time() or any(
            not each.busy and each.end_sources() for each in self._stages
        )
        self._report_progress()
        return progressed

    def _pass_on_gathered(self) -> bool:
        """Pass on rows that wait in a stage for others: there are none now."""
        return any(not each.busy and each.pass_on_gathered() for each in self._stages)

    def _advance_time(self) -> bool:
        """Let one stage pass on what it knows of time."""
        return any(not each.busy and each.advance_time() for each in self._stages)

    def _read_some(self, *, tables: bool) -> bool:
        """Read one batch of a table, or of a stream."""
        # Every second turn tables come first; stages take turns in being asked first.
        first = self._turn // 2 % len(self._stages)
        for stage in (*self._stages[first:], *self._stages[:first]):
            if not stage.busy and stage.read_source(tables=tables):
                self._report_progress()
                return True
        return False

    def _has_room(self) -> bool:
        return all(each.has_room() for each in self._stages)

    def _set_bounded(self, bounded: bool) -> None:
        self._bounded = bounded
        for stage in self._stages:
            stage.bounded = bounded

    def _is_loaded(self) -> bool:
        if not self._loaded:
            self._loaded = all(each.loaded for each in self._sources.values()) and not any(
                each.busy for each in self._stages
            )
        return self._loaded

    def _try_barrier(self, stage: StageRunner) -> bool:
        part = stage.try_barrier()
        if part is None:
            return False
        self._parts.append(part)
        if len(self._parts) == len(self._stages):
            assert self._taking is not None, "a barrier that nobody asked for"
            self._reports.append(self._taken(self._taking))
            self._taking = None
        return True

    def _taken(self, checkpoint: int) -> CheckpointTaken:
        return CheckpointTaken(
            self.index,
            checkpoint,
            {name: each for part in self._parts for name, each in part.positions.items()},
            {name: each for part in self._parts for name, each in part.snapshots.items()},
            tuple(each for part in self._parts for each in part.participants),
        )

    def _report_progress(self) -> None:
        """Report the sources' end, and the end of everything, once each."""
        resting = not any(each.busy for each in self._stages)
        for name, source in self._sources.items():
            if source.at_seam and name not in self._seams_reported:
                self._seams_reported.add(name)
                self._reports.append(SeamReached(self.index, name))
        if self._bounded and not self._sources_reported and resting:
            self._sources_reported = all(each.done for each in self._sources.values())
            if self._sources_reported:
                self._reports.append(SourcesDone(self.index))
        if resting and not self._finished and all(each.ended for each in self._stages):
            self._finished = True
            self._reports.append(Finished(self.index))

    def _builder(self, scratch: Scratch | None) -> Callable[[OperatorConfig], Operator]:
        """Return what builds operators, within the memory budget where there is one."""
        limit_bytes = self.plan.options.memory_budget_bytes
        if limit_bytes is None or scratch is None:
            return lambda config: config.build()
        groups = key_groups_of_worker(self.index, self.plan.graph.parallelism)
        return Spill(limit_bytes, scratch, groups).build

    def _open_source(self, stage: Stage, node: SourceNode) -> Source:
        plan, topic = self.plan, self._log.topic(node.topic)
        state = plan.sources[node.name]
        count = topic.config.partitions_of(state.generation)
        parallelism = plan.graph.parallelism
        indices = tuple(range(count))
        if node.role == "stream":
            indices = partitions_of_worker(self.index, parallelism, count)
        start = SourceStart(
            {int(index): each for index, each in state.partitions.items()},
            state.ends,
            state.bounds,
            state.generation,
            state.ends_in,
            state.bounds_in,
            alone=node.role == "table"
            or (parallelism == 1 and not plan.options.follows_partitions),
        )
        return Source(
            node,
            topic,
            indices,
            start,
            self._log.clock,
            batch_rows=plan.options.batch_rows,
            batch_bytes=plan.options.batch_bytes,
            wants_time=wants_time(stage, node),
        )

    def _give_lookups(self, lookups: Lookups | None) -> None:
        """Tell the operators that call async functions who makes the calls."""
        for each in self._operators.values():
            if isinstance(each, Lookup):
                each.lookups = lookups

    def _restore(self) -> None:
        """Give every operator its state: the rows of the key groups that this worker owns."""
        own = key_groups_of_worker(self.index, self.plan.graph.parallelism)
        for stage in self.plan.graph.stages:
            for node in stage.operators:
                files = self.plan.operators.get(node.restores_from or node.name, ())
                if files:
                    groups = range(KEY_GROUPS) if node.config.broadcast_state else own
                    self._restore_operator(node, files, groups)

    def _restore_operator(
        self, node: OperatorNode, files: Sequence[StateFile], groups: range
    ) -> None:
        snapshots = read_snapshots(self._log.storage, self._log.path, node.name, files)
        try:
            self._operators[node.name].restore(snapshots, groups)
        except SpillError:
            raise
        except Exception as error:
            ours = isinstance(error, MillstreamError)
            reason = str(error) if ours else f"{type(error).__name__}: {error}"
            message = (
                f"{node.location}: the state of operator {node.name!r} in checkpoint "
                f"{self.plan.checkpoint} does not fit the operator as it is now "
                f"({node.config.describe()}): {reason}; give a changed "
                'operator another name with .named("…"), or start over with --fresh'
            )
            raise CheckpointError(message) from error
