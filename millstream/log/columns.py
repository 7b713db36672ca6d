"""A segment's columns: the user's, and behind them the system's (FORMAT.md, "Columns").

Each segment has a schema of its own. It may lack columns that the topic was given later, and it
has those system columns that its rows needed.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from millstream.errors import InvalidTopicError
from millstream.log.frame_header import Damage
from millstream.log.metadata import ColumnLayout

OPERATION_COLUMN = "_op"
TIMESTAMP_COLUMN = "_timestamp"
HEADERS_COLUMN = "_headers"
OFFSET_COLUMN = "_offset"

OPERATION_FIELD = pa.field(OPERATION_COLUMN, pa.int8())
TIMESTAMP_FIELD = pa.field(TIMESTAMP_COLUMN, pa.timestamp("us", "UTC"))
HEADERS_FIELD = pa.field(
    HEADERS_COLUMN, pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
)
OFFSET_FIELD = pa.field(OFFSET_COLUMN, pa.int64(), nullable=False)

STORED_FIELDS: dict[str, pa.Field] = {
    field.name: field for field in (OPERATION_FIELD, TIMESTAMP_FIELD, HEADERS_FIELD, OFFSET_FIELD)
}
"""What a segment may have behind the user's columns, in this order."""

OPTIONAL_COLUMNS = frozenset({TIMESTAMP_COLUMN, HEADERS_COLUMN})
"""System columns that a row may lack where others of its segment have them."""


def is_system(name: str) -> bool:
    """Return `True` iff a column of that name is not the user's."""
    return name.startswith("_")


def user_fields(schema: pa.Schema) -> list[pa.Field]:
    """Return the user's columns of a schema."""
    return [field for field in schema if not is_system(field.name)]


def joined(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """Return the columns of two schemas of one topic: all that either has."""
    users = max(user_fields(first), user_fields(second), key=len)
    names = {*first.names, *second.names}
    return pa.schema([*users, *(each for each in STORED_FIELDS.values() if each.name in names)])


def columns_of_rows(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """Return the columns that rows with `names` must have to be some of a partition's.

    Of the columns in `schema` they may lack the last ones, as producers do that do not know
    them yet, if these may be null. Behind them they may have `_timestamp` and `_headers`.
    """
    users = user_fields(schema)
    while len(users) > 1 and users[-1].name not in names and users[-1].nullable:
        users.pop()
    system = [field for field in schema if is_system(field.name)]
    given = OPTIONAL_COLUMNS.intersection(names)
    return pa.schema(
        [*users, *system, *(STORED_FIELDS[name] for name in STORED_FIELDS if name in given)]
    )


def can_be_widened(schema: pa.Schema, wider: pa.Schema) -> bool:
    """Return `True` iff rows of `schema` become rows of `wider`, of the same topic, by nulls."""
    names = set(wider.names)
    if not names.issuperset(schema.names):
        return False
    more = names.difference(schema.names)
    return all(each in OPTIONAL_COLUMNS or not is_system(each) for each in more)


def widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with the columns of `schema`; those that it lacks are null."""
    if batch.schema.equals(schema):
        return batch
    names = set(batch.schema.names)
    columns = [
        batch.column(field.name) if field.name in names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class SegmentLayouts:
    """The layouts of the segments of a partition, each made once.

    Parameters
    ----------
    schema
        The partition's: the topic's columns as far as this process knows them, and the system
        columns that every row has. A segment that contradicts it is damaged.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.own = ColumnLayout.of(schema)
        self._by_message: dict[bytes, ColumnLayout] = {}
        self._by_schema: list[ColumnLayout] = [self.own]

    def adopt(self, schema: pa.Schema) -> None:
        """Take note that the topic got columns."""
        self.own = self.of(schema)

    def of(self, schema: pa.Schema) -> ColumnLayout:
        """Return the layout of rows of `schema`; raises `InvalidTopicError`."""
        for layout in self._by_schema:
            if layout.schema is schema or layout.schema.equals(schema):
                return layout
        layout = ColumnLayout.of(schema)
        self._by_schema = [layout, *self._by_schema]
        return layout

    def try_of_head(self, head: bytes, header_size: int) -> ColumnLayout | Damage:
        """Return the layout of the segment that starts with `head`, which was verified.

        Its last `header_size` bytes are the segment's own and say nothing of the schema.
        """
        message = head[: len(head) - header_size]
        found = self._by_message.get(message)
        if found is None:
            stored = pa.ipc.read_schema(pa.py_buffer(head))
            reason = self._contradiction(stored)
            if reason is not None:
                columns = ", ".join(f"{field.name}: {field.type}" for field in stored)
                return Damage(f"its schema ({columns}) is not the topic's: {reason}")
            found = self._by_message[message] = self.of(stored)
        return found

    def _contradiction(self, stored: pa.Schema) -> str | None:
        """Return how a segment's schema differs from all that this topic's can be."""
        users = user_fields(stored)
        if any(is_system(name) for name in stored.names[: len(users)]):
            return "a system column stands before the user's"
        own = user_fields(self.own.schema)
        for ours, theirs in zip(own, users, strict=False):
            if not ours.equals(theirs):
                return f"it has {theirs} where the topic has {ours}"
        for field in own[len(users) :]:
            if not field.nullable:
                return f"it lacks {field}"
        for field in list(stored)[len(users) :]:
            known = STORED_FIELDS.get(field.name)
            if known is None or not known.equals(field):
                return f"it has {field}, which is no system column"
        for field in self.own.schema:
            if is_system(field.name) and field.name not in stored.names:
                return f"it lacks {field.name}"
        try:
            self.of(stored)
        except InvalidTopicError as error:
            return str(error)
        return None
