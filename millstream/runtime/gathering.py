"""Rows that wait for others: what a batch costs however few its rows is then paid once for many.

Where rows leave a stage, and behind a filter, batches are small. While its worker is busy these
are gathered into one; watermarks wait for the rows before them. Before an operator that combines
rows until a watermark asks for them, watermarks wait for each other. An idle worker passes all on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from millstream.clock import Clock
from millstream.log.metadata import dictionary_count
from millstream.runtime.messages import Watermark

WAIT_US = 20_000
"""Rows of a busy worker wait no longer for others, which bounds their bytes, too; those of an idle
one are passed on at once."""
PACE_US = 50_000
"""A watermark of a busy worker waits no longer for the next one."""


class Consumer(Protocol):
    """One input of an operator, a send or a sink."""

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        """Take rows."""
        ...

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        """Learn that no row before `watermark_us` comes on this input."""
        ...

    def end(self) -> Iterator[None]:
        """Learn that nothing comes any more on this input."""
        ...


class Surroundings(Protocol):
    """What gathering needs to know of its stage."""

    reading: str
    clock: Clock


class Holder(Protocol):
    """What keeps something that it may pass on at any time."""

    @property
    def holds(self) -> bool:
        """`True` iff there is something to pass on."""
        ...

    def pass_on(self) -> Iterator[None]:
        """Pass it on."""
        ...


class Gathering:
    """Gathers rows for a consumer.

    Parameters
    ----------
    consumer
        Takes what was gathered.
    surroundings
        Of the stage: tells how long rows have waited, and where they were read, for messages.
    enough_rows
        So many rows need not wait for others.
    """

    def __init__(self, consumer: Consumer, surroundings: Surroundings, enough_rows: int) -> None:
        self._consumer = consumer
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._enough_rows = enough_rows
        self._batches: list[pa.RecordBatch] = []
        self._row_count = 0
        self._since_us = 0
        self._read_first = ""
        self._is_mixable = True
        self._watermark: Watermark | None = None

    @property
    def holds(self) -> bool:
        """`True` iff rows were gathered and not passed on."""
        return bool(self._batches)

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        """Gather rows; pass them on where they are enough or have waited."""
        # Streams that were united may differ in which columns can be null.
        if self._batches and rows.schema != self._batches[0].schema:
            yield from self.pass_on()
        if not self._batches:
            self._since_us = self._clock.monotonic_us()
            self._read_first = self._surroundings.reading
            # The indices of one dictionary for several batches might not fit into their type.
            self._is_mixable = not any(dictionary_count(each.type) for each in rows.schema)
        self._batches.append(rows)
        self._row_count += rows.num_rows
        if self._is_due():
            yield from self.pass_on()

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        """Pass it on behind the rows that were gathered."""
        self._watermark = Watermark(watermark_us, idle)
        if not self._batches or self._is_due():
            yield from self.pass_on()

    def end(self) -> Iterator[None]:
        """Pass everything on, and the end."""
        yield from self.pass_on()
        yield from self._consumer.end()

    def pass_on(self) -> Iterator[None]:
        """Pass on the rows as one batch, then the watermark."""
        batches, self._batches, self._row_count = self._batches, [], 0
        if len(batches) == 1:
            yield from self._consumer.rows(batches[0])
        elif batches:
            around = self._surroundings
            if around.reading != self._read_first:
                around.reading = f"{self._read_first} … {around.reading}"
            yield from self._consumer.rows(pa.concat_batches(batches))
        watermark, self._watermark = self._watermark, None
        if watermark is not None:
            yield from self._consumer.watermark(watermark.watermark_us, watermark.idle)

    def _is_due(self) -> bool:
        if self._row_count >= self._enough_rows or not self._is_mixable:
            return True
        return self._clock.monotonic_us() - self._since_us >= WAIT_US


class Pacing:
    """Lets rows pass at once, and of the watermarks of a busy worker one in a while.

    Parameters
    ----------
    consumer
        Takes both.
    clock
        Tells how long ago a watermark passed.
    """

    def __init__(self, consumer: Consumer, clock: Clock) -> None:
        self._consumer = consumer
        self._clock = clock
        self._watermark: Watermark | None = None
        self._passed_us = clock.monotonic_us() - PACE_US

    @property
    def holds(self) -> bool:
        """`True` iff a watermark waits."""
        return self._watermark is not None

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        """Pass rows on; that a watermark before them comes later makes none of them late."""
        return self._consumer.rows(rows)

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        """Pass it on where none passed for a while; else keep it until the next one comes."""
        self._watermark = Watermark(watermark_us, idle)
        if self._clock.monotonic_us() - self._passed_us >= PACE_US:
            yield from self.pass_on()

    def end(self) -> Iterator[None]:
        """Pass everything on, and the end."""
        yield from self.pass_on()
        yield from self._consumer.end()

    def pass_on(self) -> Iterator[None]:
        """Pass on the watermark that waits, if one does."""
        watermark, self._watermark = self._watermark, None
        if watermark is not None:
            self._passed_us = self._clock.monotonic_us()
            yield from self._consumer.watermark(watermark.watermark_us, watermark.idle)
