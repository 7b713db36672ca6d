"""The nodes of a logical plan: frozen, typed, and checked when they are made.

A plan is a graph of nodes, each of which holds its inputs; its roots are `Sink`s. Every node
has the Arrow schema of its rows, the key columns and time column that they still carry, and
the user's line, so that a mistake is an error at that line. The same node object is the same
operator: what two sinks share runs once. What makes changes of rows is in `keyed_nodes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeGuard

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import ExpressionTypeError, PlanError
from millstream.operators.expression import TypedExpression
from millstream.operators.operator import ChangeMode
from millstream.plan.aggregates import AggregateColumn
from millstream.plan.async_calls import Lookup, check_async_calls
from millstream.plan.changes import passed_mode, require_facts
from millstream.plan.columns import (
    EVENT_TIME,
    Outputs,
    check_names,
    check_same_columns,
    projected,
    require_column,
)
from millstream.plan.explode import Explode
from millstream.plan.function_nodes import MapBatches, Peek, Process
from millstream.plan.keyed_nodes import (
    AsTable,
    ChangeRows,
    Consolidate,
    Dedup,
    GroupAggregate,
    LatestRows,
    Limit,
    Top,
    require_unique,
)
from millstream.plan.positions import require_positions
from millstream.plan.sources import PlanNode, StreamSource, TableSource
from millstream.windows.by_rows import Counting, Sliding
from millstream.windows.global_window import Global
from millstream.windows.session import Session

if TYPE_CHECKING:
    from millstream.windows.assignment import AnyWindow

__all__ = [
    "AsTable",
    "ChangeRows",
    "Consolidate",
    "Dedup",
    "Explode",
    "Filter",
    "Fused",
    "GroupAggregate",
    "KeyBy",
    "LateRows",
    "Timed",
    "is_timed",
    "LatestRows",
    "Limit",
    "Lookup",
    "MapBatches",
    "Node",
    "Peek",
    "Process",
    "Project",
    "Sink",
    "StreamSource",
    "TableJoin",
    "TableSource",
    "Top",
    "Union",
    "WindowAggregate",
    "grouping_keys",
    "require_event_time",
    "require_unique",
]


@dataclass(frozen=True, eq=False)
class Filter(PlanNode):
    """The rows for which `predicate` is true (not false, not null)."""

    input: Node
    predicate: TypedExpression

    def __post_init__(self) -> None:
        if not pat.is_boolean(self.predicate.type):
            message = f"{self.location}: a filter needs a condition; got {self.predicate.type}"
            raise ExpressionTypeError(message)
        require_positions(self.input, [self.predicate], self.location)
        check_async_calls(self.input, [self.predicate], self.location)
        source = self.input
        mode, unique = passed_mode(source), source.unique
        self._settle(source.schema, source.keys, source.row_time, mode, unique)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows that are tested."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Project(PlanNode):
    """Rows with computed, renamed or fewer columns."""

    input: Node
    outputs: Outputs

    def __post_init__(self) -> None:
        parts = [each for _, each in self.outputs]
        require_positions(self.input, parts, self.location)
        check_async_calls(self.input, parts, self.location)
        self._settle(*_projection_of(self))

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows that the columns are computed from."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Fused(PlanNode):
    """A filter and then a projection in one pass; made by rewrites of adjacent ones.

    Parameters
    ----------
    predicate
        Which rows stay, over the input's columns; `None` keeps all.
    outputs
        Result columns over the input's columns.
    steps
        What was fused, in order, for `explain`.
    """

    input: Node
    predicate: TypedExpression | None
    outputs: Outputs
    steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._settle(*_projection_of(self))

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows that are tested and projected."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class KeyBy(PlanNode):
    """The same rows, keyed by `columns`."""

    input: Node
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        for each in self.columns:
            type_ = require_column(self.input.schema, each, self.location).type
            if pat.is_nested(type_) and not pat.is_dictionary(type_):
                message = f"{self.location}: rows cannot be keyed by {each!r}, which is {type_}"
                raise ExpressionTypeError(message)
        check_names(self.columns, self.location)
        source = self.input
        mode, unique = passed_mode(source), source.unique
        self._settle(source.schema, self.columns, source.row_time, mode, unique)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class TableJoin(PlanNode):
    """Rows of a stream, each with the columns of every row of a table that it matches.

    Parameters
    ----------
    stream_keys, table_keys
        Columns that must be equal, pairwise. Where `table_keys` lack a part of the table's key,
        a row of the stream may match many of the table's, and goes out once with each.
    how
        `"inner"` drops rows without a match, `"left"` keeps them with nulls.
    left_out
        Columns of the table that are read, being of its key, and that nobody needs.
    """

    stream: Node
    table: TableSource
    stream_keys: tuple[str, ...]
    table_keys: tuple[str, ...]
    how: Literal["inner", "left"] = "inner"
    left_out: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        require_facts(self.stream, self.location, "a join with a table")
        pairs = zip(self.stream_keys, self.table_keys, strict=True)
        for stream_key, table_key in pairs:
            self._check_pair(stream_key, table_key)
        added = [self.table.schema.field(each) for each in self.added]
        both = [each for each in self.added if each in self.stream.schema.names]
        if both:
            renames = ", ".join(f'"{each}": "{self.table.topic}_{each}"' for each in both)
            keyed = set(both).issubset(self.table.keys)
            message = (
                f"{self.location}: both sides of the join have {_listed(both)}; rename on the "
                f"table, e.g. table.rename({{{renames}}}), or "
                f"{'join it, too' if keyed else 'leave out with table.drop(…)'}"
            )
            raise PlanError(message)
        schema = pa.schema([*self.stream.schema, *(each.with_nullable(True) for each in added)])
        self._settle(schema, self.stream.keys, self.stream.time_column)

    def _check_pair(self, stream_key: str, table_key: str) -> None:
        left = require_column(self.stream.schema, stream_key, self.location).type
        table = f" of table {self.table.topic!r}"
        right = require_column(self.table.schema, table_key, self.location, table).type
        if not left.equals(right):
            message = (
                f"{self.location}: cannot join {stream_key!r} ({left}) with {table_key!r} of "
                f"table {self.table.topic!r} ({right}); cast the stream's first: "
                f'.with_columns({stream_key}=col("{stream_key}").cast("{right}"))'
            )
            raise ExpressionTypeError(message)
        if pat.is_nested(left):
            message = f"{self.location}: rows cannot be joined by {table_key!r}, which is {left}"
            raise ExpressionTypeError(message)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The stream, then the table."""
        return (self.stream, self.table)

    @property
    def added(self) -> tuple[str, ...]:
        """Columns of the table that go out: join columns would repeat the stream's."""
        kept = {*self.table.schema.names} - {*self.table_keys} - self.left_out
        return tuple(each for each in self.table.schema.names if each in kept)

    @property
    def many_matches(self) -> bool:
        """`True` iff a row may match several rows of the table."""
        return not set(self.table_keys).issuperset(self.table.keys)


