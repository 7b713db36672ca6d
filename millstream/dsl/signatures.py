"""What each function of an expression accepts, and the type that it gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import literals, promotion
from millstream.dsl.binding import (
    COMPARISONS,
    Scope,
    bind_boolean,
    bind_together,
    coerce,
    shown,
)
from millstream.dsl.expressions import Expression, option, render
from millstream.errors import ExpressionTypeError, OptionError
from millstream.operators.expression import Call, Constant, TypedExpression
from millstream.windows.duration import parse_duration_us

_ARITHMETIC = ("add", "subtract", "multiply", "divide", "floor_divide", "modulo")
_SYMBOLS = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "divide": "divide",
    "floor_divide": "divide",
    "modulo": "take the remainder of",
}
_TEXT_OPTIONS = ("pattern", "replacement")


def bind_call(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a function call typed against `schema`; called by `binding.bind`."""
    function = expression.function
    if function in _ARITHMETIC:
        return _arithmetic(expression, scope)
    if function in COMPARISONS:
        return _comparison(expression, scope)
    family = function.partition(".")[0]
    binder = _BINDERS.get(family)
    assert binder is not None, f"the surface made an unknown function {function}"
    return binder(expression, scope)


def _fail(expression: Expression, what: str, remedy: str) -> ExpressionTypeError:
    message = f"{expression.location}: {what}; {remedy}"
    return ExpressionTypeError(message)


def _operands(expression: Expression, scope: Scope) -> tuple[str, str]:
    left, right = (shown(each, scope.bind(each)) for each in expression.arguments)
    return left, right


def _comparison(expression: Expression, scope: Scope) -> TypedExpression:
    arguments = bind_together(expression.arguments, scope)
    if arguments is None or pat.is_nested(arguments[0].type):
        left, right = _operands(expression, scope)
        what = f"cannot compare {left} with {right}"
        raise _fail(expression, what, "cast one of them to the type of the other with .cast(…)")
    if pat.is_null(arguments[0].type):
        return Constant(None, pa.bool_())
    return Call(expression.function, tuple(arguments), pa.bool_())


def _arithmetic(expression: Expression, scope: Scope) -> TypedExpression:
    types = [scope.bind(each).type for each in expression.arguments]
    if any(promotion.is_temporal(promotion.plain(each)) for each in types):
        from millstream.dsl.time_arithmetic import bind_time_arithmetic

        return bind_time_arithmetic(expression, scope)
    arguments = bind_together(expression.arguments, scope)
    if arguments is not None:
        type_ = arguments[0].type
        if expression.function == "add" and promotion.is_text(type_):
            return Call("str.concat", tuple(arguments), type_)
        if promotion.is_number(type_) or pat.is_null(type_):
            divides = expression.function == "divide" or pat.is_null(type_)
            type_ = pa.float64() if divides else promotion.arithmetic_type(type_)
            return Call(
                expression.function, tuple(coerce(each, type_) for each in arguments), type_
            )
    left, right = _operands(expression, scope)
    what = f"cannot {_SYMBOLS[expression.function]} {left} and {right}"
    raise _fail(expression, what, _arithmetic_remedy(types))


def _arithmetic_remedy(types: list[pa.DataType]) -> str:
    if any(promotion.is_text(promotion.plain(each)) for each in types):
        return 'cast the text to a number with .cast("float"), or the number with .cast("string")'
    if any(pat.is_decimal(each) for each in types):
        return (
            'decimals are compared and stored exactly but not computed with; .cast("float") first'
        )
    if any(pat.is_boolean(each) for each in types):
        return 'cast the condition with .cast("int"), or combine conditions with & and |'
    return "cast both to one number type with .cast(…)"


def _logical(expression: Expression, scope: Scope) -> TypedExpression:
    symbol = {"and": "&", "or": "|", "not": "~"}[expression.function]
    arguments = []
    for each in expression.arguments:
        bound = scope.bind(each)
        if not pat.is_boolean(bound.type) and not pat.is_null(bound.type):
            what = f"{symbol} needs conditions (bool); got {shown(each, bound)}"
            remedy = (
                f"{symbol} binds tighter than a comparison, so put each one in parentheses: "
                "(col('a') > 1) & (col('b') < 2)"
            )
            raise _fail(expression, what, remedy)
        arguments.append(bind_boolean(each, scope, symbol))
    return Call(expression.function, tuple(arguments), pa.bool_())


def _sign(expression: Expression, scope: Scope) -> TypedExpression:
    argument = scope.bind(expression.arguments[0])
    if not promotion.is_number(argument.type):
        operand = shown(expression.arguments[0], argument)
        what = f"{expression.function} needs a number; got {operand}"
        raise _fail(expression, what, 'cast it with .cast("int") or .cast("float")')
    type_ = promotion.arithmetic_type(argument.type)
    if type_.equals(pa.uint64()) and expression.function == "negate":
        what = f"cannot negate {shown(expression.arguments[0], argument)}: it has no sign"
        raise _fail(expression, what, 'cast it with .cast("int64")')
    return Call(expression.function, (coerce(argument, type_),), type_)


