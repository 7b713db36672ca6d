"""Which rows of a batch that failed are worth a look: found for whole columns, not row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, TypedExpression

_NULL_FOR_NULL_ONLY = frozenset({"cast", "str.strptime"})
"""Functions that, where they are not strict, are null of what is not null only where they fail."""


def suspects(
    expressions: Iterable[TypedExpression], rows: pa.RecordBatch
) -> npt.NDArray[np.bool_] | None:
    """Return which rows a cast, or a text that is read as a time, does not fit in.

    Others may fail too, and these need not: a branch or a filter may leave them out. `None`:
    nothing can be told.
    """
    found: Any = np.zeros(rows.num_rows, dtype=bool)
    try:
        for call in _calls(expressions):
            given = evaluate(_lenient(call.arguments[0]), rows)
            made = evaluate(_lenient(call), rows)
            lost = pc.and_(pc.is_valid(given), pc.is_null(made))
            found |= np.asarray(lost)
    except Exception:
        return None
    return found if found.any() else None


def _calls(expressions: Iterable[TypedExpression]) -> Iterator[Call]:
    for each in expressions:
        if isinstance(each, Call):
            yield from _calls(each.arguments)
            if each.function in _NULL_FOR_NULL_ONLY:
                yield each


def _lenient(expression: TypedExpression) -> TypedExpression:
    if not isinstance(expression, Call):
        return expression
    arguments = tuple(_lenient(each) for each in expression.arguments)
    options = expression.options
    if expression.function in _NULL_FOR_NULL_ONLY:
        options = (*((name, each) for name, each in options if name != "strict"), ("strict", False))
    return Call(expression.function, arguments, expression.type, options)
