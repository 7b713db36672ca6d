"""A checkpoint: a worker's part made durable, the parts counted, the manifest put together.

CheckpointTaken ─ persist ─▶ CheckpointDone ─┐
CheckpointTaken ─ persist ─▶ CheckpointDone ─┴─ all there ─▶ manifest ─▶ one append
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from millstream.log import Log
from millstream.log.transactions import Participant
from millstream.runtime.manifest import Manifest, PartitionState, SourceState, StateFile
from millstream.runtime.messages import CheckpointDone, CheckpointTaken
from millstream.runtime.snapshots import state_path, write_snapshot


def persist(taken: CheckpointTaken, job: str, epoch: int, log: Log) -> CheckpointDone:
    """Make a worker's part of a checkpoint durable: its state, and its rows in the topics.

    It may run beside the worker, which goes on meanwhile; `log` is the caller's own.
    """
    if taken.snapshots:
        log.storage.make_directory(f"{log.path}/{state_path(job, 0, 0, '', 0).rpartition('/')[0]}")
    files = {
        operator: write_snapshot(
            log.storage,
            log.path,
            state_path(job, epoch, taken.checkpoint, operator, taken.worker),
            taken.worker,
            taken.checkpoint,
            snapshot,
        )
        for operator, snapshot in taken.snapshots.items()
    }
    unsynced: dict[Participant, int | None] = {}
    for pending in taken.participants:
        for participant, losses in pending.result().items():
            known = unsynced.get(participant)
            if known is None or (losses is not None and losses < known):
                unsynced[participant] = losses  # of several sinks of a topic: the first append's
    log.transactions.sync(sorted(unsynced), unsynced)
    return CheckpointDone(taken.worker, taken.checkpoint, taken.positions, files)


class CheckpointProgress:
    """The parts of one checkpoint, as they come in.

    Parameters
    ----------
    checkpoint
        Its number.
    parallelism
        How many parts it has.
    """

    def __init__(self, checkpoint: int, parallelism: int) -> None:
        self.checkpoint = checkpoint
        self._parallelism = parallelism
        self._parts: dict[int, CheckpointDone] = {}

    def add(self, part: CheckpointDone) -> bool:
        """Take a part; return `True` iff it was the last that was missing."""
        assert part.checkpoint == self.checkpoint, (part.checkpoint, self.checkpoint)
        assert part.worker not in self._parts, f"worker {part.worker} acknowledged twice"
        self._parts[part.worker] = part
        return len(self._parts) == self._parallelism

    def manifest(self, before: Manifest, epoch: int, *, first: bool, finished: bool) -> Manifest:
        """Return the manifest of this checkpoint, which follows on `before`.

        Parameters
        ----------
        first
            It is the attempt's first: every part is whole, and nothing older is needed.
        finished
            The run came to its end.
        """
        positions: dict[str, dict[str, PartitionState]] = {}
        files: dict[str, list[StateFile]] = {}
        for worker in sorted(self._parts):
            part = self._parts[worker]
            for source, partitions in part.positions.items():
                named = {str(index): each for index, each in partitions.items()}
                positions.setdefault(source, {}).update(named)
            for operator, file in part.files.items():
                files.setdefault(operator, []).append(file)
        return msgspec.structs.replace(
            before,
            epoch=epoch,
            checkpoint=self.checkpoint,
            parallelism=self._parallelism,
            finished=finished,
            sources=_moved(before.sources, positions),
            operators={
                name: _chain(() if first else before.operators.get(name, ()), added)
                for name, added in files.items()
            },
        )


def _moved(
    sources: Mapping[str, SourceState], positions: Mapping[str, dict[str, PartitionState]]
) -> dict[str, SourceState]:
    return {name: _moved_to(state, positions.get(name, {})) for name, state in sources.items()}


def _moved_to(state: SourceState, positions: Mapping[str, PartitionState]) -> SourceState:
    generation = max([each.generation for each in positions.values()], default=state.generation)
    kept = state.partitions if generation == state.generation else {}
    return msgspec.structs.replace(state, partitions={**kept, **positions}, generation=generation)


def _chain(before: tuple[StateFile, ...], added: list[StateFile]) -> tuple[StateFile, ...]:
    """Return the files of an operator: a whole one makes the worker's earlier ones needless."""
    chain = list(before)
    for file in added:
        own = [each for each in chain if each.worker == file.worker]
        if file.full:
            chain = [each for each in chain if each.worker != file.worker]
        else:
            assert own, "a change to nothing"
            if file.path is None and file.values == own[-1].values:
                continue  # nothing changed
        chain.append(file)
    return tuple(chain)
