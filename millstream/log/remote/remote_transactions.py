"""Transactions of a served log: what was decided is read here, and the server decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Literal, cast

from millstream.clock import Clock
from millstream.errors import FencedError
from millstream.log.control_topic import SCHEMA, RecordReader
from millstream.log.frame_header import FrameHeader
from millstream.log.partition import Partition
from millstream.log.remote import messages as m
from millstream.log.remote.remote_partition import Asker, RemotePartition
from millstream.log.transactions import Participant, Transactions, Unsynced, Writer, fenced
from millstream.storage import Storage


class RemoteTransactions(Transactions):
    """The state of a served log's control topic, and requests that change it.

    Parameters
    ----------
    path, storage, clock
        Of the log.
    asker
        Asks the server.
    """

    def __init__(self, path: str, storage: Storage, clock: Clock, asker: Asker) -> None:
        self._asker = asker
        control = RemotePartition(asker, m.Place(m.CONTROL, 0), SCHEMA, name="control")
        self._records = RecordReader(cast("Partition", control))
        super().__init__(path, storage, clock, self._sync_participant, lambda: None)

    def reopened(self) -> RemoteTransactions:
        """Return another object of the same state, for another thread."""
        return RemoteTransactions(self._path, self._storage, self._clock, self._asker)

    def refresh(self) -> None:
        """Take note of what was appended since."""
        for record in self._records.read_new():
            self._apply(record)

    def writer(self, owner: str) -> Writer:
        """Return a writer of the next epoch of `owner`, and fence all before it."""
        name = self._asker.ask(m.TakeEpoch(owner), m.Epoch).writer
        self.refresh()
        return Writer(name.owner, name.owner_id, name.epoch)

    def check(self, writer: Writer) -> None:
        """Raise `FencedError` when `writer` was superseded."""
        self.refresh()
        current = self.current_epoch(writer.owner_id)
        if current > writer.epoch:
            raise FencedError(fenced(writer, current))

    def sync(
        self, participants: Iterable[Participant], losses: Unsynced = MappingProxyType({})
    ) -> None:
        """Return when all frames of `participants` are durable; see `Transactions.sync`."""
        wanted = tuple(participants)
        self._asker.ask(m.SyncAll(wanted, tuple(losses.get(each) for each in wanted)), m.Done)

    def prepare(self, writer: Writer, number: int, participants: Sequence[Participant]) -> None:
        """Make a transaction's frames durable and say so; see `Transactions.prepare`."""
        self._asker.ask(m.Prepare(_name(writer), number, tuple(participants)), m.Done)
        self.refresh()

    def expire(self, header: FrameHeader, partition: Partition) -> bool:
        """Return `False`: the server's own readers abort what is too old."""
        del header, partition
        return False

    def decide(
        self,
        writer: Writer,
        number: int,
        outcome: Literal["commit", "abort"],
        manifest: bytes | None = None,
    ) -> None:
        """Decide a transaction for all its partitions; see `Transactions.decide`."""
        content = None if manifest is None else manifest.decode(errors="replace")
        self._asker.ask(m.Decide(_name(writer), number, outcome, content), m.Done)
        self.refresh()

    def _sync_participant(self, participant: Participant, losses: int | None) -> None:
        self.sync([participant], {participant: losses})


def _name(writer: Writer) -> m.WriterName:
    return m.WriterName(writer.owner, writer.owner_id, writer.epoch)
