"""Headers that `produce` gives to rows: the same to all, or from fields of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millstream.errors import OptionError, SchemaMismatchError, nearest

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RowHeaders:
    """What headers rows get.

    Attributes
    ----------
    fixed
        Key and value of those that all rows have.
    fields
        Fields of the input: each row has the value of each, as text, under the field's name;
        where it is null, not. A field that is no column of the topic is no more than a header.
    """

    fixed: tuple[tuple[str, bytes], ...]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, fixed: Sequence[str], fields: Sequence[str]) -> RowHeaders:
        """Return the headers of options, `KEY=VALUE` each and names; raises `OptionError`."""
        pairs = []
        for text in fixed:
            key, separator, value = text.partition("=")
            if not separator or not key:
                message = f"--header is KEY=VALUE; got {text!r}"
                raise OptionError(message)
            pairs.append((key, value.encode()))
        return cls(tuple(pairs), tuple(dict.fromkeys(fields)))

    def input_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns by which text is read for a topic with `schema`."""
        import pyarrow as pa

        missing = [name for name in self.fields if name not in schema.names]
        return pa.schema([*schema, *(pa.field(name, pa.string()) for name in missing)])

    def topic_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns of a topic that is created for input with `schema`."""
        import pyarrow as pa

        return pa.schema([field for field in schema if field.name not in self.fields])

    def split(
        self, rows: pa.Table | pa.RecordBatch, schema: pa.Schema
    ) -> tuple[pa.Table | pa.RecordBatch, pa.Array | None]:
        """Return the rows as the topic with `schema` takes them, and their headers, if any.

        Raises `SchemaMismatchError` where a field is missing, or has no form as text.
        """
        if not self.fixed and not self.fields:
            return rows, None
        headers = self._headers(rows)
        unknown = [name for name in self.fields if name not in schema.names]
        return rows.drop_columns(unknown), headers

    def _headers(self, rows: pa.Table | pa.RecordBatch) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        from millstream.log.columns import HEADERS_FIELD

        count = rows.num_rows
        values = [pa.array([value] * count, pa.binary()) for _, value in self.fixed]
        values += [_as_bytes(rows, name) for name in self.fields]
        keys = [*(key for key, _ in self.fixed), *self.fields]
        # Row by row, and without what is null.
        order = np.arange(len(keys) * count).reshape(len(keys), count).T.ravel()
        every = pa.concat_arrays(values).take(pa.array(order))
        there = np.asarray(every.is_valid())
        names = np.tile(np.arange(len(keys)), count)[there]
        pairs = pa.StructArray.from_arrays(
            [pa.array(keys, pa.string()).take(pa.array(names)), every.filter(pa.array(there))],
            fields=list(HEADERS_FIELD.type.value_type),
        )
        ends = np.cumsum(there.reshape(count, len(keys)).sum(axis=1))
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        return pa.ListArray.from_arrays(offsets, pairs, type=HEADERS_FIELD.type)


def _as_bytes(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    import pyarrow as pa

    if name not in rows.schema.names:
        message = f"the input has no field {name!r} for a header{nearest(name, rows.schema.names)}"
        raise SchemaMismatchError(message)
    column = rows.column(name)
    try:
        found = column.cast(pa.string()).cast(pa.binary())
    except pa.ArrowException as error:
        message = f"the field {name!r} is {column.type}, which has no form as text for a header"
        raise SchemaMismatchError(message) from error
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
