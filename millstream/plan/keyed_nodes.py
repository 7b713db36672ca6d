"""Nodes that make changes of rows, and rows of changes: running aggregates and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from millstream.errors import ExpressionTypeError, PlanError
from millstream.log.key_hash import is_key_type
from millstream.operators.consolidate import can_consolidate
from millstream.operators.operator import ChangeMode
from millstream.plan.aggregates import AggregateColumn, is_ordered
from millstream.plan.changes import is_told_apart, passed_mode, require_facts
from millstream.plan.columns import check_names, require_column
from millstream.plan.sources import PlanNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millstream.plan.nodes import Node


@dataclass(frozen=True, eq=False)
class GroupAggregate(PlanNode):
    """One row for each key: the key and the aggregates of all its rows so far.

    Parameters
    ----------
    columns
        Key columns; empty for one group of all rows.
    aggregates
        Result columns.
    ttl_us
        How long after its newest row, in event time, a key is forgotten; `None`: never.
    """

    input: Node
    columns: tuple[str, ...]
    aggregates: tuple[AggregateColumn, ...]
    ttl_us: int | None = None

    def __post_init__(self) -> None:
        if self.ttl_us is not None:
            require_facts(self.input, self.location, "a TTL", "leave out ttl=, or ")
            if self.input.time_column is None:
                message = (
                    f"{self.location}: a TTL needs event time, and these rows have none; name the "
                    'column where the stream begins, ms.stream(…, time="…"), and keep it'
                )
                raise PlanError(message)
        keys = [require_column(self.input.schema, each, self.location) for each in self.columns]
        for each in self.aggregates if self.takes_changes else ():
            self._check_takes_back(each)
        results = [pa.field(each.name, each.type) for each in self.aggregates]
        schema = pa.schema([*keys, *results])
        check_names(schema.names, self.location)
        self._settle(schema, self.columns, None, ChangeMode.CHANGELOG, self.columns)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows that are aggregated."""
        return (self.input,)

    def _check_takes_back(self, aggregate: AggregateColumn) -> None:
        if not aggregate.is_retractable:
            message = (
                f"{aggregate.location}: {aggregate.function} of {aggregate.type_of_argument} "
                f"cannot take a row back, as lists and structs are not told apart, and "
                f"{aggregate.name!r} is over changes of a table; aggregate a field of it, or make "
                "a row of each change with .to_stream() before"
            )
            raise PlanError(message)
        if aggregate.function in {"first", "last"} and self.input.row_time is None:
            other = "arg_min" if aggregate.function == "first" else "arg_max"
            message = (
                f"{aggregate.location}: {aggregate.function} goes by event time, and these changes "
                f"of a table have none; use ms.{other}(…, by=…) with a column that orders them"
            )
            raise PlanError(message)

    @property
    def takes_changes(self) -> bool:
        """`True` iff rows of the input may be taken back."""
        return self.input.mode is not ChangeMode.APPEND

    @property
    def merges(self) -> bool:
        """`True` iff rows of a key are fewer once they are combined, for all aggregates."""
        return all(each.shrinks(self.takes_changes) for each in self.aggregates)


