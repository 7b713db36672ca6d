"""A user's function from batch to batch, of Arrow's or of whatever gives its columns to Arrow.

rows ─▶ by weight, where they are changes ─▶ function ─▶ columns of the declared schema
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    OUTPUT_ROWS_MAX,
    WEIGHT_COLUMN,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)
from millstream.operators.poison import DEAD_LETTERS, FAIL, ErrorPolicy, reason_of, with_poison
from millstream.operators.weights import WEIGHT_FIELD, weights_of


@dataclass(frozen=True, slots=True)
class MapBatchesConfig:
    """Makes other rows of rows.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    schema
        Of the result.
    function
        Gets a batch of at most `OUTPUT_ROWS_MAX` rows, and returns what Arrow takes for a table.
    name
        The function's, for messages.
    kept
        Where a row comes back for each row, in order: columns that must come back as they were.
        `None`: any rows come back.
    policy
        What becomes of rows on which it fails.
    """

    input_schema: pa.Schema
    schema: pa.Schema
    function: Callable[[pa.RecordBatch], Any]
    name: str
    kept: tuple[str, ...] | None
    policy: ErrorPolicy = FAIL

    @property
    def may_fail(self) -> bool:
        """A function may fail on any row."""
        return True

    @property
    def consumes(self) -> ChangeMode:
        """Changes too: what is made of a row is taken back with it."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """What comes in."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """Stamps pass, where rows do."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The declared columns; with dead letters, those."""
        with_letters = self.policy.on_error == "dlq"
        return (self.schema, DEAD_LETTERS) if with_letters else (self.schema,)

    def build(self) -> Operator:
        """Return the operator."""
        return MapBatches(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        rows = ", row for row" if self.kept is not None else ""
        return f"batches through {self.name}{rows}: {', '.join(self.schema.names)}"


class MapBatches(Stateless):
    """The running operator; see `MapBatchesConfig`."""

    def __init__(self, config: MapBatchesConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit what the function makes of the rows.

        Raises
        ------
        RowError
            Where it fails on a row, if the policy is to fail; shows the row.
        """
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            piece = batch.slice(begin, OUTPUT_ROWS_MAX)
            for emit in with_poison(piece, self._apply, self.config.policy, self.counters, ()):
                for at in range(0, emit.batch.num_rows, OUTPUT_ROWS_MAX):
                    yield Emit(emit.port, emit.batch.slice(at, OUTPUT_ROWS_MAX))

    def _apply(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        self.counters.rows_in += rows.num_rows
        self.counters.rows_python += rows.num_rows
        given = rows.select(self.config.input_schema.names)
        if self.config.kept is not None:
            return self._with_hidden(rows, self._row_for_row(given, self.config.kept))
        if WEIGHT_COLUMN not in rows.schema.names:
            return self._made(given)
        weights = weights_of(rows)
        parts = []
        # What holds comes before what is gone, so that nothing is taken back before it came.
        for weight in np.unique(weights)[::-1].tolist():
            made = self._made(given.filter(pa.array(weights == weight)))
            column = pa.array(np.full(made.num_rows, weight))
            parts.append(made.append_column(WEIGHT_FIELD, column))
        return pa.concat_batches(parts)

    def _row_for_row(self, given: pa.RecordBatch, kept: tuple[str, ...]) -> pa.RecordBatch:
        made, name = self._made(given), self.config.name
        if made.num_rows != given.num_rows:
            message = (
                f"function {name} gave {made.num_rows} rows for {given.num_rows}, and was said to "
                "give a row for each (same_rows=True)"
            )
            raise JobError(message)
        for each in kept:
            if not made.column(each).equals(given.column(each)):
                message = (
                    f"function {name} gave other values of {each!r}, a key or the event time, and "
                    "was said to give the same rows; give what it computes another name"
                )
                raise JobError(message)
        return made

    def _with_hidden(self, rows: pa.RecordBatch, made: pa.RecordBatch) -> pa.RecordBatch:
        for each in rows.schema:
            if each.name in HIDDEN_COLUMNS:
                made = made.append_column(each, rows.column(each.name))
        return made

    def _made(self, given: pa.RecordBatch) -> pa.RecordBatch:
        """Return what the function gives of rows, in the declared schema."""
        schema, name = self.config.schema, self.config.name
        try:
            made = self.config.function(given)
        except Exception as error:
            message = f"function {name} raised {type(error).__name__}: {error}"
            raise JobError(message) from error
        try:
            table = made if isinstance(made, pa.Table | pa.RecordBatch) else pa.table(made)
        except Exception as error:
            message = (
                f"function {name} gave a {type(made).__name__}, and not what has columns, such as "
                f"a pyarrow.RecordBatch: {reason_of(error)}"
            )
            raise JobError(message) from error
        if sorted(table.schema.names) != sorted(schema.names):
            message = (
                f"function {name} gave the columns {', '.join(table.schema.names)}, and declared "
                f"are {', '.join(schema.names)}"
            )
            raise JobError(message)
        return pa.RecordBatch.from_arrays(
            [self._column(table.column(each.name), each) for each in schema], schema=schema
        )

    def _column(self, given: Any, field: pa.Field) -> pa.Array:
        column = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
        if column.type.equals(field.type):
            return column
        try:
            return column.cast(field.type)
        except pa.ArrowException as error:
            message = (
                f"function {self.config.name} gave {field.name!r} as {column.type}, which is no "
                f"{field.type}: {error}"
            )
            raise JobError(message) from error
