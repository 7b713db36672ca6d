"""The columns that a reader asks for, made of what each segment has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from millstream.log.columns import (
    HEADERS_FIELD,
    OFFSET_COLUMN,
    OFFSET_FIELD,
    OPERATION_COLUMN,
    OPERATION_FIELD,
    TIMESTAMP_COLUMN,
    TIMESTAMP_FIELD,
)
from millstream.log.frame import Frame
from millstream.log.metadata import dictionary_count
from millstream.log.row_time import in_microseconds

PARTITION_COLUMN = "_partition"
PARTITION_FIELD = pa.field(PARTITION_COLUMN, pa.int32(), nullable=False)

READABLE_FIELDS: dict[str, pa.Field] = {
    field.name: field
    for field in (OFFSET_FIELD, TIMESTAMP_FIELD, HEADERS_FIELD, OPERATION_FIELD, PARTITION_FIELD)
}
"""System columns that a reader may ask for; every row has them, stored or not."""


def readable_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns that a reader of a topic with `schema` may ask for."""
    return pa.schema([*schema, *READABLE_FIELDS.values()])


class Projection:
    """Which columns a reader wants of a partition's rows, in which order.

    Parameters
    ----------
    schema
        The topic's columns.
    names
        The wanted ones: of the user's and of `READABLE_FIELDS`.
    time_column
        The one that has the rows' time, or `None`.
    partition
        Number of the partition.
    """

    def __init__(
        self, schema: pa.Schema, names: Sequence[str], time_column: str | None, partition: int
    ) -> None:
        self.schema = pa.schema([READABLE_FIELDS.get(name) or schema.field(name) for name in names])
        self.has_dictionaries = any(dictionary_count(field.type) for field in self.schema)
        """Whether each frame has dictionaries of its own for a wanted column."""
        self._names = list(names)
        self._time_column = time_column
        self._partition = partition
        self.stored = {*names} - {TIMESTAMP_COLUMN, PARTITION_COLUMN}
        """Those that are read as they are stored, wherever they are."""
        self._is_plain = len(self.stored) == len(names)
        if TIMESTAMP_COLUMN in names:
            self.stored |= {TIMESTAMP_COLUMN if time_column is None else time_column}

    def rows(self, frame: Frame, verify: bool) -> pa.RecordBatch:
        """Return the wanted columns of a frame's rows; stored ones are views of the file.

        Raises `CorruptSegmentError` where `verify` is set and a column that is read is damaged.
        """
        present = frame.columns
        if self._is_plain and self.stored <= present.keys():
            return frame.batch(self._names, verify)
        found = frame.batch([name for name in present if name in self.stored], verify)
        columns = [self._column(frame, found, field) for field in self.schema]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _column(self, frame: Frame, found: pa.RecordBatch, field: pa.Field) -> pa.Array:
        """Return one wanted column; `found` has what it can be made of."""
        header, count = frame.header, frame.header.row_count
        if field.name == TIMESTAMP_COLUMN:
            return self._timestamps(frame, found)
        if field.name == PARTITION_COLUMN:
            return pa.array(np.full(count, self._partition, np.int32))
        if field.name in frame.columns:
            return found.column(field.name)
        if field.name == OFFSET_COLUMN:  # a compacted segment has it
            return pa.array(np.arange(header.base_offset, header.base_offset + count))
        if field.name == OPERATION_COLUMN:
            return pa.array(np.zeros(count, np.int8))
        return pa.nulls(count, field.type)

    def _timestamps(self, frame: Frame, found: pa.RecordBatch) -> pa.Array:
        """Return the time of each row: its topic's time column, its own, or that of its append."""
        if self._time_column is not None:
            return in_microseconds(found.column(self._time_column))
        appended = pa.scalar(frame.header.appended_us, TIMESTAMP_FIELD.type)
        if TIMESTAMP_COLUMN not in frame.columns:
            return pa.repeat(appended, frame.header.row_count)
        return found.column(TIMESTAMP_COLUMN).fill_null(appended)
