"""The committed offsets of a group: rows of a partition of its own, the last one of each counts.

Being frames like any others, they can be part of a transaction: then they count when it is
committed. The partition is kept short: once it has a few segments, what counts is written anew
behind it, each row with the place (`at`) that it has in the order of commits, and the first
segments are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import LockTimeoutError, LogError
from millstream.log.frame import Frame
from millstream.log.frame_header import FLAG_CONTROL
from millstream.log.groups.partition_id import PartitionId
from millstream.log.partition import Partition
from millstream.log.settings import LiveSettings, TopicSettings
from millstream.log.transactions import Transactions, Writer
from millstream.storage import Storage

SEGMENT_BYTES = 1024 * 1024
SEGMENTS_MAX = 2
"""More of them, and what counts is written anew."""

LOOK_EVERY = 64
"""Commits after which a process looks how many segments there are."""

SCHEMA = pa.schema(
    [
        pa.field("topic_id", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64()),  # null: no offset is committed any more
        pa.field("member", pa.string()),  # null: nobody's; the group had no members
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("committed_us", pa.int64(), nullable=False),
        pa.field("at", pa.int64(), nullable=False),  # −1: this row's own offset
    ]
)


class Committer(NamedTuple):
    """Who commits: a member in one of its lives; or nobody (`None`, 0)."""

    member: str | None
    epoch: int


class Committed(NamedTuple):
    """A committed offset.

    Attributes
    ----------
    offset
        Of the next row to be processed; `None`: none is committed.
    by
        Who committed it.
    committed_us
        When.
    at
        Its place in the order of commits.
    """

    offset: int | None
    by: Committer
    committed_us: int
    at: int


class Undecided(NamedTuple):
    """Offsets of a transaction that was not decided yet."""

    owner_id: int
    epoch: int
    number: int
    offsets: Mapping[PartitionId, Committed]


class CommittedOffsets:
    """The committed offsets that lie in `directory`.

    Parameters
    ----------
    directory, storage, clock
        Where they are.
    name
        For messages.
    transactions
        Of the log.
    """

    def __init__(
        self, directory: str, storage: Storage, clock: Clock, name: str, transactions: Transactions
    ) -> None:
        self.directory = directory
        self._storage = storage
        self._clock = clock
        self._name = name
        self._transactions = transactions
        self._committed: dict[PartitionId, Committed] = {}
        self._undecided: list[tuple[int, Undecided]] = []
        self._commits = 0
        self._open()

    @property
    def partition(self) -> Partition:
        """Where the rows are."""
        return self._partition

    def _open(self) -> None:
        self._losses: int | None = None
        self._partition = Partition(
            self.directory, SCHEMA, storage=self._storage, clock=self._clock,
            settings=LiveSettings(TopicSettings(segment_bytes=SEGMENT_BYTES)), name=self._name,
        )  # fmt: skip
        self._cursor = self._partition.frames(self._partition.first_offset)

    def commit(
        self,
        offsets: Mapping[PartitionId, int | None],
        by: Committer,
        fence: Callable[[], None],
        writer: Writer | None = None,
        transaction: int = 0,
    ) -> None:
        """Append offsets as one frame; they are durable, unless they are a transaction's.

        Parameters
        ----------
        offsets
            Of the next rows; `None` takes a commit back.
        by
            Who commits.
        fence
            Called where nobody else can append: raises where `by` may not commit these.
        writer, transaction
            Whose transaction they belong to; `sync` before it is decided.
        """
        fence()  # also where there is nothing left to append to
        now_us = self._clock.now_us()
        batch = _rows({each: Committed(offset, by, now_us, -1) for each, offset in offsets.items()})
        appended = self._partition.append(
            batch,
            owner_id=0 if writer is None else writer.owner_id,
            epoch=0 if writer is None else writer.epoch,
            transaction=transaction,
            fence=fence,
        )
        if writer is None:
            self._partition.sync(appended.end_offset, appended.losses)
        elif self._losses is None:
            self._losses = appended.losses
        self._commits += 1
        if self._commits % LOOK_EVERY == 0:
            # The commit is done, whatever comes of this: another one tries again.
            with suppress(LogError, OSError):
                self.shorten_if_long()

    def sync(self) -> None:
        """Return when all that was committed so far is durable."""
        losses, self._losses = self._losses, None
        self._partition.sync(losses=losses)

    def settle(self, fence: Callable[[], None]) -> None:
        """Return when every commit that passed its fence before is seen by `refresh`.

        Whoever commits is in a critical section from its fence to the end of its append; this
        goes through that section itself.
        """
        empty = pa.RecordBatch.from_pylist([], SCHEMA)
        self._partition.append(empty, flags=FLAG_CONTROL, fence=fence)
        self._partition.sync()

    def refresh(self) -> None:
        """Take note of what was committed and decided since."""
        while (frame := self._next_frame()) is not None:
            header = frame.header
            if header.row_count == 0:
                continue
            offsets = _committed_of(frame)
            if header.transaction == 0:
                self._apply(offsets)
                continue
            undecided = Undecided(header.owner_id, header.epoch, header.transaction, offsets)
            self._undecided.append((header.base_offset, undecided))
        if self._undecided:
            self._resolve()

    def committed(self) -> dict[PartitionId, Committed]:
        """Return what is committed, as of the last `refresh`."""
        return {each: found for each, found in self._committed.items() if found.offset is not None}

    def undecided(self, partitions: Collection[PartitionId]) -> list[Undecided]:
        """Return open transactions that have offsets of `partitions`, as of the last `refresh`."""
        return [
            each
            for _, each in self._undecided
            if any(partition in each.offsets for partition in partitions)
        ]

    def shorten_if_long(self) -> None:
        """Where there are many segments, write what counts anew, and remove the others."""
        if len(self._partition.segments()) <= SEGMENTS_MAX:
            return
        self.refresh()
        # Not up to the copy's own place: others may have committed in between.
        limit = min([self._cursor.offset, *(base for base, _ in self._undecided)])
        if self._committed:
            self._partition.append(_rows(self._committed))
        self._partition.sync()
        sealed = self._partition.sealed
        with suppress(LockTimeoutError), sealed.exclusive(timeout_us=0):  # else another does it
            sealed.remove_first(
                [each for each in sealed.list() if sealed.end_offset(each) <= limit]
            )

    def _next_frame(self) -> Frame | None:
        """Return the next frame; where others removed it, the first of those that are left."""
        try:
            return self._cursor.next()
        except LogError:
            before = self._cursor.offset
            self._open()
            if self._cursor.offset <= before:
                raise  # it is there, and damaged
            return self._cursor.next()

    def _resolve(self) -> None:
        """Apply the offsets of transactions that were committed; forget those of aborted ones."""
        self._transactions.refresh()
        rest = []
        for base, each in self._undecided:
            match self._transactions.decision(each.owner_id, each.epoch, each.number):
                case "committed":
                    self._apply(each.offsets)
                case "undecided":
                    rest.append((base, each))
                case "aborted":
                    pass
        self._undecided = rest

    def _apply(self, offsets: Mapping[PartitionId, Committed]) -> None:
        for partition, found in offsets.items():
            known = self._committed.get(partition)
            if known is None or known.at < found.at:
                self._committed[partition] = found


def _rows(offsets: Mapping[PartitionId, Committed]) -> pa.RecordBatch:
    columns = [
        [each.topic_id for each in offsets],
        [each.generation for each in offsets],
        [each.partition for each in offsets],
        [found.offset for found in offsets.values()],
        [found.by.member for found in offsets.values()],
        [found.by.epoch for found in offsets.values()],
        [found.committed_us for found in offsets.values()],
        [found.at for found in offsets.values()],
    ]
    arrays = [pa.array(each, field.type) for each, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _committed_of(frame: Frame) -> dict[PartitionId, Committed]:
    columns = (column.to_pylist() for column in frame.batch().columns)
    found = {}
    for row, values in enumerate(zip(*columns, strict=True)):
        topic_id, generation, partition, offset, member, epoch, committed_us, at = values
        place = frame.header.base_offset + row if at < 0 else at
        found[PartitionId(topic_id, generation, partition)] = Committed(
            offset, Committer(member, epoch), committed_us, place
        )
    return found
