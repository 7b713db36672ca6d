"""Reads all partitions of a topic, with positions of its own, and waits for more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import OptionError
from millstream.log.reader import Isolation, PartitionReader

if TYPE_CHECKING:
    from millstream.log.topic import Topic

PAUSE_FIRST_US = 100
PAUSE_MAX_US = 5_000


class Consumer:
    """A reader of a whole topic; made by `Log.consumer`.

    Parameters
    ----------
    topic
        What is read.
    clock
        Tells how long a poll has waited.
    start
        `"beginning"` or `"end"` of each partition.
    columns, isolation
        As for `PartitionReader`.
    """

    def __init__(
        self,
        topic: Topic,
        clock: Clock,
        *,
        start: Literal["beginning", "end"] = "beginning",
        columns: Sequence[str] | None = None,
        isolation: Isolation = "read_committed",
    ) -> None:
        self._topic = topic
        self._clock = clock
        self._turn = 0
        self._readers: list[PartitionReader] = [
            topic.reader(
                index,
                offset=topic.partition(index).first_offset,
                columns=columns,
                isolation=isolation,
            )
            for index in range(topic.partitions)
        ]
        if start == "end":
            self.seek_end()
        elif start != "beginning":
            message = f"start is 'beginning' or 'end'; got {start!r}"
            raise OptionError(message)

    @property
    def positions(self) -> list[int]:
        """Offset of the next row of each partition."""
        return [each.position for each in self._readers]

    def seek(self, partition: int, offset: int) -> None:
        """Go to an offset of one partition; raises `OffsetOutOfRangeError`."""
        self._readers[partition].seek(offset)

    def seek_time(self, timestamp_us: int) -> None:
        """Go in each partition to the first row of that time or later."""
        for each in self._readers:
            each.seek_time(timestamp_us)

    def seek_beginning(self) -> None:
        """Go to the first row of each partition."""
        for index, each in enumerate(self._readers):
            each.seek(self._topic.partition(index).first_offset)

    def seek_end(self) -> None:
        """Go behind the last committed row of each partition."""
        for each, end in zip(self._readers, self._topic.stable_ends(), strict=True):
            each.seek(end)

    def poll(self, timeout_us: int = 0, rows_max: int = 65_536) -> pa.RecordBatch | None:
        """Return the next rows of some partition, or `None` when none came in time.

        Partitions take turns. Rows of one partition come in order.
        """
        deadline_us = self._clock.monotonic_us() + timeout_us
        pause_us = PAUSE_FIRST_US
        while True:
            batch = self._read(rows_max)
            left_us = deadline_us - self._clock.monotonic_us()
            if batch is not None or left_us <= 0:
                return batch
            self._clock.sleep_us(min(pause_us, left_us))
            pause_us = min(2 * pause_us, PAUSE_MAX_US)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield what is there now, and end."""
        while (batch := self.poll()) is not None:
            yield batch

    def _read(self, rows_max: int) -> pa.RecordBatch | None:
        for _ in self._readers:
            reader = self._readers[self._turn % len(self._readers)]
            self._turn += 1
            batch = reader.read(rows_max)
            if batch is not None:
                return batch
        return None
