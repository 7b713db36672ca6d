"""Makes rows fit their topic: its columns, their types, and the size that a frame may have."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from millstream.errors import (
    OversizedRowError,
    SchemaMismatchError,
    UnknownColumnError,
    nearest,
)
from millstream.log.columns import (
    OPTIONAL_COLUMNS,
    TIMESTAMP_COLUMN,
    columns_of_rows,
    is_system,
)
from millstream.log.dictionaries import compacted
from millstream.log.metadata import dictionary_count
from millstream.log.topic_config import TopicConfig

FRAME_ROWS_MAX = 131_072


class RowFitter:
    """Makes rows fit the topic that `config` describes.

    Attributes
    ----------
    config
        The topic's.
    has_dictionaries
        Whether its columns have some.
    """

    def __init__(self, config: TopicConfig) -> None:
        self.config = config
        self._bytes_max = config.settings.max_message_bytes
        self.has_dictionaries = any(map(dictionary_count, config.schema.types))
        self._required = [index for index, field in enumerate(config.schema) if not field.nullable]

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with the topic's columns, and `_timestamp` and `_headers` if it has them.

        Columns are matched by name and cast where no value is changed by it; a missing one is
        null.

        Raises
        ------
        UnknownColumnError
            Where the topic has no such column.
        SchemaMismatchError
            Where a column has another type, or nulls that may not be.
        """
        config = self.config
        if not batch.schema.equals(config.schema):
            return self._fit_columns(batch)
        for index in self._required:
            if batch.column(index).null_count:
                _column(batch, config.schema.field(index), config.name)  # raises
        return batch

    def _fit_columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        config, names = self.config, batch.schema.names
        schema = columns_of_rows(config.schema, [*config.schema.names, *names])
        for name in names:
            if name not in schema.names:
                raise UnknownColumnError(_unknown(name, config))
        if config.time is not None and TIMESTAMP_COLUMN in names:
            message = (
                f"topic {config.name!r} has the time of its rows in column {config.time!r}; put "
                "it there instead of giving timestamps"
            )
            raise SchemaMismatchError(message)
        columns = [_column(batch, field, config.name) for field in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def frames_of(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Return the rows of `batch` as batches that are small enough for a frame, in order.

        That is up to `FRAME_ROWS_MAX` rows, and up to `max.message.bytes` in columns that are
        not compressed.

        Raises
        ------
        OversizedRowError
            Where one row alone is larger.
        """
        if (
            0 < batch.num_rows <= FRAME_ROWS_MAX
            and not self.has_dictionaries
            and batch.get_total_buffer_size() <= self._bytes_max
        ):
            return [batch]  # as most are
        frames: list[pa.RecordBatch] = []
        for start in range(0, batch.num_rows, FRAME_ROWS_MAX):
            piece = batch.slice(start, FRAME_ROWS_MAX)
            if self.has_dictionaries:
                piece = compacted(piece)
            # The size of whole buffers is quickly told; that of a slice of them is less.
            if piece.get_total_buffer_size() <= self._bytes_max:
                frames.append(piece)
            else:
                frames += _halves(piece, start, self._bytes_max, self.config.name)
        return frames


def _halves(
    batch: pa.RecordBatch, start: int, bytes_max: int, topic: str
) -> Iterator[pa.RecordBatch]:
    """Yield `batch`, or halves of halves of it, none of them larger than `bytes_max`."""
    if batch.nbytes <= bytes_max:
        yield batch
    elif batch.num_rows == 1:
        message = (
            f"row {start} of those given to topic {topic!r} has {batch.nbytes} bytes; its setting "
            f"max.message.bytes allows {bytes_max}: make the row smaller, or alter the setting"
        )
        raise OversizedRowError(message)
    else:
        middle = batch.num_rows // 2
        yield from _halves(compacted(batch.slice(0, middle)), start, bytes_max, topic)
        yield from _halves(compacted(batch.slice(middle)), start + middle, bytes_max, topic)


def _unknown(name: str, config: TopicConfig) -> str:
    if is_system(name):
        allowed = " and ".join(sorted(OPTIONAL_COLUMNS))
        return (
            f"column {name!r} is the system's: topic {config.name!r} takes its own columns, "
            f"{allowed}; leave it out"
        )
    return f"topic {config.name!r} has no column {name!r}{nearest(name, config.schema.names)}"


def _where(field: pa.Field, topic: str) -> str:
    return f"column {field.name!r} of topic {topic!r}"


def _column(batch: pa.RecordBatch, field: pa.Field, topic: str) -> pa.Array:
    """Return one column of a topic, from the rows given."""
    where = _where(field, topic)
    if field.name not in batch.schema.names:
        if not field.nullable:
            message = f"{where} is missing and may not be null; got {batch.schema.names}"
            raise SchemaMismatchError(message)
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(field.name)
    if column.null_count and not field.nullable:
        message = f"{where} may not be null; got {column.null_count} nulls"
        raise SchemaMismatchError(message)
    if column.type == field.type:
        return column
    try:
        return _cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = (
            f"{where} is {field.type}; got {column.type}, which does not fit: {error}; "
            "cast it before you append"
        )
        raise SchemaMismatchError(message) from error


def _cast(column: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Return `column` cast, where no value is changed by it; Arrow does not know every way."""
    if not isinstance(data_type, pa.DictionaryType):
        return column.cast(data_type)
    if isinstance(column, pa.DictionaryArray):
        indices, values = column.indices, column.dictionary
    else:
        encoded = column.cast(data_type.value_type).dictionary_encode()
        indices, values = encoded.indices, encoded.dictionary
    return pa.DictionaryArray.from_arrays(
        indices.cast(data_type.index_type),
        values.cast(data_type.value_type),
        ordered=data_type.ordered,
    )
