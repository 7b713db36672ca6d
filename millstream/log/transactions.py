"""Owners, epochs and decisions: what makes rows of several partitions visible at once.

open ── prepare: all frames durable ──▶ prepared ── one append to the control topic ──▶ decided
  └───────── a higher epoch of its owner ──────────┴──▶ aborted
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import msgspec

from millstream.clock import Clock
from millstream.errors import FencedError, LockTimeoutError, TransactionError
from millstream.log.control_topic import (
    NO_MANIFEST,
    ControlTopic,
    DecisionRecord,
    EpochRecord,
    OwnerRecord,
    OwnerState,
    PreparedRecord,
    Record,
    SnapshotRecord,
    control_directory,
)
from millstream.log.decided import Decided
from millstream.log.epoch_cells import EpochCells
from millstream.log.frame_header import FrameHeader
from millstream.log.partition import Partition
from millstream.storage import Storage

Decision = Literal["committed", "aborted", "undecided"]
Participant = tuple[str, int]
"""A topic's name and a partition."""

Unsynced = Mapping[Participant, int | None]
"""Who was appended to, each with the `losses` of its first append: see `Partition.sync`."""

GROUP_PARTICIPANT = "group:"
"""What the offsets of a group are called as a participant begins so; no topic's name does."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: an owner in one of its lives. A later life fences it."""

    owner: str
    owner_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A transaction that waits for its decision.

    Attributes
    ----------
    writer
        Who prepared it. As long as no later life of the owner began, `Transactions.decide`
        takes it from anybody.
    number
        Of the transaction.
    participants
        Topics and partitions that have frames of it; not all, where some were synced before.
    since_us
        When it was prepared.
    """

    writer: Writer
    number: int
    participants: tuple[Participant, ...]
    since_us: int


class Transactions:
    """The state of the control topic, and the appends that change it.

    Nothing is created on disk before the first writer is.

    Parameters
    ----------
    path, storage, clock
        Of the log.
    sync
        Makes a participant's frames durable.
    admit
        Raises where the log takes no writers.
    """

    def __init__(
        self,
        path: str,
        storage: Storage,
        clock: Clock,
        sync: Callable[[Participant, int | None], None],
        admit: Callable[[], None],
    ) -> None:
        self._path = path
        self._storage = storage
        self._clock = clock
        self._sync = sync
        self._admit = admit
        self._ids: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._epochs: dict[int, int] = {}
        self._decided = Decided()
        self._manifests: dict[int, bytes] = {}
        self._prepared: dict[tuple[int, int, int], PreparedRecord] = {}
        self._opened: tuple[ControlTopic, EpochCells] | None = None
        self.refresh()

    def reopened(self) -> Transactions:
        """Return another object of the same state, for another thread."""
        return Transactions(self._path, self._storage, self._clock, self._sync, self._admit)

    def refresh(self) -> None:
        """Take note of what other processes appended."""
        if self._opened is None and not self._storage.exists(control_directory(self._path)):
            return  # nobody ever owned anything
        control, _ = self._open()
        self._read(control)

    def writer(self, owner: str) -> Writer:
        """Return a writer of the next epoch of `owner`, and fence all before it.

        What these have not decided is aborted from now on, whatever its number.
        """
        self._admit()
        control, cells = self._open()
        with control.exclusive():
            self._read(control)
            owner_id = self._ids.get(owner)
            if owner_id is None:
                owner_id = len(self._ids) + 1
                cells.check_capacity(owner_id)
                control.append(OwnerRecord(owner, owner_id))
            epoch = self._epochs.get(owner_id, 0) + 1
            # First the record, which decides, then the cell, which stops the stragglers: what
            # they append in between has an epoch that this record has already aborted.
            self._append(control, EpochRecord(owner_id, epoch, self._clock.now_us()))
            cells.raise_to(owner_id, epoch)
        return Writer(owner, owner_id, epoch)

    def check(self, writer: Writer) -> None:
        """Raise `FencedError` when `writer` was superseded; one read of mapped memory."""
        _, cells = self._open()
        current = cells.epoch(writer.owner_id)
        if current > writer.epoch:
            raise FencedError(fenced(writer, current))

    def sync(
        self,
        participants: Iterable[Participant],
        losses: Unsynced = MappingProxyType({}),
    ) -> None:
        """Return when all frames of `participants` that were written are durable.

        `losses` says of whoever appended to which what `Partition.sync` has to know of it; raises
        `LostRowsError` where their rows were lost.
        """
        for participant in participants:
            self._sync(participant, losses.get(participant))

    def prepare(self, writer: Writer, number: int, participants: Sequence[Participant]) -> None:
        """Make a transaction's frames durable and say so: it survives its process from now on.

        Raises
        ------
        FencedError
            When `writer` was superseded: the transaction is aborted.
        """
        self.sync(participants)
        control, _ = self._open()
        with control.exclusive():
            self._read(control)
            self._check_epoch(writer)
            if self.decision(writer.owner_id, writer.epoch, number) == "aborted":
                message = (
                    f"transaction {number} of {writer.owner!r} was aborted: it was open for longer "
                    "than transaction.timeout.ms of a topic, or somebody decided it; begin another"
                )
                raise TransactionError(message)
            now_us = self._clock.now_us()
            named = tuple(participants)
            record = PreparedRecord(writer.owner_id, writer.epoch, number, named, now_us)
            self._append(control, record)

    def decide(
        self,
        writer: Writer,
        number: int,
        outcome: Literal["commit", "abort"],
        manifest: bytes | None = None,
    ) -> None:
        """Decide a transaction for all its partitions by one durable append.

        Parameters
        ----------
        number
            Of the transaction. Its frames must be durable.
        manifest
            JSON that is recorded with the decision; `newest_manifest` returns it.

        Raises
        ------
        FencedError
            When `writer` was superseded: its transactions are aborted.
        TransactionError
            When the transaction was decided otherwise, or the manifest is no JSON.
        """
        _check_manifest(manifest)
        control, _ = self._open()
        with control.exclusive():
            self._read(control)
            self._check_epoch(writer)
            wanted: Decision = "committed" if outcome == "commit" else "aborted"
            known = self.decision(writer.owner_id, writer.epoch, number)
            if known != "undecided":
                if known == wanted:
                    return
                message = (
                    f"transaction {number} of {writer.owner!r}, epoch {writer.epoch}, is {known} "
                    f"already; it cannot be {wanted}"
                )
                raise TransactionError(message)
            raw = NO_MANIFEST if manifest is None else msgspec.Raw(manifest)
            now_us = self._clock.now_us()
            record = DecisionRecord(writer.owner_id, writer.epoch, number, outcome, now_us, raw)
            self._append(control, record)

    def expire(self, header: FrameHeader, partition: Partition) -> bool:
        """Abort the undecided transaction of a frame where it is too old and was never prepared.

        Returns whether it is decided now. One that is prepared waits for its owner, however long.
        """
        timeout_ms = partition.settings.known.transaction_timeout_ms
        if self._clock.now_us() - header.appended_us <= timeout_ms * 1_000:
            return False
        key = header.owner_id, header.epoch, header.transaction
        if key in self._prepared:
            return False
        control, _ = self._open()
        with suppress(LockTimeoutError), control.exclusive():
            self._read(control)
            if key in self._prepared:
                return False
            if self.decision(*key) == "undecided":
                self._append(control, DecisionRecord(*key, "abort", self._clock.now_us()))
            return True
        return False  # somebody decides something; the next reader tries again

    def decision(self, owner_id: int, epoch: int, number: int) -> Decision:
        """Return what is known of a transaction; call `refresh` first for what is new."""
        is_committed = self._decided.get(owner_id, epoch, number)
        if is_committed is not None:
            return "committed" if is_committed else "aborted"
        # A higher epoch aborts all that was undecided when it was taken.
        return "aborted" if epoch < self._epochs.get(owner_id, 0) else "undecided"

    def current_epoch(self, owner_id: int) -> int:
        """Return the newest epoch of an owner that is known; 0: nobody has this id."""
        return self._epochs.get(owner_id, 0)

    def partition(self) -> Partition | None:
        """Return the partition of the control topic; `None`: nobody ever owned anything."""
        if self._opened is None and not self._storage.exists(control_directory(self._path)):
            return None
        control, _ = self._open()
        return control.partition

    def owner(self, owner_id: int) -> str:
        """Return the name behind an owner id."""
        return self._owners.get(owner_id, f"owner {owner_id}")

    def newest_manifest(self, owner: str) -> bytes | None:
        """Return the manifest of the last committed transaction of `owner` that had one."""
        self.refresh()
        owner_id = self._ids.get(owner)
        return None if owner_id is None else self._manifests.get(owner_id)

    def owners(self) -> list[str]:
        """Return the names of all owners, in the order of their first appearance."""
        self.refresh()
        return list(self._ids)

    def prepared(self) -> list[PreparedTransaction]:
        """Return the transactions that wait for a decision."""
        self.refresh()
        return [
            PreparedTransaction(
                Writer(self._owners[each.owner_id], each.owner_id, each.epoch),
                each.number,
                each.participants,
                each.at_us,
            )
            for each in self._prepared.values()
        ]

    def _open(self) -> tuple[ControlTopic, EpochCells]:
        """Return the control topic and the epochs' cells, created where they are missing."""
        if self._opened is None:
            control = ControlTopic(self._path, self._storage, self._clock)
            cells = EpochCells(control.directory, self._storage)
            if not cells.is_of_this_boot():
                with control.exclusive():
                    self._read(control)
                    cells.rebuild(self._epochs)
            self._opened = control, cells
        return self._opened

    def _read(self, control: ControlTopic) -> None:
        for record in control.read_new():
            self._apply(record)

    def _append(self, control: ControlTopic, record: Record) -> None:
        """Append a record and take note of it; then shorten the topic, now and then."""
        control.append(record)
        self._read(control)
        control.shorten(self._snapshot)

    def _check_epoch(self, writer: Writer) -> None:
        """Raise `FencedError` unless `writer` is the newest; the control topic was read."""
        current = self._epochs.get(writer.owner_id, 0)
        if current != writer.epoch:
            raise FencedError(fenced(writer, current))

    def _apply(self, record: Record) -> None:
        match record:
            case OwnerRecord(owner=owner, owner_id=owner_id):
                self._ids[owner] = owner_id
                self._owners[owner_id] = owner
            case EpochRecord(owner_id=owner_id, epoch=epoch):
                # A reader that was overtaken may read on with a snapshot that it knows in part.
                self._epochs[owner_id] = max(epoch, self._epochs.get(owner_id, 0))
                over = [key for key in self._prepared if key[0] == owner_id and key[1] < epoch]
                for key in over:
                    del self._prepared[key]
            case PreparedRecord(owner_id=owner_id, epoch=epoch, number=number):
                self._prepared[owner_id, epoch, number] = record
            case DecisionRecord(owner_id=owner_id, epoch=epoch, number=number):
                committed = record.outcome == "commit"
                self._decided.add(owner_id, epoch, number, is_committed=committed)
                self._prepared.pop((owner_id, epoch, number), None)
                manifest = bytes(record.manifest)
                if committed and manifest:
                    self._manifests[owner_id] = manifest
            case SnapshotRecord(owners=owners, prepared=prepared):
                self._restore(owners, prepared)

    def _restore(self, owners: Sequence[OwnerState], prepared: Sequence[PreparedRecord]) -> None:
        """Take over a snapshot: it says all that was said before it."""
        self._ids = {each.owner: each.owner_id for each in owners}
        self._owners = {each.owner_id: each.owner for each in owners}
        self._epochs = {each.owner_id: each.epoch for each in owners}
        self._decided = Decided({each.owner_id: each.decided for each in owners})
        manifests = {each.owner_id: bytes(each.manifest) for each in owners}
        self._manifests = {owner_id: each for owner_id, each in manifests.items() if each}
        self._prepared = {(each.owner_id, each.epoch, each.number): each for each in prepared}

    def _snapshot(self) -> SnapshotRecord:
        """Return all that the records say that were read."""
        states = []
        for owner_id, owner in sorted(self._owners.items()):
            epoch = self._epochs.get(owner_id, 0)
            decided = self._decided.runs_of(owner_id, epoch)
            manifest = self._manifests.get(owner_id)
            raw = NO_MANIFEST if manifest is None else msgspec.Raw(manifest)
            states.append(OwnerState(owner, owner_id, epoch, decided, raw))
        return SnapshotRecord(tuple(states), tuple(self._prepared.values()), self._clock.now_us())


def _check_manifest(manifest: bytes | None) -> None:
    """Raise `TransactionError` unless a manifest is JSON: else nobody could read the record."""
    try:
        if manifest is not None:
            msgspec.json.decode(manifest)
    except msgspec.DecodeError as error:
        message = f"the manifest is no JSON: {error}; got {manifest!r}"
        raise TransactionError(message) from error


def fenced(writer: Writer, current: int) -> str:
    """Return what is said to a writer whose owner has a newer epoch, `current`."""
    return (
        f"{writer.owner!r} writes with epoch {writer.epoch}, but epoch {current} was taken since: "
        "another run of it started; what this one did not commit is aborted. Let one of them run"
    )
