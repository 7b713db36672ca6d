"""Untyped expressions → typed ones, against the schema of the rows that they will see.

Binding finds the columns, promotes types as SQL would by inserting casts, adapts constants
to what they meet, and raises what is wrong at the line where it was written:

    /home/you/job.py:12: no column 'dep_dely'; did you mean 'dep_delay'?
    /home/you/job.py:14: cannot compare col("carrier") (string) with 15 (int64); cast one, …

What each function accepts is in `signatures.py`; this module walks the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import literals, promotion
from millstream.dsl.expressions import Expression, option, render
from millstream.errors import (
    ExpressionTypeError,
    OptionError,
    PlanError,
    UnknownColumnError,
    nearest,
)
from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.functions.casts import cast as cast_array
from millstream.windows.duration import parse_duration_us

COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")

DEPTH_MAX = 80
"""How deep an expression may nest: what walks it later does so by recursion."""


def bind(expression: Expression, schema: pa.Schema) -> TypedExpression:
    """Return `expression` typed against `schema`.

    Raises
    ------
    UnknownColumnError
        When it names a column that `schema` does not have; lists the nearest names.
    ExpressionTypeError
        When the types of operands do not fit; names them and the remedy.

    Examples
    --------
    >>> from millstream.dsl.expressions import col
    >>> bind(col("n") > 1, pa.schema({"n": pa.int8()})).arguments[1]
    Constant(value=1, type=DataType(int8))
    """
    return Scope(schema).bind(expression)


class Scope:
    """The columns that expressions may name, and what was bound already.

    Parameters
    ----------
    schema
        The rows that the expressions will see.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        # An operator looks at its operands more than once, so without a memory the time
        # would double with every level. The expressions are kept so that ids stay theirs.
        self._bound: dict[int, tuple[Expression, TypedExpression]] = {}
        self._depth = 0

    def bind(self, expression: Expression) -> TypedExpression:
        """Return `expression` typed; raises as the function `bind` does."""
        if id(expression) in self._bound:
            return self._bound[id(expression)][1]
        if self._depth == DEPTH_MAX:
            message = (
                f"{expression.location}: the expression is more than {DEPTH_MAX} levels deep; "
                "use .is_in([…]) for many alternatives, or name a part with .with_columns(…)"
            )
            raise PlanError(message)
        self._depth += 1
        try:
            bound = self._bind(expression)
        finally:
            self._depth -= 1
        self._bound[id(expression)] = (expression, bound)
        return bound

    def _bind(self, expression: Expression) -> TypedExpression:
        match expression.function:
            case "column":
                return _column(expression, self.schema)
            case "literal":
                return _literal(expression)
            case "alias":
                return self.bind(expression.arguments[0])
            case "cast":
                return _cast(expression, self)
            case _:
                # Imported here, since what a function accepts is written in terms of binding.
                from millstream.dsl.signatures import bind_call

                return bind_call(expression, self)


def bind_boolean(expression: Expression, scope: Scope, what: str) -> TypedExpression:
    """Return `expression` bound, where `what` (e.g. `"filter"`) needs a condition.

    Raises
    ------
    ExpressionTypeError
        When it is not boolean; says so for `what`.
    """
    bound = scope.bind(expression)
    if pat.is_null(bound.type):
        return Constant(None, pa.bool_())
    if not pat.is_boolean(bound.type):
        message = (
            f"{expression.location}: {what} needs a condition (bool); "
            f"got {shown(expression, bound)}; compare it with something, "
            f"e.g. {_compared(expression, bound.type)}"
        )
        raise ExpressionTypeError(message)
    return bound


def output_name(expression: Expression) -> str:
    """Return the column name under which the expression's result goes.

    That is its alias, else the name of the column that it starts from (as in Polars).

    Raises
    ------
    PlanError
        When it has neither.
    """
    start = expression
    while start.arguments and start.function not in {"alias", "case"}:
        start = start.arguments[0]
    if start.function in {"alias", "column"}:
        return str(option(start, "name"))
    message = (
        f"{expression.location}: {render(expression)} has no name; "
        'give it one with .alias("name") or as a keyword, name=…'
    )
    raise PlanError(message)


def coerce(expression: TypedExpression, type_: pa.DataType) -> TypedExpression:
    """Return `expression` as `type_`, with a cast where it is not that already."""
    if expression.type.equals(type_):
        return expression
    if isinstance(expression, Constant):
        return literals.folded(expression, type_)
    return Call("cast", (expression,), type_)


