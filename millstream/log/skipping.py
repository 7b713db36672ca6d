"""Which parts of a partition a reader with a condition need not look at.

    segment ─▶ its index file ─▶ statistics of its blocks ─▶ blocks that the condition refuses

A block is passed without touching the segment, unless a frame in it belongs to a transaction:
then whether its rows count is found frame by frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millstream.log.condition import Condition
from millstream.log.control_file import LogEnd
from millstream.log.frame_header import Damage
from millstream.log.index import SegmentIndex, encoded_statistics
from millstream.log.refusal import may_fulfil
from millstream.log.row_time import TIME_MIN, value_to_us
from millstream.log.segment import Segment
from millstream.log.segments import Segments
from millstream.log.statistics import (
    BLOCK_COLUMN,
    columns_with_bounds,
    encode_statistics,
    is_text,
    statistics_of,
    try_decode_statistics,
)


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run of refused blocks ends, and the greatest time in it (µs; `TIME_MIN`: none)."""

    position: int
    offset: int
    time_us: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The blocks of one segment, beside what a condition says of them."""

    index: SegmentIndex
    refused: list[bool]
    in_transactions: list[bool]
    times_us: list[int]

    def at(self, position: int) -> int:
        return max(bisect_right(self.index.positions, position) - 1, 0)

    def starts_at(self, block: int, position: int) -> bool:
        return position <= self.index.positions[block]

    def end_of(self, block: int) -> tuple[int, int]:
        if block + 1 < len(self.index.positions):
            return self.index.positions[block + 1], self.index.offsets[block + 1]
        return self.index.size_bytes, self.index.end_offset


class Skipping:
    """What a condition refuses in the segments of a partition; one thread at a time.

    Parameters
    ----------
    segments
        The partition's.
    condition
        What rows must fulfil.
    time_column
        The column whose greatest value among the rows that are passed is to be known.
    """

    def __init__(self, segments: Segments, condition: Condition, time_column: str | None) -> None:
        self._segments = segments
        self._condition = condition
        self._time_column = time_column
        self._known: tuple[Segment, _Blocks | None] | None = None

    def run_from(
        self, segment: Segment, position: int, end: LogEnd, until: int | None = None
    ) -> Run | None:
        """Return the end of the refused blocks that start at `position`; `None`: none does.

        It ends before a block with frames of transactions, or with rows from `until` on. `end`
        is the partition's.
        """
        blocks = self._blocks(segment, end)
        if blocks is None or not blocks.refused:
            return None
        block = first = blocks.at(position)
        if not blocks.starts_at(block, position):
            return None
        while (
            block < len(blocks.refused)
            and blocks.refused[block]
            and not blocks.in_transactions[block]
            and (until is None or blocks.end_of(block)[1] <= until)
        ):
            block += 1
        if block == first:
            return None
        return Run(*blocks.end_of(block - 1), max(blocks.times_us[first:block]))

    def refuses(self, segment: Segment, position: int, end: LogEnd) -> bool:
        """Return whether the frame that starts at `position` is in a refused block."""
        blocks = self._blocks(segment, end)
        return blocks is not None and bool(blocks.refused) and blocks.refused[blocks.at(position)]

    def _blocks(self, segment: Segment, end: LogEnd) -> _Blocks | None:
        """Return the blocks of a sealed segment; `None` where nothing is known of them."""
        base = segment.head.base_offset
        if base == end.segment_base:
            return None
        if self._known is None or self._known[0] is not segment:
            # One that was mapped while it was the active one is not all of it.
            is_whole = segment.limit == self._segments.size(base, end)
            self._known = segment, self._read_blocks(segment) if is_whole else None
        return self._known[1]

    def _read_blocks(self, segment: Segment) -> _Blocks | None:
        index = self._segments.index_of(segment, is_active=False)
        statistics = read_statistics(self._segments, segment, index, self._condition.columns)
        if statistics is None:
            return None
        refused = ~may_fulfil(self._condition.predicate, statistics)
        times_us = [TIME_MIN] * len(refused)
        if self._time_column is not None:
            number = statistics.schema.get_field_index(self._time_column)
            if number < 0:
                return None
            greatest = statistics.column(number).field("max")
            times_us = [
                value_to_us(each.value, each.type) if each.is_valid else TIME_MIN
                for each in greatest
            ]
            # What is beyond int64 in microseconds is the reader's to complain of.
            refused &= np.array([-TIME_MIN > each >= TIME_MIN for each in times_us], bool)
        in_transactions = statistics.column(BLOCK_COLUMN).field("transactions").to_pylist()
        return _Blocks(index, refused.tolist(), in_transactions, times_us)


def read_statistics(
    segments: Segments, segment: Segment, index: SegmentIndex, columns: Sequence[str]
) -> pa.RecordBatch | None:
    """Return the statistics of a sealed segment, a row for each entry of its index.

    They are read from its index file or, where that has none of `columns` or is wrong, made from
    the segment and stored. `None` where the segment is damaged: who reads that part of it is told
    so.
    """
    schema = segment.layout.schema
    known = {schema.names[number] for number in columns_with_bounds(schema)}
    wanted = known.intersection(columns)
    content = segments.read_index_file(index.base_offset)
    stored = SegmentIndex.try_decode(content) if content is not None else None
    if content is not None and stored == index:
        encoded = encoded_statistics(content)
        if encoded:
            statistics = try_decode_statistics(pa.py_buffer(encoded), len(index.positions))
            if not isinstance(statistics, Damage) and wanted.issubset(statistics.schema.names):
                return statistics
    with_texts = any(is_text(schema.field(name).type) for name in wanted)
    return store_statistics(segments, segment, index, with_texts=with_texts)


def store_statistics(
    segments: Segments, segment: Segment, index: SegmentIndex, *, with_texts: bool = False
) -> pa.RecordBatch | None:
    """Make the statistics of a sealed segment, and write its index file with them.

    Returns `None`, and writes nothing, where the segment is damaged.
    """
    statistics = statistics_of(segment, index, with_texts=with_texts)
    if isinstance(statistics, Damage):
        return None
    segments.write_index(index, encode_statistics(statistics))
    return statistics
