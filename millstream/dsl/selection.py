"""Columns as verbs take them: names, expressions, and expressions by keyword."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from millstream.dsl.binding import Scope, output_name
from millstream.dsl.expressions import Expression, to_expression
from millstream.errors import ExpressionTypeError
from millstream.operators.expression import Column, TypedExpression
from millstream.plan.columns import Outputs, require_column


def named_outputs(
    schema: pa.Schema,
    columns: Sequence[object],
    computed: Mapping[str, object],
    location: str,
) -> Outputs:
    """Return what `verb(*columns, **computed)` asks for, as named typed expressions.

    Text among `columns` names a column; a keyword's value is an expression or a constant.

    Raises
    ------
    UnknownColumnError, ExpressionTypeError, PlanError
        At the user's line, as binding does.
    """
    scope = Scope(schema)
    outputs: list[tuple[str, TypedExpression]] = []
    for each in columns:
        if isinstance(each, str):
            outputs.append((each, Column(each, require_column(schema, each, location).type)))
        elif isinstance(each, Expression):
            outputs.append((output_name(each), scope.bind(each)))
        else:
            message = f"{location}: expected a column's name or an expression; got {each!r}"
            raise ExpressionTypeError(message)
    for name, value in computed.items():
        outputs.append((name, scope.bind(to_expression(value, location))))
    return tuple(outputs)


def condition(value: object, location: str) -> Expression:
    """Return `value` as a condition: an expression, or True or False for all rows.

    Raises
    ------
    ExpressionTypeError
        When it is something else, such as the name of a column.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, bool):
        return to_expression(value, location)
    hint = f"col({value!r})" if isinstance(value, str) else 'col("…")'
    message = f"{location}: expected an expression such as {hint} > 0; got {value!r}"
    raise ExpressionTypeError(message)
