"""Nodes that give rows to functions of the user's own: batch by batch, to look at or to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from millstream.operators.operator import ChangeMode
from millstream.operators.process_function import ProcessFunction
from millstream.plan.changes import passed_mode, require_facts
from millstream.plan.columns import check_names
from millstream.plan.sources import PlanNode

if TYPE_CHECKING:
    from millstream.plan.nodes import Node


@dataclass(frozen=True, eq=False)
class Peek(PlanNode):
    """The same rows, each batch of which a function is shown."""

    input: Node
    function: Callable[[pa.RecordBatch], object]
    function_name: str

    def __post_init__(self) -> None:
        source = self.input
        mode = passed_mode(source)
        self._settle(source.schema, source.keys, source.row_time, mode, source.unique)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class MapBatches(PlanNode):
    """What a function makes of batches of rows.

    Parameters
    ----------
    result
        The columns that it gives.
    same_rows
        Whether it gives a row for each, in order; then what is left of the key and the event time
        stays.
    """

    input: Node
    function: Callable[[pa.RecordBatch], Any]
    function_name: str
    result: pa.Schema
    same_rows: bool = False

    def __post_init__(self) -> None:
        check_names(self.result.names, self.location)
        source = self.input
        mode = passed_mode(source)
        if not self.same_rows:
            self._settle(self.result, (), None, mode)
            return
        stays = self._stays
        keys = source.keys if all(map(stays, source.keys)) else ()
        time = source.time_column
        unique = source.unique
        self._settle(
            self.result,
            keys,
            time if time is not None and stays(time) else None,
            mode,
            unique if unique is not None and all(map(stays, unique)) else None,
        )

    @property
    def kept(self) -> tuple[str, ...] | None:
        """The columns that it must give as they were; `None` where any rows come back."""
        if not self.same_rows:
            return None
        wanted = (*self.keys, *filter(None, [self.time_column]), *(self.unique or ()))
        return tuple(dict.fromkeys(wanted))

    @property
    def takes_changes(self) -> bool:
        """`True` iff rows of the input may be taken back."""
        return self.input.mode is not ChangeMode.APPEND

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)

    def _stays(self, name: str) -> bool:
        index = self.result.get_field_index(name)
        return index >= 0 and self.result.field(index).type.equals(
            self.input.schema.field(name).type
        )


@dataclass(frozen=True, eq=False)
class Process(PlanNode):
    """What a function makes of the rows of each key, with state and timers.

    Parameters
    ----------
    columns
        The key.
    state, output
        What it keeps of a key, and what it gives beside the key.
    in_order
        Whether rows come in the order of their event times.
    ttl_us
        How long after its last call what is kept of a key is forgotten; `None`: never.
    """

    input: Node
    columns: tuple[str, ...]
    function: ProcessFunction
    function_name: str
    state: pa.Schema
    output: pa.Schema
    in_order: bool
    ttl_us: int | None = None

    def __post_init__(self) -> None:
        source = self.input
        require_facts(source, self.location, "process")
        check_names(self.state.names, self.location)
        time = source.time_column if self.in_order else None
        names = [*self.columns]
        if time is not None and time not in names:
            names.append(time)
        schema = pa.schema([*(source.schema.field(each) for each in names), *self.output])
        check_names(schema.names, self.location)
        self._settle(schema, self.columns, time)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)
