"""Changes without those that cancel each other in a batch.

-1 a   +1 b   +1 a   +1 b   ─▶   +2 b
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millstream.log.key_hash import is_key_type
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    WEIGHT_COLUMN,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)
from millstream.operators.weights import WEIGHT_FIELD, weights_of


def can_consolidate(schema: pa.Schema) -> bool:
    """Return `True` iff rows of `schema` can be told to be equal: not with lists or structs."""
    return all(is_key_type(each.type) for each in schema)


def consolidated(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return each row once with the sum of its weights, and without those that sum to nothing.

    Parameters
    ----------
    rows
        With `_weight`; otherwise they are returned as they are.

    Returns
    -------
    pyarrow.RecordBatch
        Each row where it stood first, so that one which replaces another stays behind it.
    """
    from millstream.operators.key_index import KeyIndex

    names = rows.schema.names
    if WEIGHT_COLUMN not in names:
        return rows
    weights = weights_of(rows)
    columns = [rows.column(name) for name in names if name not in HIDDEN_COLUMNS]
    slots = KeyIndex([each.type for each in columns]).insert(columns).of_rows
    distinct = int(slots.max(initial=-1)) + 1
    if distinct == len(slots):
        return rows
    sums = np.zeros(distinct, dtype=np.int64)
    np.add.at(sums, slots, weights)
    first = np.empty(distinct, dtype=np.int64)
    first[slots[::-1]] = np.arange(len(slots))[::-1]
    first = np.sort(first[sums != 0])
    index = rows.schema.get_field_index(WEIGHT_COLUMN)
    kept = rows.take(pa.array(first))
    return kept.set_column(index, WEIGHT_FIELD, pa.array(sums[slots[first]]))


@dataclass(frozen=True, slots=True)
class ConsolidateConfig:
    """Sums the weights of equal rows of a batch.

    Parameters
    ----------
    schema
        Columns of the input, without hidden ones; none is a list or a struct.
    """

    schema: pa.Schema

    @property
    def consumes(self) -> ChangeMode:
        """Changes."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """Changes."""
        return ChangeMode.CHANGELOG

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
        """The input's columns."""
        return (self.schema,)

    def build(self) -> Operator:
        """Return the operator."""
        return Consolidate()

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return "leave out changes that cancel each other"


class Consolidate(Stateless):
    """The running operator; see `ConsolidateConfig`."""

    def __init__(self) -> None:
        self.counters = OperatorCounters()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit what does not cancel."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        result = consolidated(batch)
        if result.num_rows:
            self.counters.rows_out += result.num_rows
            yield Emit(0, result)
