"""The node of rows that become several: one for each item of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.types as pat

from millstream.errors import ExpressionTypeError, PlanError
from millstream.operators.explode import exploded_schema
from millstream.plan.changes import passed_mode
from millstream.plan.columns import require_column
from millstream.plan.sources import PlanNode

if TYPE_CHECKING:
    from millstream.plan.nodes import Node


@dataclass(frozen=True, eq=False)
class Explode(PlanNode):
    """A row for each item of the lists in `columns`, in lockstep.

    Parameters
    ----------
    empty_as_null, keep_nulls
        Whether a row whose list is empty, or null, stays, with null.
    """

    input: Node
    columns: tuple[str, ...]
    empty_as_null: bool = False
    keep_nulls: bool = True

    def __post_init__(self) -> None:
        if not self.columns or len(set(self.columns)) < len(self.columns):
            message = f"{self.location}: explode takes columns, each once; got {self.columns}"
            raise PlanError(message)
        for each in self.columns:
            type_ = require_column(self.input.schema, each, self.location).type
            if not (
                pat.is_list(type_) or pat.is_large_list(type_) or pat.is_fixed_size_list(type_)
            ):
                message = (
                    f"{self.location}: explode needs a list; {each!r} is {type_}; a text becomes "
                    'one with .str.split("…")'
                )
                raise ExpressionTypeError(message)
        # Keys and time are never lists.
        schema = exploded_schema(self.input.schema, self.columns)
        source = self.input
        self._settle(schema, source.keys, source.row_time, passed_mode(source))

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows with lists."""
        return (self.input,)
