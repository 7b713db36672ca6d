"""Rows as a test writes them, and as it reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import OptionError, UnknownColumnError, nearest

Rows: TypeAlias = "Iterable[Mapping[str, object]] | pa.Table | pa.RecordBatch"
"""Rows as dicts, where a column that is left out is null; or columns of Arrow."""


def table_of(rows: Rows, schema: pa.Schema, topic: str) -> pa.Table:
    """Return rows as a table of `schema`; times may be text, e.g. `"2013-01-01 10:05"`.

    Raises
    ------
    UnknownColumnError
        When a row has a column that the topic lacks.
    OptionError
        When a value is not of its column's type.
    """
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table):
        return rows
    listed = list(rows)
    for row in listed:
        for name in row:
            if name not in schema.names:
                message = f"topic {topic!r} has no column {name!r}{nearest(name, schema.names)}"
                raise UnknownColumnError(message)
    columns = [_column([row.get(each.name) for row in listed], each, topic) for each in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def time_us_of(time: str | datetime) -> int:
    """Return a time in microseconds since 1970; without a zone it is UTC.

    Raises
    ------
    OptionError
        When text is not a time as ISO 8601 has it.
    """
    try:
        parsed = datetime.fromisoformat(time) if isinstance(time, str) else time
    except ValueError as error:
        message = f'not a time: {time!r}; write e.g. "2013-01-01 10:05" or "2013-01-01T10:05:00Z"'
        raise OptionError(message) from error
    found: int = pa.scalar(
        parsed, pa.timestamp("us", None if parsed.tzinfo is None else "UTC")
    ).value
    return found


def _column(values: list[Any], field: pa.Field, topic: str) -> pa.Array:
    if pat.is_timestamp(field.type):
        times = [each if each is None else _as_time(each) for each in values]
        return pa.array(times, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")).cast(field.type)
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        message = f"column {field.name!r} of topic {topic!r} is {field.type}: {error}"
        raise OptionError(message) from error


def _as_time(value: Any) -> int:
    # A number is what the log itself would take it for: microseconds.
    return value if isinstance(value, int) else time_us_of(value)
