"""A look at rows that pass: a user's function is shown each batch, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.operator import (
    WEIGHT_COLUMN,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)
from millstream.operators.poison import reason_of


@dataclass(frozen=True, slots=True)
class PeekConfig:
    """Shows each batch to a function.

    Parameters
    ----------
    schema
        Columns of the input, without hidden ones.
    function
        Gets a batch of them, and of changes also their weights, in `_weight`.
    name
        The function's, for messages.
    """

    schema: pa.Schema
    function: Callable[[pa.RecordBatch], object]
    name: str

    @property
    def consumes(self) -> ChangeMode:
        """Changes too: they pass as they are."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """What comes in."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """Stamps pass."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The input's columns."""
        return (self.schema,)

    def build(self) -> Operator:
        """Return the operator."""
        return Peek(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return f"show each batch to {self.name}"


class Peek(Stateless):
    """The running operator; see `PeekConfig`."""

    def __init__(self, config: PeekConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Show the batch, and emit it as it is.

        Raises
        ------
        JobError
            Where the function raises.
        """
        if batch.num_rows == 0:
            return
        self.counters.rows_in += batch.num_rows
        self.counters.rows_out += batch.num_rows
        weight = [name for name in batch.schema.names if name == WEIGHT_COLUMN]
        try:
            self.config.function(batch.select([*self.config.schema.names, *weight]))
        except Exception as error:
            message = f"function {self.config.name} raised {reason_of(error)}"
            raise JobError(message) from error
        yield Emit(0, batch)
