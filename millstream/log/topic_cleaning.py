"""Removes rows of a topic: old ones, replaced ones, those of some keys, whole generations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import LogError, OptionError
from millstream.log.cleaner import Cleaner, Cleaning, Committed
from millstream.log.disk_refusal import told
from millstream.log.erasure import BegunErasure, EraseJournal, Eraser, Erasure, fitted_keys
from millstream.log.frame_header import FrameHeader
from millstream.log.generations import ClosedGeneration
from millstream.log.partition import Partition
from millstream.log.tier.mover import remove_all_moved
from millstream.log.transactions import Transactions
from millstream.storage import Storage

if TYPE_CHECKING:
    from millstream.log.topic import Topic

_GOES_ON = "and clean it again: that ends what was begun"


def _told(partition: Partition) -> AbstractContextManager[None]:
    """Say which partition it was, where the disk refuses something inside."""
    return told(f"cleaning partition {partition.name} in {partition.directory}", _GOES_ON)


class TopicCleaning:
    """The cleaning of a topic; made by `Topic.cleaning`.

    Parameters
    ----------
    topic
        Whose rows.
    storage, clock, transactions
        Of the log.
    """

    def __init__(
        self, topic: Topic, storage: Storage, clock: Clock, transactions: Transactions
    ) -> None:
        self._topic = topic
        self._storage = storage
        self._clock = clock
        self._transactions = transactions

    def clean(self, timeout_us: int) -> list[Cleaning]:
        """Remove and compact what the settings say, and return what was done to each partition.

        Readers and writers go on beside it. Raises `LockTimeoutError` where another cleaner is
        at work for longer than `timeout_us`.
        """
        with told(f"cleaning topic {self._topic.name!r}", _GOES_ON):
            self._topic.refresh()
            if EraseJournal(self._storage, self._topic.directory).read():
                self.erase(None, timeout_us)
            cleaned = [self._clean(*place, timeout_us) for place in self._topic.places()]
            self._remove_expired_generations(timeout_us)
        return cleaned

    def _clean(self, generation: int, index: int, timeout_us: int) -> Cleaning:
        partition = self._topic.partition(index, generation)
        with _told(partition), partition.sealed.exclusive(timeout_us):
            cleaner = self._cleaner(generation, index)
            partition.sealed.tidy()
            cleaner.roll_if_old()
            partition.sync_all()  # what was sealed just now is among the sealed ones then
            removed = cleaner.remove_expired()
            compacted = cleaner.compact()
            return Cleaning(self._topic.name, index, *removed, *cleaner.move_out(), compacted)

    def erase(self, keys: pa.RecordBatch | pa.Table | None, timeout_us: int) -> Erasure:
        """Remove all rows of `keys`, and of an erasure that was not done; see `Log.erase`."""
        if not self._topic.config.key:
            message = (
                f"topic {self._topic.name!r} has no key columns; rows are erased by their keys"
            )
            raise OptionError(message)
        schema = pa.schema([self._topic.schema.field(name) for name in self._topic.config.key])
        journal = EraseJournal(self._storage, self._topic.directory)
        with (
            told(f"erasing keys of topic {self._topic.name!r}", _GOES_ON),
            self._storage.lock(f"{self._topic.directory}/erase.lock", timeout_us),
        ):
            self._topic.refresh()
            begun = journal.read()
            wanted = schema.empty_table() if keys is None else keys
            fitted = fitted_keys(wanted, schema, self._topic.name)
            if fitted.num_rows:
                begun.append(BegunErasure(fitted, self._synced_ends()))
                journal.write(begun)
            rows = segments = 0
            for each in begun:
                for place in self._topic.places():
                    if place in each.ends:  # else it was begun after the erasure
                        done = self._erase(*place, each.keys, each.ends[place], timeout_us)
                        rows, segments = rows + done[0], segments + done[1]
            if begun:
                journal.remove()
        of_all = pa.concat_tables([fitted, *(each.keys for each in begun)])
        count = fitted_keys(of_all, schema, self._topic.name).num_rows
        return Erasure(self._topic.name, count, rows, segments)

    def _synced_ends(self) -> dict[tuple[int, int], int]:
        """Return the end of each partition, by generation and index; no power cut takes it back."""
        ends = {}
        for generation, index in self._topic.places():
            partition = self._topic.partition(index, generation)
            end = partition.written_end
            partition.sync_all()  # it may find that some of these rows were lost
            ends[generation, index] = min(end, partition.written_end)
        return ends

    def _erase(
        self, generation: int, index: int, keys: pa.Table, end_offset: int, timeout_us: int
    ) -> tuple[int, int]:
        partition = self._topic.partition(index, generation)
        with _told(partition), partition.sealed.exclusive(timeout_us):
            partition.sealed.tidy()
            compression = self._topic.settings.refresh().compression_type
            return Eraser(partition, keys, end_offset, compression, self._clock).run()

    def clean_if_due(
        self, index: int, generation: int, stopping: Callable[[], bool] = bool
    ) -> None:
        """Clean one partition where that is worth its while, unless somebody is at it already.

        So are those of older generations, which nobody seals segments of any more.

        Raises
        ------
        LockTimeoutError
            Where another cleaner is at work.
        CleaningStoppedError
            Where `stopping`, asked now and then, said so.
        """
        present = self._topic.config.generation
        older = [each for each in self._topic.places() if each[0] != present]
        for place in dict.fromkeys([(generation, index), *older]):
            partition = self._topic.partition(place[1], place[0])
            with _told(partition), partition.sealed.exclusive(0):
                cleaner = self._cleaner(*place, stopping)
                partition.sealed.tidy()
                partition.sync_all()
                cleaner.remove_expired()
                cleaner.compact(if_worthwhile=True)
                cleaner.move_out()
        self._remove_expired_generations(0)

    def _cleaner(self, generation: int, index: int, stopping: Callable[[], bool] = bool) -> Cleaner:
        committed = Committed(partial(self._topic.stable_end, index, generation), self._is_aborted)
        return Cleaner(
            self._topic.partition(index, generation),
            self._topic.config.key,
            self._clock,
            committed,
            stopping,
            # A tombstone that went would let the row of an older generation come back.
            keeps_tombstones=generation != self._topic.config.generations[0],
        )

    def _remove_expired_generations(self, timeout_us: int) -> None:
        """Remove the oldest generations none of whose rows may be kept."""
        for each in self._topic.config.older:
            with ExitStack() as locks:
                for index in range(each.partitions):
                    partition = self._topic.partition(index, each.number)
                    locks.enter_context(partition.sealed.exclusive(timeout_us))
                if not all(
                    self._cleaner(each.number, index).is_expired(each.closed_us)
                    for index in range(each.partitions)
                ):
                    return
                self._remove_generation(each)

    def _remove_generation(self, oldest: ClosedGeneration) -> None:
        with self._storage.lock(f"{self._topic.log_path}/topics.lock"):
            self._topic.refresh()
            if oldest not in self._topic.config.older:
                return
            later = replace(self._topic.config, older=self._topic.config.older[1:])
            self._storage.write_file(f"{self._topic.directory}/topic.json", later.to_file())
            self._topic.refresh()
            # Nobody knows of it any more; what a crash leaves of it, deleting the topic removes.
            remove_all_moved(self._storage, f"{self._topic.directory}/{oldest.number}")
            self._storage.remove(f"{self._topic.directory}/{oldest.number}")
        self._topic.forget(oldest.number)

    def _is_aborted(self, header: FrameHeader) -> bool:
        """Return whether the rows of a frame before the last stable offset were taken back."""
        if not header.transaction:
            return False
        owner = header.owner_id, header.epoch, header.transaction
        known = self._transactions.decision(*owner)
        if known == "undecided":
            # That all before the last stable offset is decided may be another process's finding.
            self._transactions.refresh()
            known = self._transactions.decision(*owner)
        if known == "undecided":
            message = (
                f"partition of topic {self._topic.name!r}: transaction {owner} of a row at offset "
                f"{header.base_offset} is not decided; it is not cleaned"
            )
            raise LogError(message)
        return known == "aborted"
