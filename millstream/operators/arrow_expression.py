"""Evaluates typed expressions with Arrow: what kernels leave, and their oracle."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.failing import may_fail
from millstream.operators.functions import casts, json_texts, lists, numbers, texts, times, user
from millstream.operators.functions.function import Function, take, taken

_FUNCTIONS: dict[str, Function] = {
    **numbers.FUNCTIONS,
    **casts.FUNCTIONS,
    **texts.FUNCTIONS,
    **times.FUNCTIONS,
    **lists.FUNCTIONS,
    **json_texts.FUNCTIONS,
    **user.FUNCTIONS,
}
FUNCTIONS = frozenset(_FUNCTIONS)
"""The functions of `millstream.operators.expression`, all of them."""


def evaluate(
    expression: TypedExpression, batch: pa.RecordBatch, known: dict[int, Any] | None = None
) -> pa.Array:
    """Return the value of `expression` in each row.

    Parameters
    ----------
    expression
        Bound to the batch's schema.
    batch
        n rows.
    known
        What parts of expressions are in these rows, by the part's `id`; what is computed is
        added.

    Returns
    -------
    pyarrow.Array
        n values of the expression's type.

    Raises
    ------
    JobError
        Where a value of some row cannot be computed, e.g. a cast does not fit; names it.
    """
    value = _value(expression, batch, {} if known is None else known)
    if isinstance(value, pa.Scalar):
        return pa.repeat(value, batch.num_rows)
    return value


def _value(expression: TypedExpression, batch: pa.RecordBatch, known: dict[int, Any]) -> Any:
    """Return an array, or a scalar where the value is the same in every row."""
    if id(expression) in known:
        return known[id(expression)]
    value = _new_value(expression, batch, known)
    if isinstance(expression, Call):
        known[id(expression)] = value
    return value


def _new_value(expression: TypedExpression, batch: pa.RecordBatch, known: dict[int, Any]) -> Any:
    match expression:
        case Column(name=name):
            return batch.column(name)
        case Constant(value=value, type=type_):
            return pa.scalar(value, type_)
        case Call(function="case", arguments=arguments) if any(map(may_fail, arguments)):
            return _guarded_case(expression, batch)
        case Call(function=function, arguments=arguments):
            values = [_value(each, batch, known) for each in arguments]
            # Calendar and string functions take scalars too; `is_in` and others want arrays.
            if all(isinstance(each, pa.Scalar) for each in values):
                values = [pa.repeat(each, batch.num_rows) for each in values]
            return _FUNCTIONS[function](values, expression)
    message = f"no such expression: {expression!r}"
    raise AssertionError(message)


def _guarded_case(call: Call, batch: pa.RecordBatch) -> pa.Array:
    """Return a choice of which each branch is computed only for the rows that take it."""
    pairs, otherwise = call.arguments[:-1], call.arguments[-1]
    rows, places = batch, pa.array(range(batch.num_rows), pa.int64())
    parts: list[pa.Array] = []
    order: list[pa.Array] = []
    for condition, branch in zip(pairs[0::2], pairs[1::2], strict=True):
        holds = pc.fill_null(evaluate(condition, rows), False)
        parts.append(evaluate(branch, _kept(rows, holds)))
        order.append(places.filter(holds))
        rest = pc.invert(holds)
        rows, places = _kept(rows, rest), places.filter(rest)
    parts.append(evaluate(otherwise, rows))
    order.append(places)
    back = pc.sort_indices(pa.concat_arrays(order))
    return take(pa.concat_arrays(parts), back)


def _kept(rows: pa.RecordBatch, mask: pa.Array) -> pa.RecordBatch:
    indices = pc.indices_nonzero(mask)
    return taken(rows, indices) if rows.num_columns else rows.slice(0, len(indices))
