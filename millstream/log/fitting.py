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
from millstream.log.topic_config import TopicConfig

FRAME_ROWS_MAX = 131_072


def fit(batch: pa.RecordBatch, config: TopicConfig) -> pa.RecordBatch:
    """Return `batch` with the topic's columns, and `_timestamp` and `_headers` where it has them.

    Columns are matched by name and cast where no value is changed by it; a missing one is null.

    Raises
    ------
    UnknownColumnError
        Where the topic has no such column.
    SchemaMismatchError
        Where a column has another type, or nulls that may not be.
    """
    schema = columns_of_rows(config.schema, [*config.schema.names, *batch.schema.names])
    if batch.schema.equals(schema):
        _check_nulls(batch, config.name)
    else:
        for name in batch.schema.names:
            if name not in schema.names:
                raise UnknownColumnError(_unknown(name, config))
        columns = [_column(batch, field, config.name) for field in schema]
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    if config.time is not None and TIMESTAMP_COLUMN in schema.names:
        message = (
            f"topic {config.name!r} has the time of its rows in column {config.time!r}; put it "
            "there instead of giving timestamps"
        )
        raise SchemaMismatchError(message)
    return batch


def frames_of(batch: pa.RecordBatch, config: TopicConfig) -> list[pa.RecordBatch]:
    """Return the rows of `batch` as batches that are small enough for a frame, in order.

    That is up to `FRAME_ROWS_MAX` rows, and up to `max.message.bytes` in columns that are not
    compressed.

    Raises
    ------
    OversizedRowError
        Where one row alone is larger.
    """
    bytes_max = config.settings.max_message_bytes
    frames: list[pa.RecordBatch] = []
    for start in range(0, batch.num_rows, FRAME_ROWS_MAX):
        piece = compacted(batch.slice(start, FRAME_ROWS_MAX))
        frames += _halves(piece, start, bytes_max, config.name)
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


def _check_nulls(batch: pa.RecordBatch, topic: str) -> None:
    """Raise `SchemaMismatchError` where a column has nulls that may not have any."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if not field.nullable and column.null_count:
            message = f"{_where(field, topic)} may not be null; got {column.null_count} nulls"
            raise SchemaMismatchError(message)


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