def bind_together(arguments: Sequence[Expression], scope: Scope) -> list[TypedExpression] | None:
    """Return `arguments` bound and cast to the one type in which they all meet, or `None`.

    Constants adapt to the columns, not the other way round.
    """
    bound = {
        index: scope.bind(each)
        for index, each in enumerate(arguments)
        if each.function != "literal"
    }
    constants = [option(each, "value") for each in arguments if each.function == "literal"]
    common: pa.DataType | None = pa.null()
    for each in bound.values():
        common = None if common is None else promotion.common_type(common, each.type)
    for value in constants:
        if common is not None and pat.is_null(common):
            common = literals.natural_type(value)
        elif common is not None:
            common = literals.meeting_type(value, common)
    if common is None:
        return None
    return [
        coerce(bound[index], common)
        if index in bound
        else literals.constant(option(each, "value"), common)
        for index, each in enumerate(arguments)
    ]


def shown(expression: Expression, bound: TypedExpression) -> str:
    """Return an operand for an error message: its source and its type."""
    return f"{render(expression)} ({bound.type})"


def failure(expression: Expression, what: str, remedy: str) -> ExpressionTypeError:
    """Return the error of an expression that does not fit, at its line."""
    message = f"{expression.location}: {what}; {remedy}"
    return ExpressionTypeError(message)


def duration_us(value: object, expression: Expression) -> int:
    """Return a duration written as text or as a timedelta, in microseconds.

    Raises
    ------
    ExpressionTypeError
        When it is neither; names the line of `expression`.
    """
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    try:
        return parse_duration_us(value)  # type: ignore[arg-type]  # checked by the parser
    except (OptionError, TypeError, AttributeError) as error:
        what = f"{render(expression)}: {value!r} is no duration"
        raise failure(expression, what, 'write e.g. "90s", "1h" or a timedelta') from error


def _compared(expression: Expression, type_: pa.DataType) -> str:
    operand = render(expression)
    if promotion.is_number(type_):
        return f"{operand} > 0"
    return f'{operand} == "…"' if promotion.is_text(type_) else f"{operand}.is_not_null()"


def _column(expression: Expression, schema: pa.Schema) -> Column:
    name = option(expression, "name")
    if not isinstance(name, str):
        message = f"{expression.location}: a column is named by a string; got {name!r}"
        raise ExpressionTypeError(message)
    index = schema.get_field_index(name)
    if index < 0:
        message = f"{expression.location}: no column {name!r}{nearest(name, schema.names)}"
        raise UnknownColumnError(message)
    return Column(name, schema.field(index).type)


def _literal(expression: Expression) -> Constant:
    value = option(expression, "value")
    type_ = literals.natural_type(value)
    if type_ is None:
        message = (
            f"{expression.location}: {value!r} ({type(value).__name__}) cannot be a constant; "
            "use a number, text, bytes, date, time, timedelta or None, or a column: col(…)"
        )
        raise ExpressionTypeError(message)
    return literals.constant(value, type_)


def _cast(expression: Expression, scope: Scope) -> TypedExpression:
    inner = scope.bind(expression.arguments[0])
    options = dict(expression.options)
    target, strict = named_type(options["to"], expression.location), options.get("strict", True)
    try:
        if isinstance(inner, Constant) and strict:
            return literals.folded(inner, target)
        cast_array(pa.array([], inner.type), target)
    except pa.ArrowException as error:
        message = (
            f"{expression.location}: cannot cast {shown(expression.arguments[0], inner)} "
            f"to {target}; {error}"
        )
        raise ExpressionTypeError(message) from error
    if strict:
        return coerce(inner, target)
    return Call("cast", (inner,), target, (("strict", False),))


_TYPE_NAMES: dict[object, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
    bytes: pa.binary(),
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bytes": pa.binary(),
    "timestamp": pa.timestamp("us", "UTC"),
    "datetime": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "duration": pa.duration("us"),
}


def named_type(named: object, location: str) -> pa.DataType:
    """Return the type that a name, a Python type or a `pyarrow.DataType` means.

    Raises
    ------
    ExpressionTypeError
        When there is none; lists the nearest names.
    """
    if isinstance(named, pa.DataType):
        return named
    if named in _TYPE_NAMES:
        return _TYPE_NAMES[named]
    if isinstance(named, str):
        try:
            return pa.type_for_alias(named)
        except ValueError:
            pass
    known = [each for each in _TYPE_NAMES if isinstance(each, str)]
    known += ["int8", "int16", "int32", "int64", "uint64", "float32", "float64", "string", "bool"]
    message = f"{location}: no type {named!r}{nearest(str(named), known)}"
    raise ExpressionTypeError(message)