def _is_null(expression: Expression, scope: Scope) -> TypedExpression:
    return Call("is_null", (scope.bind(expression.arguments[0]),), pa.bool_())


def _coalesce(expression: Expression, scope: Scope) -> TypedExpression:
    arguments = bind_together(expression.arguments, scope)
    if arguments is None:
        listed = ", ".join(shown(each, scope.bind(each)) for each in expression.arguments)
        what = f"the values have no common type: {listed}"
        raise _fail(expression, what, "cast them to one type with .cast(…)")
    return Call("coalesce", tuple(arguments), arguments[0].type)


def _case(expression: Expression, scope: Scope) -> TypedExpression:
    pairs, otherwise = expression.arguments[:-1], expression.arguments[-1]
    conditions = [bind_boolean(each, scope, "when(…)") for each in pairs[0::2]]
    values = [*pairs[1::2], otherwise]
    bound = bind_together(values, scope)
    if bound is None:
        listed = ", ".join(shown(each, scope.bind(each)) for each in values)
        what = f"the branches have no common type: {listed}"
        raise _fail(expression, what, "cast them to one type with .cast(…)")
    arguments: list[TypedExpression] = []
    for condition, value in zip(conditions, bound[:-1], strict=True):
        arguments += [condition, value]
    return Call("case", (*arguments, bound[-1]), bound[0].type)


def _is_in(expression: Expression, scope: Scope) -> TypedExpression:
    argument = scope.bind(expression.arguments[0])
    values = option(expression, "values")
    assert isinstance(values, tuple)
    type_: pa.DataType | None = promotion.plain(argument.type)
    for value in values:
        if value is None:
            what = "is_in does not take None, which equals nothing"
            raise _fail(expression, what, "add | x.is_null() where nulls are meant")
        met = None if isinstance(value, Expression) else literals.meeting_type(value, type_)
        if met is None:
            what = f"{value!r} cannot be among {shown(expression.arguments[0], argument)}"
            raise _fail(expression, what, "give constants of the column's type, or cast it")
        type_ = met
    held = tuple(literals.constant(each, type_).value for each in values)
    return Call("is_in", (coerce(argument, type_),), pa.bool_(), (("values", held),))


def _text(expression: Expression, scope: Scope) -> TypedExpression:
    function, operand = expression.function, expression.arguments[0]
    argument = scope.bind(operand)
    type_ = promotion.plain(argument.type)
    if not promotion.is_text(type_):
        what = f".{function} needs text; got {shown(operand, argument)}"
        raise _fail(expression, what, 'cast it with .cast("string")')
    for name, value in expression.options:
        if name in _TEXT_OPTIONS and not isinstance(value, str):
            what = f".{function} takes its {name} as a constant text; got {value!r}"
            raise _fail(expression, what, "give it as a Python str")
    if function == "str.slice":
        _check_slice(expression)
    results = {"str.length": pa.int64()}
    results |= dict.fromkeys(("str.contains", "str.starts_with", "str.ends_with"), pa.bool_())
    result = results.get(function, type_)
    return Call(function, (coerce(argument, type_),), result, expression.options)


def _check_slice(expression: Expression) -> None:
    for name, value in expression.options:
        missing = name == "length" and value is None
        if not missing and (type(value) is not int or value < 0):
            what = f".str.slice takes its {name} as an integer from 0 on; got {value!r}"
            raise _fail(expression, what, "count characters from the beginning")


def _time(expression: Expression, scope: Scope) -> TypedExpression:
    function, operand = expression.function, expression.arguments[0]
    argument = scope.bind(operand)
    is_date = pat.is_date(argument.type)
    if not (pat.is_timestamp(argument.type) or is_date):
        what = f".{function} needs a timestamp or a date; got {shown(operand, argument)}"
        raise _fail(expression, what, 'cast it with .cast("timestamp")')
    if function != "dt.truncate":
        return Call(function, (argument,), pa.int64())
    type_ = pa.timestamp("us") if is_date else argument.type
    every_us = duration_us(option(expression, "every"), expression)
    if every_us <= 0:
        what = f".dt.truncate needs a positive duration; got {option(expression, 'every')!r}"
        raise _fail(expression, what, 'give one such as "1h"')
    return Call(function, (coerce(argument, type_),), type_, (("every_us", every_us),))


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
        raise _fail(expression, what, 'write e.g. "90s", "1h" or a timedelta') from error


def is_moment(value: object) -> bool:
    """Return whether a constant is a point in time: a date, a datetime, or text of one."""
    if isinstance(value, str):
        return literals.meeting_type(value, pa.timestamp("us", "UTC")) is not None
    return isinstance(value, date)


_BINDERS: dict[str, Callable[[Expression, pa.Schema], TypedExpression]] = {
    "and": _logical,
    "or": _logical,
    "not": _logical,
    "negate": _sign,
    "abs": _sign,
    "is_null": _is_null,
    "coalesce": _coalesce,
    "case": _case,
    "is_in": _is_in,
    "str": _text,
    "dt": _time,
}
