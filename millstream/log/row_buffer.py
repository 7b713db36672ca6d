"""Gathers single rows until they make a batch worth appending; no thread, clock or file here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from operator import itemgetter
from typing import Any

import pyarrow as pa

from millstream.errors import SchemaMismatchError, UnknownColumnError, nearest
from millstream.log.columns import HEADERS_FIELD, TIMESTAMP_FIELD
from millstream.log.topic_config import TopicConfig

RowHeaders = Mapping[str, bytes] | Sequence[tuple[str, bytes]]


class RowBuffer:
    """The rows sent to one topic, or one partition of it, since the last batch.

    Parameters
    ----------
    config
        Of the topic.

    Attributes
    ----------
    sent
        Is done when these rows are durable: one for all of them.
    """

    def __init__(self, config: TopicConfig) -> None:
        self._config = config
        self._names = config.schema.names
        self._count = len(self._names)
        # Of one name it would return no tuple.
        self._values_of = itemgetter(*self._names) if self._count > 1 else None
        # One list, row behind row: an object a row would keep the garbage collector busy.
        self._cells: list[Any] = []
        self.sent: Future[None] = Future()
        self._timestamps: dict[int, Any] = {}
        self._headers: dict[int, RowHeaders] = {}

    def add(self, row: Mapping[str, Any]) -> int:
        """Take a row and return how many there are; raises `UnknownColumnError`."""
        cells = self._cells
        if len(row) == self._count and self._values_of is not None:
            try:
                cells += self._values_of(row)
            except KeyError:
                cells += self._completed(row)
        else:
            cells += self._completed(row)
        return len(cells) // self._count

    def __len__(self) -> int:
        return len(self._cells) // self._count

    def annotate(self, timestamp: Any, headers: RowHeaders | None) -> None:
        """Give the last row a time or headers of its own."""
        last = len(self) - 1
        if timestamp is not None:
            self._timestamps[last] = timestamp
        if headers is not None:
            self._headers[last] = headers

    def take(self) -> tuple[pa.RecordBatch, Future[None]]:
        """Return the rows as a batch of the topic, and be empty.

        Raises
        ------
        SchemaMismatchError
            Where a row does not fit: names it; all of them are gone then.
        """
        cells, self._cells = self._cells, []
        timestamps, self._timestamps = self._timestamps, {}
        headers, self._headers = self._headers, {}
        sent, self.sent = self.sent, Future()
        fields = list(self._config.schema)
        columns: list[Sequence[Any]] = [cells[each :: self._count] for each in range(self._count)]
        count = range(len(cells) // self._count)
        if timestamps:
            fields.append(TIMESTAMP_FIELD)
            columns.append([timestamps.get(index) for index in count])
        if headers:
            fields.append(HEADERS_FIELD)
            columns.append([_header_list(headers.get(index)) for index in count])
        try:
            arrays = [
                self._array(field, values) for field, values in zip(fields, columns, strict=True)
            ]
        except SchemaMismatchError as error:
            sent.set_exception(error)
            raise
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), sent

    def _completed(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the values of a row that lacks some, or has some too many."""
        for name in row:
            if name not in self._names:
                message = (
                    f"topic {self._config.name!r} has no column {name!r}"
                    f"{nearest(name, self._names)}; the row was not sent"
                )
                raise UnknownColumnError(message)
        return tuple(row.get(name) for name in self._names)

    def _array(self, field: pa.Field, values: Sequence[Any]) -> pa.Array:
        try:
            array = pa.array(values, field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise SchemaMismatchError(self._misfit(field, values)) from error
        if array.null_count and not field.nullable:
            raise SchemaMismatchError(self._misfit(field, values))
        return array

    def _misfit(self, field: pa.Field, values: Sequence[Any]) -> str:
        """Say which row is the first that does not fit."""
        index = next(index for index, value in enumerate(values) if not _fits(field, value))
        return (
            f"column {field.name!r} of topic {self._config.name!r} is {field.type}"
            f"{'' if field.nullable else ', not null'}; row {index} of the {len(values)} that were "
            f"sent last has {values[index]!r}; none of them was appended"
        )


def _fits(field: pa.Field, value: object) -> bool:
    try:
        return pa.array([value], field.type).null_count == 0 or field.nullable
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False


def _header_list(headers: RowHeaders | None) -> list[tuple[str, bytes]] | None:
    if headers is None:
        return None
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)
