"""What travels: between workers over channels, and between coordinator and workers.

    worker ──── Batch │ Watermark │ Barrier │ End ────▶ worker
    coordinator ──── StartCheckpoint │ EndSources │ Finish ────▶ worker
    worker ──── SourcesDone │ SeamReached │ Finished ────▶ coordinator
    worker ──── CheckpointTaken │ CheckpointDone ────▶ coordinator

All are plain data, so that any host can carry them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from millstream.log.transactions import Unsynced
from millstream.operators.operator import StateSnapshot
from millstream.runtime.background import Pending
from millstream.runtime.manifest import PartitionState, StateFile


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows, hidden columns included."""

    rows: pa.RecordBatch

    @property
    def size_bytes(self) -> int:
        """What the rows take in a channel; of a slice, its share of the buffers."""
        return int(self.rows.nbytes)


@dataclass(frozen=True, slots=True)
class Watermark:
    """No row before `watermark_us` will come from this sender; `idle`: it holds nobody back."""

    watermark_us: int
    idle: bool

    size_bytes = 0


@dataclass(frozen=True, slots=True)
class Barrier:
    """What came before it belongs to the checkpoint, what comes behind does not."""

    checkpoint: int

    size_bytes = 0


@dataclass(frozen=True, slots=True)
class End:
    """Nothing but barriers comes any more."""

    size_bytes = 0


Message = Batch | Watermark | Barrier | End


@dataclass(frozen=True, slots=True)
class StartCheckpoint:
    """Note the sources' positions and send barrier `checkpoint` behind what was read."""

    checkpoint: int


@dataclass(frozen=True, slots=True)
class Finish:
    """All sources of all workers are at their ends: flush what is open."""


@dataclass(frozen=True, slots=True)
class EndSources:
    """Read no further: where the sources stand now is their end."""


Command = StartCheckpoint | EndSources | Finish


@dataclass(frozen=True, slots=True)
class SourcesDone:
    """Every source of the worker has been read to its end."""

    worker: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker flushed everything."""

    worker: int


@dataclass(frozen=True, slots=True)
class CheckpointTaken:
    """A worker's part of a checkpoint, in memory: to be made durable off its thread.

    Parameters
    ----------
    positions
        Of each source, by partition.
    snapshots
        Of each operator that has state.
    participants
        Of each sink: the partitions that hold rows of transaction `checkpoint`, when the appends
        are done.
    """

    worker: int
    checkpoint: int
    positions: dict[str, dict[int, PartitionState]]
    snapshots: dict[str, StateSnapshot]
    participants: tuple[Pending[Unsynced], ...]


@dataclass(frozen=True, slots=True)
class CheckpointDone:
    """A worker's part of a checkpoint is durable; files are named where state was written."""

    worker: int
    checkpoint: int
    positions: dict[str, dict[int, PartitionState]]
    files: dict[str, StateFile]


@dataclass(frozen=True, slots=True)
class SeamReached:
    """The worker has read its share of a source's generation: the next has other partitions."""

    worker: int
    source: str


Report = SourcesDone | SeamReached | Finished | CheckpointDone