@dataclass(frozen=True, eq=False)
class WindowAggregate(PlanNode):
    """One row for each key and window: the key, the window's bounds, the aggregates.

    Parameters
    ----------
    columns
        Key columns; empty for one group of all rows.
    window
        How event time is cut.
    aggregates
        Result columns.
    allowed_lateness_us
        For how long after its end a window still takes rows.
    emits_changes
        Whether results are given while windows are open, and kept up to date.
    interval_us
        At multiples of which time they are; `None`: with every batch.
    """

    input: Node
    columns: tuple[str, ...]
    window: AnyWindow
    aggregates: tuple[AggregateColumn, ...]
    allowed_lateness_us: int = 0
    emits_changes: bool = False
    interval_us: int | None = None

    def __post_init__(self) -> None:
        require_event_time(self.input, self.location)
        keys = [require_column(self.input.schema, each, self.location) for each in self.columns]
        is_global = isinstance(self.window, Global)
        names = () if is_global else ("window_start", "window_end")
        bounds = [pa.field(each, EVENT_TIME) for each in names]
        results = [pa.field(each.name, each.type) for each in self.aggregates]
        schema = pa.schema([*keys, *bounds, *results])
        time = "window_start"
        if isinstance(self.window, Sliding):
            schema, time = pa.schema([*self.input.schema, *results]), self.event_time
        elif isinstance(self.window, Session | Counting):
            # It is told of when it is over, and may have begun long before.
            time = "window_end"
        check_names(schema.names, self.location)
        if self.emits_changes:
            unique = (*self.columns, *names[:1])
            self._settle(schema, unique, names[0] if names else None, ChangeMode.CHANGELOG, unique)
        else:
            self._settle(schema, self.columns, None if is_global else time)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows that are aggregated."""
        return (self.input,)

    @property
    def event_time(self) -> str:
        """The input's time column, by which rows go to windows."""
        return require_event_time(self.input, self.location)


Timed: TypeAlias = WindowAggregate | Dedup | GroupAggregate | Process
"""What rows may be too late for."""


def is_timed(node: PlanNode) -> TypeGuard[Timed]:
    """Return `True` iff rows may be too late for a node."""
    if isinstance(node, Dedup):
        return node.within_us is not None
    if isinstance(node, GroupAggregate):
        return node.ttl_us is not None
    if isinstance(node, Process):
        return node.in_order
    return isinstance(node, WindowAggregate)


