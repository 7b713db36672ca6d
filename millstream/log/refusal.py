"""Which blocks of frames a condition refuses: their statistics say that no row fulfils it.

For each part of the condition two things are asked of a block: may it be true of some row, and
may it be false of some row? `not` swaps the two, which is why both are needed. Where nothing is
known both may be.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.condition import KERNELS
from millstream.log.predicate import (
    And,
    Comparison,
    IsIn,
    IsNull,
    Not,
    Operator,
    Or,
    Predicate,
    Unknown,
)
from millstream.log.statistics import BLOCK_COLUMN, is_text

Booleans = npt.NDArray[np.bool_]

_SET_SIZE_MAX = 32
"""Greater sets of values are compared by their own bounds alone."""


class _May(NamedTuple):
    """Whether the condition may be true, and may be false, of one of the rows of each block."""

    true: Booleans
    false: Booleans


def may_fulfil(predicate: Predicate, statistics: pa.RecordBatch) -> Booleans:
    """Return for each block whether any of its rows may fulfil `predicate`.

    Parameters
    ----------
    predicate
        A bound one; see `millstream.log.condition`.
    statistics
        A row for each block; see `millstream.log.statistics`.
    """
    return _may(predicate, statistics).true


def _may(predicate: Predicate, statistics: pa.RecordBatch) -> _May:
    match predicate:
        case Comparison(column=name, operator=operator, value=value):
            return _compared(name, operator, value, statistics)
        case IsIn(column=name, values=values):
            return _is_in(name, values, statistics)
        case IsNull(column=name):
            return _is_null(name, statistics)
        case And(parts=parts):
            found = [_may(each, statistics) for each in parts]
            return _May(
                _all([each.true for each in found], statistics),
                _any([each.false for each in found], statistics),
            )
        case Or(parts=parts):
            found = [_may(each, statistics) for each in parts]
            return _May(
                _any([each.true for each in found], statistics),
                _all([each.false for each in found], statistics),
            )
        case Not(part=part):
            true, false = _may(part, statistics)
            return _May(false, true)
        case Unknown():
            return _anything(statistics)


def _anything(statistics: pa.RecordBatch) -> _May:
    both = np.ones(statistics.num_rows, bool)
    return _May(both, both)


def _all(masks: list[Booleans], statistics: pa.RecordBatch) -> Booleans:
    return reduce(np.logical_and, masks, np.ones(statistics.num_rows, bool))


def _any(masks: list[Booleans], statistics: pa.RecordBatch) -> Booleans:
    return reduce(np.logical_or, masks, np.zeros(statistics.num_rows, bool))


def _compared(name: str, operator: Operator, value: Any, statistics: pa.RecordBatch) -> _May:
    column = _column(name, statistics)
    if column is None:
        return _anything(statistics)
    has_values = _rows(statistics) > _numbers(column, "nulls")
    if not value.is_valid:
        return _anything(statistics)
    if _is_nan(value):
        differs = operator == "!="
        return _May(has_values & differs, has_values & (not differs))
    least, greatest = column.field("min"), column.field("max")
    if is_text(value.type):
        value = value.cast(pa.binary())
    try:
        true, false = _of_bounds(least, greatest, operator, value)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # A bound does not fit the type in which they are compared.
        return _anything(statistics)
    has_nan = column.field("nan").to_numpy(zero_copy_only=False)
    if operator == "!=":
        return _May(has_values & (true | has_nan), has_values & false)
    return _May(has_values & true, has_values & (false | has_nan))


def _of_bounds(
    least: pa.Array, greatest: pa.Array, operator: Operator, value: Any
) -> tuple[Booleans, Booleans]:
    """Return whether the comparison may be true, and false, of a value between the bounds."""

    def holds(bound: pa.Array, of_bound: Operator) -> Booleans:
        found = KERNELS[of_bound](bound, value)
        return pc.fill_null(found, True).to_numpy(zero_copy_only=False)  # no bound: unknown

    match operator:
        case "<":
            return holds(least, "<"), holds(greatest, ">=")
        case "<=":
            return holds(least, "<="), holds(greatest, ">")
        case ">":
            return holds(greatest, ">"), holds(least, "<=")
        case ">=":
            return holds(greatest, ">="), holds(least, "<")
    equal = holds(least, "<=") & holds(greatest, ">=")
    other = holds(least, "!=") | holds(greatest, "!=")
    return (equal, other) if operator == "==" else (other, equal)


def _is_in(name: str, values: Any, statistics: pa.RecordBatch) -> _May:
    """Return whether one of the values may be there; whether another may be is not asked."""
    everything = np.ones(statistics.num_rows, bool)
    if len(values) == 0:
        return _May(~everything, everything)
    if len(values) <= _SET_SIZE_MAX:
        found = [_compared(name, "==", each, statistics).true for each in values]
        return _May(_any(found, statistics), everything)
    ends = pc.min_max(values)
    above = _compared(name, ">=", ends["min"], statistics).true
    below = _compared(name, "<=", ends["max"], statistics).true
    return _May(above & below, everything)


def _is_null(name: str, statistics: pa.RecordBatch) -> _May:
    column = _column(name, statistics)
    if column is None:
        return _anything(statistics)
    nulls = _numbers(column, "nulls")
    return _May(nulls > 0, _rows(statistics) > nulls)


def _column(name: str, statistics: pa.RecordBatch) -> pa.StructArray | None:
    index = statistics.schema.get_field_index(name)
    return None if index < 0 else statistics.column(index)


def _rows(statistics: pa.RecordBatch) -> npt.NDArray[np.int64]:
    return _numbers(statistics.column(BLOCK_COLUMN), "rows")


def _numbers(column: pa.StructArray, name: str) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = column.field(name).to_numpy()
    return numbers


def _is_nan(value: Any) -> bool:
    return pa.types.is_floating(value.type) and value.as_py() != value.as_py()
