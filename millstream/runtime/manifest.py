"""The manifest of a checkpoint: where every source stands and which files hold the state.

It is JSON in one record of the log's control topic, appended together with the decision to
commit transaction n. That append is the checkpoint.
"""

from __future__ import annotations

import msgspec

from millstream.errors import CheckpointError

VERSION = 1


class PartitionState(msgspec.Struct, frozen=True):
    """Where a source stands in one partition.

    Parameters
    ----------
    offset
        Of the next row.
    greatest_us
        Greatest event time so far, from which the watermark follows.
    generation
        Of the topic, that the partition is in.
    """

    offset: int
    greatest_us: int
    generation: int = 0


class SourceState(msgspec.Struct, frozen=True):
    """Where a source stands.

    Parameters
    ----------
    topic, topic_id
        What it reads; a topic of another id is another topic, whatever its name.
    ends
        Offsets up to which a bounded run reads; `None`: on and on.
    bounds
        Of a table: offsets up to which it is read before the first row of a stream.
    partitions
        By partition number (JSON has text keys).
    generation
        Of the topic, that is read: all partitions are in it.
    ends_in, bounds_in
        The generations that `ends` and `bounds` are offsets in; those before are read whole.
    """

    topic: str
    topic_id: str
    ends: tuple[int, ...] | None
    bounds: tuple[int, ...] | None
    partitions: dict[str, PartitionState]
    generation: int = 0
    ends_in: int = 0
    bounds_in: int = 0


class StateFile(msgspec.Struct, frozen=True):
    """One part of an operator's state: what one worker wrote in one checkpoint.

    Parameters
    ----------
    path
        Relative to the log; `None` where there are no rows to keep.
    size_bytes, crc
        Of the file: it is verified before it is used (CRC-32C).
    full
        The whole state of the worker's key groups, not a change to what came before.
    values
        State beside the rows.
    """

    worker: int
    checkpoint: int
    path: str | None
    size_bytes: int
    crc: int
    full: bool
    version: int
    values: dict[str, int | str | None]


class Manifest(msgspec.Struct, frozen=True):
    """A whole checkpoint of a job.

    Parameters
    ----------
    run
        Names the run that started over last: `--fresh` begins another one.
    epoch, checkpoint
        Which attempt took it, and its number, which is that of the transaction.
    finished
        The run was bounded and came to its end: the next one captures new ends.
    operators
        By operator: its files, oldest first.
    finished_run
        Which run came to its end, as its options name it: begun once more, by a host that did
        not hear of that, it has nothing left to do.
    """

    job: str
    run: str
    epoch: int
    checkpoint: int
    parallelism: int
    finished: bool
    sources: dict[str, SourceState]
    operators: dict[str, tuple[StateFile, ...]]
    finished_run: str = ""
    version: int = VERSION

    def size_bytes(self) -> int:
        """Return how much state a restore would read."""
        return sum(each.size_bytes for files in self.operators.values() for each in files)

    def paths(self) -> set[str]:
        """Return the files that the checkpoint needs."""
        return {
            each.path
            for files in self.operators.values()
            for each in files
            if each.path is not None
        }


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON."""
    return msgspec.json.encode(manifest)


def decode_manifest(content: bytes, job: str) -> Manifest:
    """Return the manifest in `content`.

    Raises
    ------
    CheckpointError
        When it is of a newer version or cannot be understood.
    """
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        message = (
            f"the newest checkpoint of job {job!r} cannot be understood: {error}; it may be of a "
            "newer version: update Millstream, or start over with --fresh"
        )
        raise CheckpointError(message) from error
    if manifest.version != VERSION:
        message = (
            f"the newest checkpoint of job {job!r} is of version {manifest.version}, and this is "
            f"{VERSION}; update Millstream, or start over with --fresh"
        )
        raise CheckpointError(message)
    return manifest
