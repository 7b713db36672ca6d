"""Reads all partitions of topics, with positions of its own, and waits for more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import OptionError
from millstream.log.bells import DECISIONS
from millstream.log.reader import Isolation, PartitionReader

if TYPE_CHECKING:
    from millstream.log.topic import Topic


class TopicPartition(NamedTuple):
    """A partition of a topic, as users name it."""

    topic: str
    partition: int


Place: TypeAlias = int | tuple[str, int]
"""What methods take for a partition: its number where there is one topic, else with the topic."""

Positions: TypeAlias = (
    Mapping[int, int] | Mapping[tuple[str, int], int] | Mapping[TopicPartition, int]
)
"""Offset of the next row by partition."""

Columns: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]] | None
"""Of all topics, or of each by its name."""


class Consumer:
    """A reader of whole topics; made by `Log.consumer`.

    Parameters
    ----------
    topics
        What is read.
    clock
        Tells how long a poll has waited.
    start
        `"beginning"` or `"end"` of each partition.
    columns, isolation, where
        As for `PartitionReader`; columns and conditions perhaps by topic.
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        clock: Clock,
        *,
        start: str = "beginning",
        columns: Columns = None,
        isolation: Isolation = "read_committed",
        where: object = None,
    ) -> None:
        self._set_up(topics, clock, columns, isolation, where)
        if start not in {"beginning", "end"}:
            message = f"start is 'beginning' or 'end'; got {start!r}"
            raise OptionError(message)
        for topic in topics:
            for index in range(topic.partitions):
                place = TopicPartition(topic.name, index)
                self._readers[place] = self._reader(place, topic.partition(index).first_offset)
        if start == "end":
            self.seek_end()

    def _set_up(
        self,
        topics: Sequence[Topic],
        clock: Clock,
        columns: Columns,
        isolation: Isolation,
        where: object,
    ) -> None:
        """Keep what every consumer has; it reads no partition yet."""
        self._topics = {topic.name: topic for topic in topics}
        self._clock = clock
        self._bells = topics[0].bells
        self._columns = columns
        self._isolation: Isolation = isolation
        self._where = where
        self._turn = 0
        self._readers: dict[TopicPartition, PartitionReader] = {}
        self._paused: set[TopicPartition] = set()
        self.source: TopicPartition | None = None
        """Where the batch is from that `poll` returned last."""

    @property
    def partitions(self) -> list[TopicPartition]:
        """What it reads now, sorted."""
        return sorted(self._readers)

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """Offset of the next row of each partition."""
        return {place: self._readers[place].position for place in self.partitions}

    @property
    def paused(self) -> list[TopicPartition]:
        """Partitions that `poll` passes over, sorted."""
        return sorted(self._paused)

    def pause(self, *partitions: Place) -> None:
        """Let `poll` pass over partitions (without any: over all) until they are resumed."""
        self._paused.update(self._places(partitions))

    def resume(self, *partitions: Place) -> None:
        """Read partitions (without any: all) again from where they were paused."""
        self._paused.difference_update(self._places(partitions))

    def seek(self, partition: Place, offset: int) -> None:
        """Go to an offset of one partition; raises `OffsetOutOfRangeError`."""
        self._readers[self._place(partition)].seek(offset)

    def seek_time(self, timestamp_us: int, *partitions: Place) -> None:
        """Go to the first row of that time or later, in each partition or in those named."""
        for place in self._places(partitions):
            self._readers[place].seek_time(timestamp_us)

    def seek_beginning(self, *partitions: Place) -> None:
        """Go to the first row of each partition, or of those named."""
        for place in self._places(partitions):
            self._readers[place].seek(self._first_offset(place))

    def seek_end(self, *partitions: Place) -> None:
        """Go behind the last committed row of each partition, or of those named."""
        for place in self._places(partitions):
            self._readers[place].seek(self._stable_end(place))

    def poll(self, timeout_us: int = 0, rows_max: int = 65_536) -> pa.RecordBatch | None:
        """Return the next rows of some partition, or `None` when none came in time.

        Partitions take turns. Rows of one partition come in order; `source` names it. Waiting
        uses no processor: who appends wakes this, in whatever process it is.
        """
        batch = self._read(rows_max)
        if batch is not None or timeout_us <= 0:
            return batch
        deadline_us = self._clock.monotonic_us() + timeout_us
        while True:
            bells = self._listen()
            batch = self._read(rows_max)  # it may have come before anybody listened
            left_us = deadline_us - self._clock.monotonic_us()
            if batch is not None or left_us <= 0:
                return batch
            self._bells.wait(bells, left_us)

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        """Yield batches as they come, without end; the event loop goes on meanwhile."""
        from millstream.log.hosts.asynchronous import batches_of

        return batches_of(self)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield what is there now, and end."""
        while (batch := self.poll()) is not None:
            yield batch

    def _read(self, rows_max: int) -> pa.RecordBatch | None:
        places = list(self._readers)
        for _ in places:
            place = places[self._turn % len(places)]
            self._turn += 1
            if place not in self._paused:
                batch = self._readers[place].read(rows_max)
                if batch is not None:
                    self.source = place
                    return batch
        return None

    def _listen(self) -> list[int]:
        """Ask to be woken for the partitions that are read, and return their bells."""
        bells = [
            self._topics[place.topic].bell(place.partition)
            for place in self._readers
            if place not in self._paused
        ]
        if any(each.is_held_back for each in self._readers.values()):
            bells.append(DECISIONS)
        self._bells.listen(bells)
        return bells

    def _reader(self, place: TopicPartition, offset: int) -> PartitionReader:
        columns = self._columns
        if isinstance(columns, Mapping):
            columns = columns.get(place.topic)
        where = self._where
        if isinstance(where, Mapping):
            where = where.get(place.topic)
        return self._topics[place.topic].reader(
            place.partition,
            offset=offset,
            columns=columns,
            isolation=self._isolation,
            where=where,
        )

    def _first_offset(self, place: TopicPartition) -> int:
        return self._topics[place.topic].partition(place.partition).first_offset

    def _stable_end(self, place: TopicPartition) -> int:
        return self._topics[place.topic].stable_end(place.partition)

    def _places(self, partitions: Sequence[Place]) -> list[TopicPartition]:
        return [self._place(each) for each in partitions] if partitions else self.partitions

    def _place(self, partition: Place) -> TopicPartition:
        """Return the partition that is meant; raises `OptionError` where it is not read here."""
        if isinstance(partition, int):
            if len(self._topics) != 1:
                message = (
                    f"the consumer reads {sorted(self._topics)}; name a partition as "
                    f"(topic, number); got {partition}"
                )
                raise OptionError(message)
            place = TopicPartition(next(iter(self._topics)), partition)
        else:
            place = TopicPartition(*partition)
        if place not in self._readers:
            shown = [tuple(each) for each in self.partitions]
            message = f"the consumer does not read {tuple(place)}; it reads {shown}"
            raise OptionError(message)
        return place
