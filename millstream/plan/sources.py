"""What every plan node has, and the nodes without inputs: topics read as streams or tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import ExpressionTypeError
from millstream.log.predicate import Predicate
from millstream.operators.operator import ChangeMode
from millstream.plan.columns import EVENT_TIME, check_names, require_column

if TYPE_CHECKING:
    from millstream.plan.nodes import Node


@dataclass(frozen=True, eq=False, kw_only=True)
class PlanNode:
    """What all nodes have.

    Parameters
    ----------
    location
        `file:line` of the user's job that made the node.
    name
        The operator's name, where the user gave one with `.named(…)`.
    """

    location: str = ""
    name: str | None = None
    schema: pa.Schema = field(init=False)
    """The columns of the node's rows, without hidden ones."""
    keys: tuple[str, ...] = field(init=False, default=())
    """The columns that the rows are keyed by, as far as they are still there."""
    time_column: str | None = field(init=False, default=None)
    """The column with the rows' event time, if it is still there."""
    row_time: str | None = field(init=False, default=None)
    """The column with a time of each row, also where rows are changes and not in its order."""
    mode: ChangeMode = field(init=False, default=ChangeMode.APPEND)
    """Whether the rows are facts, or changes of what earlier rows said."""
    unique: tuple[str, ...] | None = field(init=False, default=None)
    """Of changes: columns that tell each row that holds at a moment from all others, if known."""

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes whose rows this one takes."""
        return ()

    def _settle(
        self,
        schema: pa.Schema,
        keys: tuple[str, ...] = (),
        time_column: str | None = None,
        mode: ChangeMode = ChangeMode.APPEND,
        unique: tuple[str, ...] | None = None,
        *,
        row_time: str | None = None,
    ) -> None:
        # A frozen dataclass has no other way to keep what was computed from its fields.
        object.__setattr__(self, "schema", schema)
        object.__setattr__(self, "keys", keys)
        # Changes are not in the order of time: what they take back is older than they are.
        timed = mode is not ChangeMode.CHANGELOG
        object.__setattr__(self, "time_column", time_column if timed else None)
        object.__setattr__(self, "row_time", row_time or time_column)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "unique", None if mode is ChangeMode.APPEND else unique)


@dataclass(frozen=True, eq=False)
class StreamSource(PlanNode):
    """A topic read as events.

    Parameters
    ----------
    topic, topic_schema, topic_keys, partitions
        What the log says of the topic.
    event_time
        The column with the event time, or `None`.
    lateness_us, idle_timeout_us
        How far the watermark trails; after how long a silent partition stops holding it.
    where
        What every reader of the rows filters them by, as far as the log can tell from statistics
        where no such row is.
    processing_time
        The name of the column that says when a row is read, and is the time; then there is no
        event time.
    """

    topic: str
    topic_schema: pa.Schema
    topic_keys: tuple[str, ...] = ()
    partitions: int = 1
    event_time: str | None = None
    lateness_us: int = 0
    idle_timeout_us: int | None = None
    where: Predicate | None = None
    processing_time: str | None = None

    def __post_init__(self) -> None:
        if self.event_time is not None:
            type_ = require_column(self.topic_schema, self.event_time, self.location).type
            if not pat.is_timestamp(type_):
                message = (
                    f"{self.location}: the time column of {self.topic!r} must be a timestamp; "
                    f"{self.event_time!r} is {type_}; name another one with time="
                )
                raise ExpressionTypeError(message)
        schema = pa.schema(
            pa.field(each.name, EVENT_TIME) if each.name == self.event_time else each
            for each in self.topic_schema
        )
        keys = self.topic_keys if {*schema.names}.issuperset(self.topic_keys) else ()
        if self.processing_time is not None:
            schema = schema.append(pa.field(self.processing_time, EVENT_TIME))
            check_names(schema.names, self.location)
        self._settle(schema, keys, self.event_time or self.processing_time)


@dataclass(frozen=True, eq=False)
class TableSource(PlanNode):
    """A topic read as the latest row of each key, under names that may differ from its own.

    Parameters
    ----------
    topic, topic_schema, topic_keys
        What the log says of the topic.
    event_time
        The topic's time column; without one the table has a single version.
    columns
        `(name, column of the topic)`, in order; contains all keys.
    partitions
        What the log says of the topic.
    """

    topic: str
    topic_schema: pa.Schema
    topic_keys: tuple[str, ...]
    event_time: str | None
    columns: tuple[tuple[str, str], ...]
    partitions: int = 1

    def __post_init__(self) -> None:
        names = {column: name for name, column in self.columns}
        schema = pa.schema(
            self.topic_schema.field(column).with_name(name) for name, column in self.columns
        )
        check_names(schema.names, self.location)
        keys = tuple(names[each] for each in self.topic_keys)
        time_column = names.get(self.event_time or "")
        self._settle(schema, keys, time_column, ChangeMode.UPSERT, keys)