@dataclass(frozen=True, eq=False)
class LateRows(PlanNode):
    """The rows that came too late for a timed operator, as they were."""

    aggregate: Timed

    def __post_init__(self) -> None:
        if not is_timed(self.aggregate):
            if isinstance(self.aggregate, Process):
                message = f"{self.location}: no row is late here, as rows come as they arrive"
                raise PlanError(message)
            option = "within" if isinstance(self.aggregate, Dedup) else "ttl"
            message = (
                f"{self.location}: no row is late here, as no key is forgotten; with {option}= "
                "those are that come when their key may have been"
            )
            raise PlanError(message)
        source = self.aggregate.input
        self._settle(source.schema, self.aggregate.columns, source.time_column)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The aggregate, of which this is a side output."""
        return (self.aggregate,)


@dataclass(frozen=True, eq=False)
class Union(PlanNode):
    """The rows of several streams of one schema."""

    streams: tuple[Node, ...]

    def __post_init__(self) -> None:
        first = self.streams[0]
        for other in self.streams[1:]:
            check_same_columns(first.schema, other.schema, self.location)
        same_keys = all(each.keys == first.keys for each in self.streams)
        same_time = all(each.row_time == first.row_time for each in self.streams)
        fields = [_united(each, self.streams) for each in first.schema]
        time_column = first.row_time if same_time else None
        keys = first.keys if same_keys else ()
        self._settle(pa.schema(fields), keys, time_column, passed_mode(*self.streams))

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The streams."""
        return self.streams


@dataclass(frozen=True, eq=False)
class Sink(PlanNode):
    """Rows written to a topic, or kept in the process.

    Parameters
    ----------
    topic
        The topic's name; for `kind="memory"` only a name of the result.
    key_columns, event_time
        By which the topic is partitioned and its time column, where it is not there yet.
    partitions
        Likewise; `None` means as many as the largest source has.
    kind
        `"memory"`: the rows stay in the process; of changes, what holds in the end.
    upsert
        The topic is a table: a row replaces that of its key, a tombstone takes it away.
    """

    input: Node
    topic: str
    key_columns: tuple[str, ...] = ()
    event_time: str | None = None
    partitions: int | None = None
    kind: Literal["log", "memory"] = "log"
    upsert: bool = False

    def __post_init__(self) -> None:
        if self.kind == "log" and not self.upsert:
            remedy = (
                f'write the latest row of each key with .to({self.topic!r}, mode="upsert"), or '
                f'each change with its weight with .to({self.topic!r}, mode="changelog"), or '
            )
            require_facts(self.input, self.location, 'mode="append"', remedy)
        source = self.input
        schema = source.schema
        if self.upsert:
            # A tombstone has nothing beside its key.
            schema = pa.schema(
                each if each.name in self.key_columns else each.with_nullable(True)
                for each in schema
            )
        self._settle(schema, self.key_columns, self.event_time, source.mode, source.unique)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)


Node: TypeAlias = (
    StreamSource
    | TableSource
    | Filter
    | Project
    | Fused
    | KeyBy
    | Explode
    | TableJoin
    | WindowAggregate
    | LateRows
    | Union
    | GroupAggregate
    | AsTable
    | LatestRows
    | Top
    | Dedup
    | Limit
    | Peek
    | MapBatches
    | Process
    | Lookup
    | ChangeRows
    | Consolidate
    | Sink
)


def _united(first: pa.Field, streams: Sequence[Node]) -> pa.Field:
    nullable = any(each.schema.field(first.name).nullable for each in streams)
    return first.with_nullable(nullable)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(each) for each in names)


def _projection_of(
    node: Project | Fused,
) -> tuple[pa.Schema, tuple[str, ...], str | None, ChangeMode, tuple[str, ...] | None]:
    source = node.input
    schema, keys, time_column, unique = projected(
        source.keys, source.row_time, source.unique, node.outputs, node.location
    )
    return schema, keys, time_column, passed_mode(source), unique


def require_event_time(node: Node, location: str) -> str:
    """Return the time column of the rows of `node`.

    Raises
    ------
    PlanError
        When they have none, which windows need, or are changes.
    """
    require_facts(node, location, "a window", "aggregate them without a window, or ")
    if node.time_column is None:
        message = (
            f"{location}: a window needs event time, and these rows have none; name the column "
            'where the stream begins, ms.stream(…, time="…"), and keep it in select'
        )
        raise PlanError(message)
    return node.time_column


def grouping_keys(node: Node) -> tuple[str, ...]:
    """Return the columns by which the rows of `node` are grouped where nothing else is said.

    What tells the rows of a table or of results from each other groups none of them.
    """
    found = node
    while found.mode is not ChangeMode.APPEND and not isinstance(found, KeyBy):
        if isinstance(found, TableSource | AsTable | GroupAggregate | LatestRows):
            return ()
        found = found.inputs[0]
    return node.keys
