"""Reads all partitions of topics, with positions of its own, and waits for more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import OptionError
from millstream.log.bells import DECISIONS, Rung
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
            self._begin(topic, topic.config.generations[0])
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
        self._generations: dict[str, int] = {}
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
    def generations(self) -> dict[str, int]:
        """Which generation of each topic is read, and positions are in.

        A topic that was given another number of partitions is read to the seam, and then on in
        the new ones: rows of one key come in their order.
        """
        return dict(self._generations)

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

    def seek(self, partition: Place, offset: int, generation: int | None = None) -> None:
        """Go to an offset of one partition.

        In another generation than the one that is read, the topic's other partitions are read
        from its beginning.

        Raises
        ------
        OffsetOutOfRangeError
            Where there is no such offset, or generation.
        """
        place = self._place(partition, generation)
        topic = self._topics[place.topic]
        if generation is not None and generation != self._generations[place.topic]:
            topic.refresh()
            topic.partition(place.partition, generation)  # raises where there is none
            self._go_to(topic, generation)
        self._readers[place].seek(offset)

    def seek_time(self, timestamp_us: int, *partitions: Place) -> None:
        """Go to the first row of that time or later, in each partition or in those named.

        Where that is before the generation that is read, or behind it, all of a topic that has
        no partition named goes to the first generation with such a row.
        """
        if not partitions:
            for topic in self._topics.values():
                self._go_to(topic, _generation_at(topic, timestamp_us))
        for place in self._places(partitions):
            self._readers[place].seek_time(timestamp_us)

    def seek_beginning(self, *partitions: Place) -> None:
        """Go to the first row of each partition, or of those named.

        Without any named, that is in the oldest generation of each topic; else in the one read.
        """
        if not partitions:
            for topic in self._topics.values():
                topic.refresh()
                self._go_to(topic, topic.config.generations[0])
        for place in self._places(partitions):
            self._readers[place].seek(self._first_offset(place))

    def seek_end(self, *partitions: Place) -> None:
        """Go behind the last committed row of each partition, or of those named.

        Without any named, that is in the present generation of each topic; else in the one read.
        """
        if not partitions:
            for topic in self._topics.values():
                topic.refresh()
                self._go_to(topic, topic.config.generation)
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
            rung = self._listen()
            batch = self._read(rows_max)  # it may have come before anybody listened
            left_us = deadline_us - self._clock.monotonic_us()
            if batch is not None or left_us <= 0:
                return batch
            self._bells.wait(rung, left_us)

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        """Yield batches as they come, without end; the event loop goes on meanwhile."""
        from millstream.log.hosts.asynchronous import batches_of

        return batches_of(self)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield what is there now, and end."""
        while (batch := self.poll()) is not None:
            yield batch

    def _read(self, rows_max: int) -> pa.RecordBatch | None:
        batch = self._read_some(rows_max)
        while batch is None and self._pass_seams():
            batch = self._read_some(rows_max)
        return batch

    def _read_some(self, rows_max: int) -> pa.RecordBatch | None:
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

    def _pass_seams(self) -> bool:
        """Go on in the next generation of topics that were read to the seam of one."""
        passed = False
        for name, topic in self._topics.items():
            generation = self._generations[name]
            if topic.is_older(generation):
                readers = {
                    place.partition: reader
                    for place, reader in self._readers.items()
                    if place.topic == name
                }
                if topic.is_read(generation, readers):
                    self._begin(topic, topic.config.following(generation))
                    passed = True
        return passed

    def _go_to(self, topic: Topic, generation: int) -> None:
        """Read a generation of a topic, from its beginning where it is not read already."""
        if self._generations[topic.name] != generation:
            self._begin(topic, generation)

    def _begin(self, topic: Topic, generation: int) -> None:
        """Read a generation of a topic from its beginning."""
        for place in [each for each in self._readers if each.topic == topic.name]:
            del self._readers[place]
            self._paused.discard(place)
        self._generations[topic.name] = generation
        for index in range(topic.config.partitions_of(generation)):
            place = TopicPartition(topic.name, index)
            self._readers[place] = self._reader(place, self._first_offset(place))

    def _listen(self) -> Rung:
        """Ask to be woken when there is more to read, and return what is known of the bells."""
        return self._bells.listen(self._awaited())

    def _awaited(self) -> list[int]:
        """Return the bells of the partitions that are read."""
        bells = [
            self._topics[place.topic].bell(place.partition, self._generations[place.topic])
            for place in self._readers
            if place not in self._paused
        ]
        if any(each.is_held_back for each in self._readers.values()):
            bells.append(DECISIONS)
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
            generation=self._generations[place.topic],
            offset=offset,
            columns=columns,
            isolation=self._isolation,
            where=where,
        )

    def _first_offset(self, place: TopicPartition) -> int:
        generation = self._generations[place.topic]
        return self._topics[place.topic].partition(place.partition, generation).first_offset

    def _stable_end(self, place: TopicPartition) -> int:
        generation = self._generations[place.topic]
        return self._topics[place.topic].stable_end(place.partition, generation)

    def _places(self, partitions: Sequence[Place]) -> list[TopicPartition]:
        return [self._place(each) for each in partitions] if partitions else self.partitions

    def _place(self, partition: Place, generation: int | None = None) -> TopicPartition:
        """Return the partition that is meant; raises `OptionError` where it is not read here.

        That of another `generation` than the one that is read need not be read.
        """
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
        present = self._generations.get(place.topic)
        if None not in {generation, present} and generation != present:
            return place
        if place not in self._readers:
            shown = [tuple(each) for each in self.partitions]
            message = f"the consumer does not read {tuple(place)}; it reads {shown}"
            raise OptionError(message)
        return place


def _generation_at(topic: Topic, timestamp_us: int) -> int:
    """Return the first generation that has a row of that time or later, else the present one."""
    topic.refresh()
    for each in topic.config.older:
        for index, end in enumerate(each.ends):
            if topic.offset_at_time(index, timestamp_us, each.number) < end:
                return each.number
    return topic.config.generation
