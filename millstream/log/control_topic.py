"""The log's control topic: who owns what, at which epoch, and what was decided.

Records are JSON in a partition like any other. They are appended one at a time, each durable
before the next: who holds the lock has seen all records there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec
import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import LogError
from millstream.log.bells import DECISIONS, Bells
from millstream.log.partition import Partition
from millstream.storage import Storage

SCHEMA = pa.schema([pa.field("record", pa.binary(), nullable=False)])
NO_MANIFEST = msgspec.Raw()
"""Of a decision without one: this very object, for what is left out is found by identity."""


class OwnerRecord(msgspec.Struct, tag="owner", frozen=True):
    """A name got a number, by which frames call their writer."""

    owner: str
    owner_id: int


class EpochRecord(msgspec.Struct, tag="epoch", frozen=True):
    """An owner's writers of lower epochs are fenced; what they did not decide is aborted."""

    owner_id: int
    epoch: int
    at_us: int


class PreparedRecord(msgspec.Struct, tag="prepared", frozen=True):
    """All frames of a transaction are durable; it waits for its decision, however long."""

    owner_id: int
    epoch: int
    number: int
    participants: tuple[tuple[str, int], ...]
    at_us: int


class DecisionRecord(msgspec.Struct, tag="decision", frozen=True, omit_defaults=True):
    """A transaction's outcome, for all partitions at once, and what goes with it.

    Without a manifest the record has no such field.
    """

    owner_id: int
    epoch: int
    number: int
    outcome: Literal["commit", "abort"]
    at_us: int
    manifest: msgspec.Raw = NO_MANIFEST


Record = OwnerRecord | EpochRecord | PreparedRecord | DecisionRecord
_DECODER = msgspec.json.Decoder(Record)


def control_directory(path: str) -> str:
    """Return the folder of the control topic of the log in `path`."""
    return f"{path}/control"


class RecordReader:
    """The records of a control topic, in order.

    Parameters
    ----------
    partition
        Where they are.
    """

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._cursor = partition.frames(0)

    def read_new(self) -> Iterator[Record]:
        """Yield the durable records that were not yielded before.

        Raises
        ------
        LogError
            Where a record is of a newer version.
        """
        while (frame := self._cursor.next()) is not None:
            for content in frame.batch().column("record"):
                try:
                    yield _DECODER.decode(content.as_buffer())
                except msgspec.DecodeError as error:
                    message = (
                        f"the control topic {self._partition.directory} has a record that this "
                        f"version does not know, at offset {frame.header.base_offset}: {error}; "
                        "update it"
                    )
                    raise LogError(message) from error


class ControlTopic:
    """The records of the log in `path`, appended under a lock and read in order.

    Parameters
    ----------
    path
        The log's folder.
    storage, clock
        Of the log.

    Attributes
    ----------
    partition
        Where the records are.
    """

    def __init__(self, path: str, storage: Storage, clock: Clock) -> None:
        self.directory = control_directory(path)
        self._storage = storage
        storage.make_directory(self.directory)
        bells = Bells(path, storage, clock)
        self.partition = Partition(
            self.directory,
            SCHEMA,
            storage=storage,
            clock=clock,
            name="control",
            ring=lambda: bells.ring(DECISIONS),
        )
        self._records = RecordReader(self.partition)

    def read_new(self) -> Iterator[Record]:
        """Yield the durable records that were not yielded before; see `RecordReader`."""
        return self._records.read_new()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the right to append; all records appended before are durable inside."""
        with self._storage.lock(f"{self.directory}/decide.lock"):
            # A holder that died between append and sync left a record that nobody has seen.
            self.partition.sync()
            yield

    def append(self, record: Record) -> None:
        """Append `record`, durably; only inside `exclusive`."""
        content = msgspec.json.encode(record)
        self.partition.append(pa.record_batch([pa.array([content], pa.binary())], schema=SCHEMA))
        self.partition.sync()
