"""A source as one worker reads it: its partitions, positions, watermarks, and stamped rows.

partition readers ─▶ the one whose event time is furthest behind ─▶ rows + `_stamp`

Processing time is put on the rows that are read together, and never goes back: it goes on from what
the checkpoint knows, where the machine's clock is behind. Without rows it goes on in steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.clock import Clock
from millstream.errors import JobError, OffsetOutOfRangeError
from millstream.log import Topic
from millstream.log.bells import DECISIONS, Bells
from millstream.log.reader import PartitionReader
from millstream.operators.operator import POSITION_COLUMN, STAMP_COLUMN
from millstream.operators.position import positions
from millstream.runtime.graph import SourceNode
from millstream.runtime.manifest import PartitionState
from millstream.runtime.seams import following_partitions
from millstream.windows.lateness import stamps
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN, PartitionWatermark

EVENT_TIME = pa.timestamp("us", tz="UTC")
NEVER_US = 2**62
_STAMP_FIELD = pa.field(STAMP_COLUMN, pa.int64())
_POSITION_FIELD = pa.field(POSITION_COLUMN, pa.int64())
_UNITS_US = {"s": 1_000_000, "ms": 1_000}
PROCESSING_TIME_STEP_US = 10_000
"""So often operators are told of processing time while no rows come."""


@dataclass(frozen=True, slots=True)
class SourceStart:
    """Where a source begins.

    Parameters
    ----------
    partitions
        By partition; one that is missing is read from its first row.
    ends
        Offsets up to which each partition of the topic is read; `None`: on and on.
    bounds
        Of a table: offsets that must be reached before any stream is read.
    generation
        Of the topic: what the partitions are in.
    ends_in, bounds_in
        What `ends` and `bounds` are in; of the generations before, all is read.
    alone
        Whether nobody else reads partitions of the source: then it needs nobody to go on in the
        next generation.
    """

    partitions: Mapping[int, PartitionState]
    ends: Sequence[int] | None
    bounds: Sequence[int] | None
    generation: int = 0
    ends_in: int = 0
    bounds_in: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class ReadRange:
    """Where rows were read: a partition, its offsets from `begin` to `end`, how many rows came."""

    partition: int
    begin: int
    end: int
    rows: int


@dataclass(slots=True)
class _Partition:
    index: int
    reader: PartitionReader
    watermark: PartitionWatermark
    end: int | None
    bound: int
    at_end_since_us: int | None = None
    silent: bool = False
    is_listened_for: bool = False
    hears_decisions: bool = False
    is_quiet: bool = False
    """Whether there was nothing to read after somebody had begun to listen for it."""

    @property
    def done(self) -> bool:
        return self.end is not None and self.reader.position >= self.end

    @property
    def idle(self) -> bool:
        return self.done or self.silent

    def on_rows(self) -> None:
        self.at_end_since_us, self.silent = None, False
        self.is_listened_for = False  # there may be more; and listening costs who appends

    def on_end(self, now_us: int, timeout_us: int) -> None:
        # Decided here and not when the watermark is asked for: rows may have come since the
        # partition was last looked at, e.g. while an outlet had no room.
        if self.at_end_since_us is None:
            self.at_end_since_us = now_us
        self.silent = now_us - self.at_end_since_us >= timeout_us


class Source:
    """The share of one source that one worker reads.

    Parameters
    ----------
    node
        What is read.
    topic
        In the worker's own log.
    indices
        Partitions that belong to the worker.
    start
        Where it begins.
    clock
        Tells how long a partition has been silent.
    batch_rows, batch_bytes
        The most that is read at once.
    wants_time
        Whether somebody wants the time column; else the watermark follows what frames say of it.
    """

    def __init__(
        self,
        node: SourceNode,
        topic: Topic,
        indices: Sequence[int],
        start: SourceStart,
        clock: Clock,
        *,
        batch_rows: int,
        batch_bytes: int,
        wants_time: bool = True,
    ) -> None:
        self.node = node
        self._wants_time = wants_time or topic.config.time != node.event_time
        self.rows_read = 0
        self.reading = ""
        """Topic, partition and offsets of the rows that were read last, for messages."""
        self._topic = topic
        self._clock = clock
        self._batch_rows = batch_rows
        self._batch_bytes = batch_bytes
        self._turn = 0
        self._last: ReadRange | None = None
        self._told_us = WATERMARK_MIN
        self._start = start
        self._generation = start.generation
        self.at_seam = False
        """Its share of a generation was read, and it needs others to go on in the next one."""
        self._partitions = [self._open(index, start.partitions.get(index)) for index in indices]

    @property
    def done(self) -> bool:
        """`True` iff the run is bounded and every row was read."""
        return self._is_last and all(each.done for each in self._partitions)

    @property
    def loaded(self) -> bool:
        """`True` unless this is a table that is not read up to its bounds yet."""
        start = self._start
        if start.bounds is not None and self._generation < start.bounds_in:
            return False
        return all(each.reader.position >= each.bound for each in self._partitions)

    def end_here(self) -> None:
        """Read no further: the positions are the ends; of a table, its bounds at the least."""
        start = self._start
        if start.bounds is not None and self._generation < start.bounds_in:
            self._start = replace(start, ends=start.bounds, ends_in=start.bounds_in)
            return
        ends = {each.index: max(each.reader.position, each.bound) for each in self._partitions}
        for each in self._partitions:
            each.end = ends[each.index]
        self._start = replace(start, ends=(), ends_in=self._generation)

    def slowest(self) -> str | None:
        """Return the partition with the least watermark, of those that hold back others."""
        holding = [each for each in self._partitions if not each.idle]
        if self.node.time_column is None or not holding:
            return None
        least = min(holding, key=lambda each: each.watermark.value_us)
        return f"{self._topic.name}/{least.index}"

    def positions(self) -> dict[int, PartitionState]:
        """Return where each partition stands."""
        return {
            each.index: PartitionState(
                each.reader.position, each.watermark.greatest_us, self._generation
            )
            for each in self._partitions
        }

    def advance_event_time(self, time_us: int) -> None:
        """Move the watermarks up to `time_us`, as rows would that are the lateness newer."""
        if self.node.event_time is not None:
            for each in self._partitions:
                each.watermark.advance(time_us + self.node.lateness_us)

    def lag_rows(self) -> int:
        """Return how many rows lie between the positions and the ends."""
        lag = 0
        for each in self._partitions:
            if each.is_quiet and not each.reader.is_held_back:
                continue
            durable = self._topic.partition(each.index, self._generation).durable_end
            end = durable if each.end is None else each.end
            lag += max(end - each.reader.position, 0)
        return lag

    @property
    def bells(self) -> Bells:
        """What rings when there is more to read."""
        return self._topic.bells

    def unheard(self) -> list[int]:
        """Return the bells of the partitions that nobody listens for."""
        waiting = [each for each in self._partitions if not (each.done or each.is_listened_for)]
        bells = [self._bell(each) for each in waiting]
        if any(each.reader.is_held_back for each in waiting):
            bells.append(DECISIONS)
        return bells

    def listened(self, bells: AbstractSet[int]) -> None:
        """Take note that what is published from now on rings these bells.

        A partition that has nothing to read from here on is not looked at until it is named by
        `look_again`.
        """
        for each in self._partitions:
            if self._bell(each) in bells:
                each.is_listened_for, each.is_quiet = True, False
                each.hears_decisions = DECISIONS in bells
            elif each.hears_decisions and DECISIONS in bells:
                each.is_quiet = False  # what it listened for was counted before

    def look_again(self, bells: AbstractSet[int] | None) -> None:
        """Look again at the partitions of these bells (`None`: at all), which may have rows."""
        for each in self._partitions:
            if (
                bells is None
                or self._bell(each) in bells
                or (each.hears_decisions and DECISIONS in bells)
            ):
                each.is_listened_for = each.is_quiet = False

    def _bell(self, partition: _Partition) -> int:
        return self._topic.bell(partition.index, self._generation)

    def due_us(self) -> int:
        """Return the monotonic time at which the next partition counts as idle; or `NEVER_US`."""
        timeout_us = self.node.idle_timeout_us
        if timeout_us is None:
            return NEVER_US
        since = [
            each.at_end_since_us
            for each in self._partitions
            if each.at_end_since_us is not None and not each.idle
        ]
        return min(since) + timeout_us if since else NEVER_US

    def watermark(self) -> tuple[int, bool]:
        """Return the watermark over the partitions, and whether it should hold back nobody.

        A partition that was read to the end of a bounded run, or is idle, does not count; when
        none does, the greatest watermark there is stands, and the source is idle. So is one
        without event time, or without partitions.
        """
        if self.node.time_column is None or not self._partitions:
            return WATERMARK_MIN, True
        holding = [each.watermark.value_us for each in self._partitions if not each.idle]
        if holding:
            return min(holding), False
        return max(each.watermark.value_us for each in self._partitions), True

    def try_read(self) -> pa.RecordBatch | None:
        """Return the next rows, stamped where the node says so; `None`: there are none now."""
        self._advance_processing_time(PROCESSING_TIME_STEP_US)
        for each in self._order():
            if each.done:
                continue
            if each.is_quiet:
                self._note_end(each)
                continue
            before = each.reader.position
            rows = self._read(each)
            self._note_passed(each)
            if rows is not None and rows.num_rows:
                self.reading = (
                    f"{self._topic.name}/{each.index}, offsets {before} to "
                    f"{each.reader.position - 1}"
                )
                each.on_rows()
                self.rows_read += rows.num_rows
                self._last = ReadRange(each.index, before, each.reader.position, rows.num_rows)
                return self._timed(self._positioned(rows, each), each)
            hears_all = each.hears_decisions or not each.reader.is_held_back
            each.is_listened_for = each.is_listened_for and hears_all
            each.is_quiet = each.is_listened_for
            self._note_end(each)
        if self._pass_seam():
            return self.try_read()
        return None

    @property
    def last_read(self) -> ReadRange:
        """Where the rows lie that were read last."""
        assert self._last is not None, "nothing was read"
        return self._last

    def place(self, read: ReadRange, row: int) -> str:
        """Return topic, partition and offset of a row of those that were read there."""
        offset = read.begin + row
        if read.end - read.begin != read.rows:
            # Rows in between were passed, or are gone: it is looked up in the same frames.
            again = self._reader(read.partition, read.begin, ["_offset"])
            offset, passed = -1, 0
            while passed <= row and (rows := again.read(until=read.end)) is not None:
                if row - passed < rows.num_rows:
                    offset = rows.column(0)[row - passed].as_py()
                passed += rows.num_rows
        return f"{self._topic.name}/{read.partition}, offset {offset}"

    def _positioned(self, rows: pa.RecordBatch, partition: _Partition) -> pa.RecordBatch:
        """Return the rows with their positions in place of offsets, where the node says so."""
        number = self.node.position
        if number is None:
            return rows
        offsets = rows.column("_offset").to_numpy(zero_copy_only=False)
        places = positions(number, self._generation, partition.index, offsets)
        rows = rows.drop_columns(["_offset"])
        return rows.append_column(_POSITION_FIELD, pa.array(places))

    def _columns(self) -> list[str] | None:
        names = list(self.node.schema.names)
        if not self._wants_time:
            names.remove(self.node.event_time)
        if self.node.position is not None:
            names.append("_offset")
        return names or None

    def _reader(self, index: int, offset: int, columns: Sequence[str] | None) -> PartitionReader:
        return self._topic.reader(
            index,
            generation=self._generation,
            offset=offset,
            columns=columns,
            where=self.node.where,
            skips_only=True,
            time_column=self.node.event_time,
        )

    @property
    def _is_last(self) -> bool:
        """Whether the run's ends are in the generation that is read."""
        return self._start.ends is not None and self._generation >= self._start.ends_in

    def _pass_seam(self) -> bool:
        """Go on in the next generation where this one was read, and nobody else reads of it."""
        topic = self._topic
        if self._is_last or not topic.is_older(self._generation):
            return False
        if not topic.is_read(
            self._generation, {each.index: each.reader for each in self._partitions}
        ):
            return False
        if not self._start.alone:
            self.at_seam = True
            return False
        begun = following_partitions(topic, self._generation, self.positions())
        self._generation = topic.config.following(self._generation)
        self._partitions = [self._open(index, state) for index, state in begun.items()]
        return True

    def _open(self, index: int, state: PartitionState | None) -> _Partition:
        node, start = self.node, self._start
        partition = self._topic.partition(index, self._generation)
        if state is None:
            state = PartitionState(partition.first_offset, WATERMARK_MIN, self._generation)
        try:
            reader = self._reader(index, state.offset, self._columns())
        except OffsetOutOfRangeError as error:
            message = (
                f"{node.location}: source {node.name!r} cannot go on at offset {state.offset} of "
                f"{partition.name}: {error}; rows it had read were taken back by a power "
                "cut (a topic of durability 'os') or removed; start over with --fresh"
            )
            raise JobError(message) from error
        watermark = PartitionWatermark(node.lateness_us, state.greatest_us)
        end = start.ends[index] if start.ends is not None and self._is_last else None
        is_bounded = start.bounds is not None and self._generation == start.bounds_in
        bound = start.bounds[index] if start.bounds is not None and is_bounded else 0
        return _Partition(index, reader, watermark, end, bound)

    def _order(self) -> Sequence[_Partition]:
        """Return the partitions, the one to be read first first.

        Where time is known, that is the one furthest behind: windows then close soonest and
        the least state is open. Else they take turns.
        """
        if len(self._partitions) < 2:
            return self._partitions
        if self.node.event_time is not None:
            return sorted(self._partitions, key=lambda each: each.watermark.greatest_us)
        self._turn = (self._turn + 1) % len(self._partitions)
        return [*self._partitions[self._turn :], *self._partitions[: self._turn]]

    def _read(self, partition: _Partition) -> pa.RecordBatch | None:
        as_events = self.node.role == "stream" and not self.node.changes
        read = partition.reader.read if as_events else partition.reader.read_table
        return read(self._batch_rows, self._batch_bytes, partition.end)

    def _note_end(self, partition: _Partition) -> None:
        """Take account of the time for which a partition had nothing to read."""
        timeout_us = self.node.idle_timeout_us
        if timeout_us is not None:
            partition.on_end(self._clock.monotonic_us(), timeout_us)

    def _note_passed(self, partition: _Partition) -> None:
        """Take account of frames that were passed before the rows that came: their times count."""
        passed_us = partition.reader.take_passed_time()
        if passed_us is not None:
            partition.on_rows()
            if self.node.event_time is not None:
                partition.watermark.advance(passed_us)

    def _timed(self, rows: pa.RecordBatch, partition: _Partition) -> pa.RecordBatch:
        """Return the rows with event time as the plan has it and stamps; advance the watermark."""
        name = self.node.time_column
        if name is None:
            return rows
        if not self._wants_time:
            partition.watermark.advance(partition.reader.read_time_us)
            return rows
        if self.node.processing_time:
            self._advance_processing_time(0)
            now = pa.scalar(partition.watermark.greatest_us, pa.int64()).cast(EVENT_TIME)
            at = len(rows.schema) - (self.node.position is not None)
            rows = rows.add_column(at, pa.field(name, EVENT_TIME), pa.repeat(now, rows.num_rows))
        column = rows.column(name)
        times = self._times_us(column)
        valid = None
        if column.null_count:
            valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
        if column.type != EVENT_TIME:
            converted = pa.array(times, mask=None if valid is None else ~valid).cast(EVENT_TIME)
            index = rows.schema.get_field_index(name)
            rows = rows.set_column(index, pa.field(name, EVENT_TIME), converted)
        if self.node.stamped:
            column = pa.array(stamps(times, valid, partition.watermark))
            return rows.append_column(_STAMP_FIELD, column)
        known = times if valid is None else times[valid]
        if len(known):
            partition.watermark.advance(int(known.max()))
        return rows

    def _advance_processing_time(self, step_us: int) -> None:
        """Let processing time go on to now, if that is `step_us` later at the least."""
        if not self.node.processing_time:
            return
        now_us = self._clock.now_us()
        if now_us >= self._told_us + step_us:
            self._told_us = now_us
            for each in self._partitions:
                each.watermark.advance(now_us)

    def _times_us(self, column: pa.Array) -> npt.NDArray[np.int64]:
        """Return timestamps of any unit as microseconds, floored; for nulls, any."""
        integers = column.view(pa.int64())
        if integers.null_count:
            integers = pc.fill_null(integers, 0)
        values: npt.NDArray[np.int64] = integers.to_numpy(zero_copy_only=False)
        unit = column.type.unit
        if unit == "us":
            return values
        if unit == "ns":
            return values // 1_000
        factor = _UNITS_US[unit]
        limit = WATERMARK_MAX // factor
        beyond = np.flatnonzero((values > limit) | (values < -limit))
        if len(beyond):
            message = (
                f"{self.node.location}: source {self.node.name!r} has the time "
                f"{values[beyond[0]]} {unit} in {self.reading}, which in microseconds is beyond "
                "int64; filter such rows out before they are written, or correct the time's unit"
            )
            raise JobError(message)
        return values * factor
