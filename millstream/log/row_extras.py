"""What a row has beside its columns: a time of its own, and headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from millstream.errors import SchemaMismatchError
from millstream.log.columns import (
    HEADERS_FIELD,
    TIMESTAMP_FIELD,
)
from millstream.log.row_time import in_microseconds

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
RowHeaders: TypeAlias = Mapping[str, bytes | None] | Sequence[tuple[str, bytes | None]] | None
Timestamps: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[object] | np.ndarray
Headers: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[RowHeaders]

_WORDS = {TIMESTAMP_FIELD.name: "timestamps", HEADERS_FIELD.name: "headers"}


def with_extras(
    rows: Rows, topic: str, timestamps: Timestamps | None, headers: Headers | None
) -> Rows:
    """Return `rows` with the columns `_timestamp` and `_headers`, where they were given.

    Parameters
    ----------
    timestamps
        One a row: an Arrow or NumPy array of timestamps (without a zone: UTC), or a sequence of
        `datetime`s or of microseconds since 1970 UTC; nulls: the row has none of its own.
    headers
        One a row: `None`, a mapping, or (key, value) pairs; or an Arrow array of
        `list<struct<key: string, value: binary>>`.

    Raises
    ------
    SchemaMismatchError
        Where there are not as many as rows, or they cannot be read as such.
    """
    if timestamps is not None:
        rows = _with_column(rows, TIMESTAMP_FIELD, _timestamps(timestamps, topic), topic)
    if headers is not None:
        rows = _with_column(rows, HEADERS_FIELD, _headers(headers, topic), topic)
    return rows


def _with_column(
    rows: Rows, field: pa.Field, column: pa.Array | pa.ChunkedArray, topic: str
) -> Rows:
    word = _WORDS[field.name]
    if len(column) != rows.num_rows:
        message = (
            f"topic {topic!r} got {len(column)} {word} for {rows.num_rows} rows; give one for each"
        )
        raise SchemaMismatchError(message)
    if field.name in rows.schema.names:
        message = (
            f"topic {topic!r} got {_WORDS[field.name]} twice: as a column, too; give one of them"
        )
        raise SchemaMismatchError(message)
    if isinstance(rows, pa.RecordBatch) and isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return rows.append_column(field, column)


def _timestamps(timestamps: Timestamps, topic: str) -> pa.Array | pa.ChunkedArray:
    try:
        if not isinstance(timestamps, pa.Array | pa.ChunkedArray):
            timestamps = pa.array(timestamps)
        if pa.types.is_timestamp(timestamps.type):
            return in_microseconds(timestamps)
        return timestamps.cast(pa.int64()).cast(TIMESTAMP_FIELD.type)
    except (pa.ArrowException, ValueError, TypeError) as error:
        message = (
            f"topic {topic!r} takes as timestamps what is a timestamp or microseconds since 1970; "
            f"got something else: {error}"
        )
        raise SchemaMismatchError(message) from error


def _headers(headers: Headers, topic: str) -> pa.Array | pa.ChunkedArray:
    try:
        if isinstance(headers, pa.Array | pa.ChunkedArray):
            return headers.cast(HEADERS_FIELD.type)
        return pa.array([_pairs(each) for each in headers], HEADERS_FIELD.type)
    except (pa.ArrowException, ValueError, TypeError) as error:
        message = (
            f"topic {topic!r} takes as headers, for each row, None, a mapping or (key, value) "
            f"pairs, of keys that are text and values that are bytes or None; got {error}"
        )
        raise SchemaMismatchError(message) from error


def _pairs(headers: RowHeaders) -> list[dict[str, object]] | None:
    if headers is None:
        return None
    pairs: Iterable[tuple[str, bytes | None]] = (
        headers.items() if isinstance(headers, Mapping) else headers
    )
    return [{"key": key, "value": value} for key, value in pairs]
