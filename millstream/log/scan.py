"""Reads what a topic holds now, once: some columns, some rows, partition after partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from millstream.errors import OptionError
from millstream.log.columns import TIMESTAMP_COLUMN
from millstream.log.condition import Condition, bind
from millstream.log.predicate import And, Comparison, Operator, Predicate
from millstream.log.projection import readable_schema
from millstream.log.reader import Isolation

if TYPE_CHECKING:
    from millstream.log.topic import Topic

Bound = int | datetime
"""An offset in each partition, or a time."""


@dataclass(frozen=True)
class Scan:
    """What is to be read of a topic.

    Parameters
    ----------
    columns
        Names in the order wanted; `None` for all.
    where
        A condition on rows; see `millstream.log.predicate`.
    start, end
        Offsets in each partition or times (with a zone), from `start` up to, not including,
        `end`. The time of a row is that of the topic's time column or, where it has none, that of
        `_timestamp`.
    partitions
        Which; `None` for all.
    isolation
        As for `PartitionReader`.

    Offsets and partitions are those of the topic's present generation: where they are named,
    nothing is read of older ones.
    """

    columns: Sequence[str] | None = None
    where: object = None
    start: Bound | None = None
    end: Bound | None = None
    partitions: Sequence[int] | None = None
    isolation: Isolation = "read_committed"

    def reader(self, topic: Topic) -> pa.RecordBatchReader:
        """Return a stream of the rows that are there when each partition is reached.

        The batches are views of the files; no more than one is made at a time.
        """
        names = topic.schema.names if self.columns is None else list(self.columns)
        schema = topic.read_schema(names)
        return pa.RecordBatchReader.from_batches(schema, self._batches(topic, names))

    def _batches(self, topic: Topic, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        condition = self._condition(topic)
        return (
            batch
            for place in self._places(topic)
            for batch in self._batches_of(topic, place, names, condition)
        )

    def _places(self, topic: Topic) -> list[tuple[int, int]]:
        """Return what is read, as (generation, partition)."""
        if self.partitions is not None:
            return [(topic.config.generation, index) for index in self.partitions]
        if isinstance(self.start, int) or isinstance(self.end, int):
            return [(topic.config.generation, index) for index in range(topic.partitions)]
        return topic.places()

    def _batches_of(
        self,
        topic: Topic,
        place: tuple[int, int],
        names: Sequence[str],
        condition: Condition | None,
    ) -> Iterator[pa.RecordBatch]:
        generation, index = place
        partition = topic.partition(index, generation)
        first, end = partition.first_offset, partition.durable_end
        start = _offset(topic, generation, index, self.start)
        # Rows behind the first that reaches a time may be earlier than it: the condition decides.
        until = None if isinstance(self.end, datetime) else self.end
        if start is not None and start > first:
            first = min(start, end)
        reader = topic.reader(
            index,
            generation=generation,
            offset=first,
            columns=names,
            isolation=self.isolation,
            where=condition,
        )
        while (batch := reader.read(until=until)) is not None:
            yield batch

    def _condition(self, topic: Topic) -> Condition | None:
        """Return the condition with the times, as far as they are the time column's."""
        parts: list[Predicate] = []
        time = topic.config.time or TIMESTAMP_COLUMN
        bounds: list[tuple[Bound | None, Operator]] = [(self.start, ">="), (self.end, "<")]
        for bound, operator in bounds:
            if isinstance(bound, datetime):
                parts.append(Comparison(time, operator, _in_zone_of(topic, bound)))
        if self.where is None and not parts:
            return None
        times = bind(And(tuple(parts)), readable_schema(topic.schema), topic.name)
        if self.where is None:
            return times
        condition = bind(self.where, readable_schema(topic.schema), topic.name)
        return condition.also(times) if parts else condition


def _offset(topic: Topic, generation: int, index: int, bound: Bound | None) -> int | None:
    if isinstance(bound, datetime):
        return topic.offset_at_time(index, _timestamp_us(bound), generation)
    return bound


def _timestamp_us(moment: datetime) -> int:
    if moment.tzinfo is None:
        message = f"a time needs a zone, e.g. tzinfo=UTC; got {moment!r}"
        raise OptionError(message)
    return int(pa.scalar(moment, pa.timestamp("us", "UTC")).value)


def _in_zone_of(topic: Topic, moment: datetime) -> Any:
    """Return the time as a value of the time column, which is in UTC where it has no zone."""
    scalar = pa.scalar(_timestamp_us(moment), pa.int64()).cast(pa.timestamp("us", "UTC"))
    time = topic.config.time
    has_zone = time is None or topic.schema.field(time).type.tz is not None
    return scalar if has_zone else scalar.cast(pa.timestamp("us"))
