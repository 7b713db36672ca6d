"""Changes as rows of their own: what each change is stands in a column.

-1 (7, "a")   +1 (7, "b")   +1 (8, "c")   ─▶   (7, "a", "-U") (7, "b", "+U") (8, "c", "+I")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)
from millstream.operators.weights import weights_of

Int64Array = npt.NDArray[np.int64]

OPERATIONS = ("-D", "-U", "+U", "+I")


@dataclass(frozen=True, slots=True)
class ChangeRowsConfig:
    """Makes a row of each change.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    column
        `"weight"` adds the weight; `"op"` what it means: +I, -U and +U where a row replaces
        another of its key in one batch, -D. A change of a greater weight is as many rows.
    unique
        The columns that tell each row which holds at a moment from all others; `None`: unknown,
        and no change replaces another.
    """

    input_schema: pa.Schema
    column: Literal["op", "weight"]
    unique: tuple[str, ...] | None

    @property
    def consumes(self) -> ChangeMode:
        """Changes."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """Facts: that something changed stays true."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """Time decides nothing."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The input's columns, and the one that is added."""
        type_ = pa.string() if self.column == "op" else pa.int64()
        return (self.input_schema.append(pa.field(self.column, type_)),)

    def build(self) -> Operator:
        """Return the operator."""
        return ChangeRows(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return f"a row for each change, with {self.column}"


class ChangeRows(Stateless):
    """The running operator; see `ChangeRowsConfig`."""

    def __init__(self, config: ChangeRowsConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()
        self._schema = config.output_schemas[0]

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit a row for each change."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_arrow += batch.num_rows
        rows, weights = batch.select(self.config.input_schema.names), weights_of(batch)
        if self.config.column == "weight":
            result = self._with(rows, pa.array(weights))
        else:
            result = self._named(rows, weights)
        for begin in range(0, result.num_rows, OUTPUT_ROWS_MAX):
            piece = result.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(0, piece)

    def _named(self, rows: pa.RecordBatch, weights: Int64Array) -> pa.RecordBatch:
        comes = weights > 0
        names = np.where(comes, 3, 0)
        order = np.arange(len(weights))
        unique = self.config.unique
        if unique is not None and len(weights):
            slots = _slots([rows.column(name) for name in unique], len(weights))
            count = int(slots.max()) + 1
            came, went = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
            came[slots[comes]] = True
            went[slots[~comes]] = True
            replaces = (came & went)[slots]
            names = np.where(replaces, np.where(comes, 2, 1), names)
            order = np.lexsort((weights, slots))
        chosen = np.repeat(order, np.abs(weights[order]))
        kinds = pa.DictionaryArray.from_arrays(pa.array(names[chosen], pa.int8()), OPERATIONS)
        return self._with(rows.take(pa.array(chosen)), kinds.dictionary_decode())

    def _with(self, rows: pa.RecordBatch, column: pa.Array) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([*rows.columns, column], schema=self._schema)


def _slots(columns: list[pa.Array], count: int) -> Int64Array:
    """Return a number for each distinct key, in the order in which they come."""
    from millstream.operators.key_index import KeyIndex

    if not columns:
        return np.zeros(count, dtype=np.int64)
    return KeyIndex([each.type for each in columns]).insert(columns).of_rows
