"""Several streams of one schema as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from millstream.operators.operator import (
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)


@dataclass(frozen=True, slots=True)
class UnionConfig:
    """Passes the rows of any number of inputs on, as they come."""

    schema: pa.Schema

    @property
    def consumes(self) -> ChangeMode:
        """Changes too: rows pass as they are."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """What comes in."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """Lateness is decided further down."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The common schema."""
        return (self.schema,)

    def build(self) -> Operator:
        """Return the operator."""
        return Union()

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return "union"


class Union(Stateless):
    """The running operator; batches pass without being touched."""

    def __init__(self) -> None:
        self.counters = OperatorCounters()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Pass the batch on."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_out += batch.num_rows
        if batch.num_rows:
            yield Emit(0, batch)
