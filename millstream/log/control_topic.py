"""The log's control topic: who owns what, at which epoch, and what was decided.

Records are JSON in a partition like any other. They are appended one at a time, each durable
before the next: who holds the lock has seen all records there are.

    owner, epoch, decision, decision, … │ snapshot, decision, …
    └────── removed, once ──────────────┘ └─ is durable: it says what all before it said
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import msgspec
import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import LogError, OffsetOutOfRangeError
from millstream.log.bells import DECISIONS, Bells
from millstream.log.cursor import FrameCursor
from millstream.log.decided import DecidedEpochs
from millstream.log.frame import Frame
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


class OwnerState(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is known of an owner: its newest manifest, if any, among it."""

    owner: str
    owner_id: int
    epoch: int
    decided: tuple[DecidedEpochs, ...] = ()
    manifest: msgspec.Raw = NO_MANIFEST


class SnapshotRecord(msgspec.Struct, tag="snapshot", frozen=True):
    """What all records before it say, the first of its segment: those may be gone."""

    owners: tuple[OwnerState, ...]
    prepared: tuple[PreparedRecord, ...]
    at_us: int


Record = OwnerRecord | EpochRecord | PreparedRecord | DecisionRecord | SnapshotRecord
SHORTEN_BYTES = 1024 * 1024
"""So much lies behind a snapshot, and four times as much as its own size, before another one."""

_TRIES_MAX = 100
_CLEANER_TIMEOUT_US = 0  # who copies or cleans it may take long; the next decision goes on
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

    Attributes
    ----------
    snapshot_offset, snapshot_bytes
        Of the last snapshot that was read: where it is, and how large. 0: there was none.
    bytes_since
        How much was read behind it.
    """

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._cursor: FrameCursor | None = None
        self._start = 0
        self.snapshot_offset = self.snapshot_bytes = self.bytes_since = 0

    def read_new(self) -> Iterator[Record]:
        """Yield the durable records that were not yielded before.

        Where some of these are gone already, the first is a snapshot, which says what they said.

        Raises
        ------
        LogError
            Where a record is of a newer version.
        """
        while (frame := self._next()) is not None:
            self.bytes_since += frame.header.frame_size
            for content in frame.batch().column("record"):
                try:
                    record = _DECODER.decode(content.as_buffer())
                except msgspec.DecodeError as error:
                    message = (
                        f"the control topic {self._partition.directory} has a record that this "
                        f"version does not know, at offset {frame.header.base_offset}: {error}; "
                        "update it"
                    )
                    raise LogError(message) from error
                if isinstance(record, SnapshotRecord):
                    self.snapshot_offset = frame.header.base_offset
                    self.snapshot_bytes, self.bytes_since = frame.header.frame_size, 0
                yield record

    def _next(self) -> Frame | None:
        """Return the next frame; where it is gone, the first that is there."""
        for _ in range(_TRIES_MAX):
            try:
                if self._cursor is None:
                    self._cursor = self._partition.frames(self._start)
                return self._cursor.next()
            except OffsetOutOfRangeError:  # it was shortened
                self._start = self._partition.first_offset
                self._cursor = None
        message = (
            f"the control topic {self._partition.directory} was shortened {_TRIES_MAX} times while "
            "it was read; try again"
        )
        raise LogError(message)


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
        self._shortened_to = 0

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
        rows = pa.record_batch([pa.array([content], pa.binary())], schema=SCHEMA)
        appended = self.partition.append(rows)
        self.partition.sync(losses=appended.losses)

    def shorten(self, snapshot: Callable[[], SnapshotRecord]) -> None:
        """Remove what a snapshot says as well, and make a new one where it is worth its while.

        Only inside `exclusive`, by who has read all records. It may die, or the disk refuse, at
        any step: the next one goes on.

        Parameters
        ----------
        snapshot
            Returns what all records say.
        """
        records = self._records
        with suppress(LogError, OSError):
            if records.bytes_since > max(SHORTEN_BYTES, 4 * records.snapshot_bytes):
                self.partition.roll()  # so that the snapshot is the first of its segment
                self.append(snapshot())
                for _ in self.read_new():  # it changes nothing
                    pass
            if self._shortened_to < records.snapshot_offset:
                self._remove_before(records.snapshot_offset)
                self._shortened_to = records.snapshot_offset

    def _remove_before(self, offset: int) -> None:
        """Remove the segments before that of a snapshot, which is durable."""
        sealed = self.partition.sealed
        if self.partition.first_offset < offset:
            with sealed.exclusive(_CLEANER_TIMEOUT_US):
                sealed.remove_first(
                    [each for each in sealed.list() if each.head.base_offset < offset]
                )
