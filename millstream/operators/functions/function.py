"""What a function of a column is to the evaluator, and the few things that many of them need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.expression import Call

Function: TypeAlias = Callable[[list[Any], Call], Any]
"""Arrays or scalars, and the call → an array of the call's type."""


def simple(function: Callable[..., Any]) -> Function:
    """Return an entry of the table for a function of the arguments alone."""
    return lambda values, call: function(*values)


def fitted(function: Callable[..., Any]) -> Function:
    """Return an entry of the table for a function whose result may be of another integer type."""

    def entry(values: list[Any], call: Call) -> Any:
        result = function(*values)
        return result if result.type == call.type else result.cast(call.type)

    return entry


def option(call: Call, name: str) -> Any:
    """Return option `name` of a call; `None` where it was not given."""
    return dict(call.options).get(name)


def first_failing(values: pa.Array, compute: Callable[[pa.Array], object]) -> int:
    """Return the index of the first value that alone makes `compute` raise an Arrow error.

    Asks O(log n) times, each for a part; `compute` must fail for the whole.
    """
    begin, end = 0, len(values)
    while end - begin > 1:
        middle = (begin + end) // 2
        try:
            compute(values.slice(begin, middle - begin))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            end = middle
        else:
            begin = middle
    return begin


def nulls_where_failing(
    values: pa.Array, compute: Callable[[pa.Array], pa.Array], type_: pa.DataType
) -> pa.Array:
    """Return `compute(values)`, with null for each value of which it raises an Arrow error."""
    try:
        return compute(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(values) == 1:
            return pa.nulls(1, type_)
    middle = len(values) // 2
    parts = [values.slice(0, middle), values.slice(middle)]
    return pa.concat_arrays([nulls_where_failing(each, compute, type_) for each in parts])


def as_array(value: Any, count: int) -> pa.Array:
    """Return a value of every row as an array of `count`."""
    return pa.repeat(value, count) if isinstance(value, pa.Scalar) else value


def is_view(type_: pa.DataType) -> bool:
    """Return `True` iff the type is a view of text or bytes, with which Arrow hardly computes."""
    return bool(pat.is_string_view(type_) or pat.is_binary_view(type_))


def take(array: pa.Array, indices: pa.Array) -> pa.Array:
    """Return the values at `indices`; of a view too, which Arrow cannot take from."""
    if not is_view(array.type):
        return array.take(indices)
    plain = pa.large_string() if pat.is_string_view(array.type) else pa.large_binary()
    return array.cast(plain).take(indices).cast(array.type)


def taken(rows: pa.RecordBatch, indices: Any) -> pa.RecordBatch:
    """Return the rows at `indices`, an integer array; views too."""
    places = pa.array(indices)
    if not any(is_view(each.type) for each in rows.schema):
        return rows.take(places)
    columns = [take(each, places) for each in rows.columns]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)