@dataclass(frozen=True, eq=False)
class AsTable(PlanNode):
    """Facts understood as upserts: a row replaces the one before it of the same key.

    Parameters
    ----------
    columns
        The key.
    """

    input: Node
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        schema = self.input.schema
        for each in self.columns:
            type_ = require_column(schema, each, self.location).type
            if not is_key_type(type_):
                message = f"{self.location}: a table cannot be keyed by {each!r}, which is {type_}"
                raise ExpressionTypeError(message)
        check_names(self.columns, self.location)
        assert self.input.mode is ChangeMode.APPEND, "changes are a table already"
        time = self.input.time_column
        self._settle(schema, self.columns, None, ChangeMode.UPSERT, self.columns, row_time=time)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The facts."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class LatestRows(PlanNode):
    """Upserts as a changelog: each row together with the one that it replaces.

    Parameters
    ----------
    columns
        The key.
    order
        The column whose greatest value is the latest; `None`: the last that came.
    """

    input: Node
    columns: tuple[str, ...]
    order: str | None = None

    def __post_init__(self) -> None:
        self._settle(
            self.input.schema,
            self.columns,
            self.order or self.input.row_time,
            ChangeMode.CHANGELOG,
            self.columns,
        )

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The upserts, or the facts that are understood so."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Top(PlanNode):
    """The best rows of each key.

    Parameters
    ----------
    columns
        The key; empty for the best of all rows.
    limit
        How many rows of a key.
    by, ascending
        Columns that order rows, and whether the least value comes first.
    ties
        Whether rows that are equal in `by` to the last one are kept, too.
    rank
        A column that is added, and says which of the best a row is; `None`: none is.
    """

    input: Node
    columns: tuple[str, ...]
    limit: int
    by: tuple[str, ...]
    ascending: bool = False
    ties: bool = False
    rank: str | None = None

    def __post_init__(self) -> None:
        source = self.input
        for each in self.by:
            type_ = require_column(source.schema, each, self.location).type
            if not is_ordered(type_):
                message = (
                    f"{self.location}: top orders by numbers, times, dates and booleans; "
                    f"{each!r} is {type_}"
                )
                raise ExpressionTypeError(message)
        if self.takes_changes and not can_consolidate(source.schema):
            message = (
                f"{self.location}: top over changes of a table must tell its rows apart, and these "
                "have lists or structs; leave them out with select or drop before"
            )
            raise PlanError(message)
        unique = self.columns if self.limit == 1 and not self.ties else source.unique
        schema = source.schema
        if self.rank is not None:
            schema, unique = (
                schema.append(pa.field(self.rank, pa.int64())),
                (*self.columns, self.rank),
            )
            check_names(schema.names, self.location)
        self._settle(schema, self.columns, source.row_time, ChangeMode.CHANGELOG, unique)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)

    @property
    def takes_changes(self) -> bool:
        """`True` iff rows of the input may be taken back."""
        return self.input.mode is not ChangeMode.APPEND

    @property
    def then(self) -> tuple[str, ...]:
        """Of rows that are equal otherwise, the earliest comes first."""
        time = self.input.time_column
        return () if time is None or time in self.by else (time,)


@dataclass(frozen=True, eq=False)
class Dedup(PlanNode):
    """The first row of each key, and again after some time.

    Parameters
    ----------
    columns
        The key.
    within_us
        For how long, in event time before and after a row that passed, others of its key do not;
        `None`: for ever.
    """

    input: Node
    columns: tuple[str, ...]
    within_us: int | None = None

    def __post_init__(self) -> None:
        source = self.input
        require_facts(source, self.location, "dedup", "a table has one row a key already; ")
        for each in self.columns:
            require_column(source.schema, each, self.location)
        check_names(self.columns, self.location)
        if self.within_us is not None and source.time_column is None:
            message = (
                f"{self.location}: dedup within a time needs event time, and these rows have none; "
                'name the column where the stream begins, ms.stream(…, time="…"), and keep it'
            )
            raise PlanError(message)
        self._settle(source.schema, source.keys, source.time_column)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Limit(PlanNode):
    """The first rows that come, whichever these are.

    Parameters
    ----------
    count
        How many.
    """

    input: Node
    count: int

    def __post_init__(self) -> None:
        source = self.input
        remedy = "keep the best of a table with .top(n, by=…), or "
        require_facts(source, self.location, "limit", remedy)
        self._settle(source.schema, source.keys, source.time_column)

    @property
    def columns(self) -> tuple[str, ...]:
        """No key: they are the first of all rows."""
        return ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class ChangeRows(PlanNode):
    """Changes as facts: a row for each, with a column that says what it is.

    Parameters
    ----------
    column
        `"op"`: +I, -U, +U or -D. `"weight"`: +1 or -1, or more of equal rows.
    """

    input: Node
    column: Literal["op", "weight"]

    def __post_init__(self) -> None:
        type_ = pa.string() if self.column == "op" else pa.int64()
        schema = self.input.schema.append(pa.field(self.column, type_))
        check_names(schema.names, self.location)
        self._settle(schema, self.input.keys)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The changes."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Consolidate(PlanNode):
    """Changes without those that cancel each other; made by rewrites."""

    input: Node

    def __post_init__(self) -> None:
        source = self.input
        mode = passed_mode(source)
        self._settle(source.schema, source.keys, source.row_time, mode, source.unique)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The changes."""
        return (self.input,)


def require_unique(node: PlanNode, keys: Sequence[str], location: str, what: str) -> None:
    """Check that changes have one row for each value of `keys`, as `what` needs.

    Raises
    ------
    PlanError
        When they may have several.
    """
    if is_told_apart(node.unique, keys):
        return
    known = "nothing tells their rows apart"
    remedy = "keep the key columns of what made them in select, or aggregate by the key"
    if node.unique is not None:
        known = f"they have a row for each {', '.join(node.unique) or 'moment'}"
        remedy = f"use key={list(node.unique)!r}, or aggregate by the key first"
    message = (
        f"{location}: {what} needs one row for each {', '.join(keys) or 'key'} of these changes, "
        f"and {known}; {remedy}"
    )
    raise PlanError(message)
