"""The coordinator of a job's attempt: when to checkpoint, when to finish, what is committed.

    RUNNING ── all sources done ──▶ FLUSHING ── all finished ──▶ LAST CHECKPOINT ──▶ DONE
       └────────────── stop ───────────────────────────────────────▲

It knows no thread and no clock but the one it is told: `tick` and `on_report` return the
commands that a host carries to the workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum

import msgspec

from millstream.errors import FencedError, JobError
from millstream.log import Log
from millstream.runtime.attempt import (
    NOBODY,
    Compiler,
    captured,
    check_fits,
    create_topics,
    first_manifest,
    owner_of,
    read_manifest,
    remove_orphans,
    sinks_of,
    sources_of,
)
from millstream.runtime.checkpoint import CheckpointProgress
from millstream.runtime.graph import JobGraph
from millstream.runtime.manifest import Manifest, SourceState, encode_manifest
from millstream.runtime.messages import (
    CheckpointDone,
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
from millstream.runtime.worker import WorkerPlan

MANIFESTS_KEPT = 3
"""State files of so many checkpoints, the newest included, are kept."""


class Phase(Enum):
    """Where an attempt is."""

    RUNNING = "running"
    FLUSHING = "flushing"
    LAST_CHECKPOINT = "last checkpoint"
    DONE = "done"


class Coordinator:
    """Coordinates one attempt of a job.

    Parameters
    ----------
    compile_for
        Compiles the job for a parallelism.
    log
        The job's log.
    options
        Of the run.
    """

    def __init__(self, compile_for: Compiler, log: Log, options: RunOptions) -> None:
        self._compile_for = compile_for
        self.graph = compile_for(options.parallelism, {})
        self.options = options
        self.phase = Phase.RUNNING
        self.checkpoints = 0
        """Completed in this attempt, while it ran."""
        self.restored: int | None = None
        """The checkpoint that the attempt went on from; `None`: from the beginning."""
        self.moves_on = False
        """It ends at a seam: another attempt goes on, with the topic's new partitions."""
        self.stopping = False
        self.draining = False
        self._log = log
        # A run that only collects rows in memory has nothing to commit, and nobody to fence.
        self._durable = any(each.kind == "log" for each in sinks_of(self.graph))
        self._writer = NOBODY
        self._progress: CheckpointProgress | None = None
        self._due_us: int | None = None
        self._sources_told = False
        self._sources_done: set[int] = set()
        self._at_seam: dict[str, set[int]] = {}
        self._finished: set[int] = set()
        self._manifest: Manifest | None = None
        self._kept: deque[set[str]] = deque(maxlen=MANIFESTS_KEPT)
        self._first = True
        self._flushed = False

    @property
    def finished(self) -> bool:
        """`True` iff the run came to its end: all was read and given out, and that is committed."""
        return self.phase is Phase.DONE and self._flushed

    @property
    def durable(self) -> bool:
        """`False` where the run only collects rows in memory."""
        return self._durable

    @property
    def checkpoint(self) -> int | None:
        """Number of the newest checkpoint, those of earlier attempts included."""
        return None if self._manifest is None else self._manifest.checkpoint

    @property
    def checkpoint_bytes(self) -> int | None:
        """How much state it holds, those of earlier attempts included."""
        return None if self._manifest is None else self._manifest.size_bytes()

    @property
    def epoch(self) -> int:
        """The attempt's epoch."""
        return self._writer.epoch

    def check_present(self) -> None:
        """Raise `FencedError` where another attempt has begun since this one did."""
        if self._writer != NOBODY:
            self._log.transactions.check(self._writer)

    def start(self) -> list[WorkerPlan]:
        """Take a new epoch, which fences older attempts, and return the workers' plans.

        There are none where the run has come to its end already.

        Raises
        ------
        CheckpointError
            When the newest checkpoint cannot be gone on from.
        """
        log, graph = self._log, self.graph
        found = None
        if self._durable:
            create_topics(graph, log)
            self._writer = log.transactions.writer(owner_of(graph.name))
            # Known from now on, also where it cannot be gone on from.
            found = self._manifest = read_manifest(log, graph.name)
            if found is not None and self._has_finished(found):
                self.restored = found.checkpoint
                self.phase, self._flushed = Phase.DONE, True
                return []
        begun = found
        if self.options.fresh and (found is None or found.run != self.options.run):
            begun = None
        manifest = begun
        if manifest is None:
            number = 0 if found is None else found.checkpoint
            run = self.options.run or f"{graph.name}-{self.epoch}"
            manifest = first_manifest(graph, run, self.epoch, number)
        else:
            check_fits(manifest, graph, log)
            self.restored = manifest.checkpoint
        sources = captured(manifest, graph, log, self.options)
        graph = self.graph = self._replanned(sources)
        manifest = msgspec.structs.replace(manifest, sources=sources, finished=False)
        if self._durable:
            if manifest != begun:
                # What was captured holds from now on, also for attempts that come after a crash.
                manifest = msgspec.structs.replace(manifest, checkpoint=manifest.checkpoint + 1)
                self._commit(manifest)
            # Not before: a fresh start that dies here has not begun, and the old state is needed.
            remove_orphans(log, graph.name, manifest, self.epoch)
        self._manifest = manifest
        self._kept.append(manifest.paths())
        return [
            WorkerPlan(
                graph,
                worker,
                self._writer,
                manifest.checkpoint,
                manifest.sources,
                manifest.operators,
                self.options,
            )
            for worker in range(graph.parallelism)
        ]

    def tick(self, now_us: int) -> list[Command]:
        """Return the commands, for every worker, that are due by the monotonic time `now_us`."""
        if self.draining and not self._sources_told:
            self._sources_told = True
            return [EndSources()]
        if self._due_us is None:
            self._due_us = now_us + self.options.checkpoint_interval_us
        if self._progress is not None:
            self._due_us = None  # the interval starts when the checkpoint is complete
            return []
        match self.phase:
            case Phase.RUNNING if self.stopping:
                return self._last_checkpoint()
            case Phase.RUNNING if self._is_at_seam():
                self.moves_on = True
                return self._last_checkpoint()
            case Phase.RUNNING if len(self._sources_done) == self.graph.parallelism:
                self.phase = Phase.FLUSHING
                return [Finish()]
            case Phase.RUNNING if self._durable and now_us >= self._due_us:
                return [self._start_checkpoint()]
            case Phase.FLUSHING if len(self._finished) == self.graph.parallelism:
                return self._last_checkpoint()
            case _:
                return []

    def due_us(self) -> int | None:
        """Return the monotonic time of the next checkpoint, if one is planned."""
        return self._due_us if self._durable and self.phase is Phase.RUNNING else None

    def on_report(self, report: Report) -> None:
        """Take note of a report; with the last part of a checkpoint, commit it.

        Raises
        ------
        FencedError
            When another attempt of the job has begun.
        """
        match report:
            case SourcesDone(worker=worker):
                self._sources_done.add(worker)
            case SeamReached(worker=worker, source=source):
                self._at_seam.setdefault(source, set()).add(worker)
            case Finished(worker=worker):
                self._finished.add(worker)
            case CheckpointDone():
                assert self._progress is not None, "a part of no checkpoint"
                if self._progress.add(report):
                    self._complete(self._progress)

    def positions(self) -> dict[tuple[str, int], int]:
        """Return the offset of each source and partition in the newest checkpoint."""
        assert self._manifest is not None, "not started"
        return {
            (source, int(partition)): each.offset
            for source, state in self._manifest.sources.items()
            for partition, each in state.partitions.items()
        }

    def request_stop(self) -> None:
        """End the run after one more checkpoint; windows that are open stay open in it."""
        self.stopping = True

    def request_drain(self) -> None:
        """Read no further, give out what is open, and end."""
        self.draining = True

    def close(self) -> None:
        """Decide what is undecided: nothing of the attempt is left open.

        To be called when the workers have stopped. Where a newer attempt has begun, that one
        has decided already.
        """
        if not self._durable or self._manifest is None:
            return
        if self.finished:
            return  # the last checkpoint held every row
        first = self._manifest.checkpoint + 1
        last = first + (self._progress is not None)
        with suppress(FencedError):
            for number in range(first, last + 1):
                self._log.transactions.decide(self._writer, number, "abort")

    def _replanned(self, sources: Mapping[str, SourceState]) -> JobGraph:
        """Return the job for the partitions that its streams read now."""
        log, options = self._log, self.options
        streams = {
            node.topic: log.topic(node.topic).config.partitions_of(sources[name].generation)
            for name, node in sources_of(self.graph).items()
            if node.role == "stream"
        }
        if not any(log.topic(each).config.generation for each in streams):
            return self.graph  # none of them ever got others
        parallelism = options.parallelism
        if options.follows_partitions:
            parallelism = max(streams.values())
        return self._compile_for(parallelism, streams)

    def _is_at_seam(self) -> bool:
        """Return `True` iff all workers have read their shares of a source's generation."""
        workers = self.graph.parallelism
        return any(len(each) == workers for each in self._at_seam.values())

    def _has_finished(self, found: Manifest) -> bool:
        run = self.options.run
        return found.finished and run != "" and found.finished_run == run

    def _start_checkpoint(self) -> Command:
        assert self._manifest is not None
        number = self._manifest.checkpoint + 1
        self._progress = CheckpointProgress(number, self.graph.parallelism)
        return StartCheckpoint(number)

    def _last_checkpoint(self) -> list[Command]:
        self._flushed = self.phase is Phase.FLUSHING
        if not self._durable:
            if self.moves_on:
                message = (
                    f"job {self.graph.name!r} keeps its rows in memory, and a topic that it reads "
                    "got other partitions meanwhile; run it again"
                )
                raise JobError(message)
            self.phase = Phase.DONE
            return []
        self.phase = Phase.LAST_CHECKPOINT
        return [self._start_checkpoint()]

    def _complete(self, progress: CheckpointProgress) -> None:
        assert self._manifest is not None
        last = self.phase is Phase.LAST_CHECKPOINT
        manifest = progress.manifest(
            self._manifest,
            self.epoch,
            first=self._first,
            finished=last and self._flushed,
        )
        if manifest.finished:
            manifest = msgspec.structs.replace(manifest, finished_run=self.options.run)
        self._commit(manifest)
        self._first = False
        self._manifest = manifest
        self._progress = None
        self.checkpoints += 1
        self._remove_unneeded(manifest)
        if last:
            self.phase = Phase.DONE

    def _commit(self, manifest: Manifest) -> None:
        """Append manifest and decision in one: the commit point of the checkpoint."""
        self._log.transactions.decide(
            self._writer, manifest.checkpoint, "commit", encode_manifest(manifest)
        )

    def _remove_unneeded(self, manifest: Manifest) -> None:
        oldest = self._kept[0] if len(self._kept) == MANIFESTS_KEPT else set[str]()
        self._kept.append(manifest.paths())
        for path in sorted(oldest.difference(*self._kept)):
            self._log.storage.remove(f"{self._log.path}/{path}")
