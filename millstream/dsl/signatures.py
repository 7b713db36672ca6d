"""What each function of an expression accepts, and the type that it gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import literals, promotion
from millstream.dsl.binding import (
    COMPARISONS,
    Scope,
    bind_boolean,
    bind_together,
    coerce,
    failure,
    shown,
)
from millstream.dsl.expressions import Expression, option
from millstream.dsl.nested_signatures import bind_list, bind_map, bind_struct
from millstream.dsl.text_signatures import bind_text
from millstream.dsl.time_signatures import bind_time
from millstream.log.key_hash import is_key_type
from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.operator import POSITION_COLUMN
from millstream.operators.position import POSITION_TYPE

_ARITHMETIC = ("add", "subtract", "multiply", "divide", "floor_divide", "modulo")
_SYMBOLS = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "divide": "divide",
    "floor_divide": "divide",
    "modulo": "take the remainder of",
}


def bind_call(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a function call typed against `schema`; called by `binding.bind`."""
    function = expression.function
    if function in _ARITHMETIC:
        return _arithmetic(expression, scope)
    if function in COMPARISONS:
        return _comparison(expression, scope)
    if function == "random":
        place = Column(POSITION_COLUMN, POSITION_TYPE)
        return Call("random", (place,), pa.float64(), expression.options)
    if function == "udf":
        from millstream.dsl.user_functions import bind_user_function

        return bind_user_function(expression, scope)
    family = function.partition(".")[0]
    binder = _BINDERS.get(family)
    assert binder is not None, f"the surface made an unknown function {function}"
    return binder(expression, scope)


def _operands(expression: Expression, scope: Scope) -> tuple[str, str]:
    left, right = (shown(each, scope.bind(each)) for each in expression.arguments)
    return left, right


def _comparison(expression: Expression, scope: Scope) -> TypedExpression:
    arguments = bind_together(expression.arguments, scope)
    if arguments is None or pat.is_nested(arguments[0].type):
        left, right = _operands(expression, scope)
        what = f"cannot compare {left} with {right}"
        raise failure(expression, what, "cast one of them to the type of the other with .cast(…)")
    if pat.is_null(arguments[0].type):
        return Constant(None, pa.bool_())
    return Call(expression.function, tuple(arguments), pa.bool_())


def _arithmetic(expression: Expression, scope: Scope) -> TypedExpression:
    types = [scope.bind(each).type for each in expression.arguments]
    if any(promotion.is_temporal(promotion.plain(each)) for each in types):
        from millstream.dsl.time_arithmetic import bind_time_arithmetic

        return bind_time_arithmetic(expression, scope)
    if any(pat.is_decimal(promotion.plain(each)) for each in types):
        from millstream.dsl.decimal_types import bind_decimal_arithmetic

        exact = bind_decimal_arithmetic(expression, scope)
        if exact is not None:
            return exact
    arguments = bind_together(expression.arguments, scope)
    if arguments is not None:
        type_ = arguments[0].type
        if expression.function == "add" and (promotion.is_text(type_) or promotion.is_bytes(type_)):
            return Call("str.concat", tuple(arguments), type_)
        if promotion.is_number(type_) or pat.is_null(type_):
            divides = expression.function == "divide" or pat.is_null(type_)
            type_ = pa.float64() if divides else promotion.arithmetic_type(type_)
            return Call(
                expression.function, tuple(coerce(each, type_) for each in arguments), type_
            )
    left, right = _operands(expression, scope)
    what = f"cannot {_SYMBOLS[expression.function]} {left} and {right}"
    raise failure(expression, what, _arithmetic_remedy(types))


def _arithmetic_remedy(types: list[pa.DataType]) -> str:
    if any(promotion.is_text(promotion.plain(each)) for each in types):
        return 'cast the text to a number with .cast("float"), or the number with .cast("string")'
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
            raise failure(expression, what, remedy)
        arguments.append(bind_boolean(each, scope, symbol))
    return Call(expression.function, tuple(arguments), pa.bool_())


def _sign(expression: Expression, scope: Scope) -> TypedExpression:
    argument = scope.bind(expression.arguments[0])
    type_ = promotion.plain(argument.type)
    if pat.is_decimal(type_) or pat.is_duration(type_):
        return Call(expression.function, (coerce(argument, type_),), type_)
    if not promotion.is_number(type_):
        operand = shown(expression.arguments[0], argument)
        what = f"{expression.function} needs a number; got {operand}"
        raise failure(expression, what, 'cast it with .cast("int") or .cast("float")')
    type_ = promotion.arithmetic_type(type_)
    if type_.equals(pa.uint64()) and expression.function == "negate":
        what = f"cannot negate {shown(expression.arguments[0], argument)}: it has no sign"
        raise failure(expression, what, 'cast it with .cast("int64")')
    return Call(expression.function, (coerce(argument, type_),), type_)


def _is_null(expression: Expression, scope: Scope) -> TypedExpression:
    return Call("is_null", (scope.bind(expression.arguments[0]),), pa.bool_())


def _coalesce(expression: Expression, scope: Scope) -> TypedExpression:
    arguments = bind_together(expression.arguments, scope)
    if arguments is None:
        listed = ", ".join(shown(each, scope.bind(each)) for each in expression.arguments)
        what = f"the values have no common type: {listed}"
        raise failure(expression, what, "cast them to one type with .cast(…)")
    return Call("coalesce", tuple(arguments), arguments[0].type)


def _case(expression: Expression, scope: Scope) -> TypedExpression:
    pairs, otherwise = expression.arguments[:-1], expression.arguments[-1]
    conditions = [bind_boolean(each, scope, "when(…)") for each in pairs[0::2]]
    values = [*pairs[1::2], otherwise]
    bound = bind_together(values, scope)
    if bound is None:
        listed = ", ".join(shown(each, scope.bind(each)) for each in values)
        what = f"the branches have no common type: {listed}"
        raise failure(expression, what, "cast them to one type with .cast(…)")
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
            raise failure(expression, what, "add | x.is_null() where nulls are meant")
        met = None if isinstance(value, Expression) else literals.meeting_type(value, type_)
        if met is None:
            what = f"{value!r} cannot be among {shown(expression.arguments[0], argument)}"
            raise failure(expression, what, "give constants of the column's type, or cast it")
        type_ = met
    held = tuple(literals.constant(each, type_).value for each in values)
    return Call("is_in", (coerce(argument, type_),), pa.bool_(), (("values", held),))


def is_moment(value: object) -> bool:
    """Return whether a constant is a point in time: a date, a datetime, or text of one."""
    if isinstance(value, str):
        return literals.meeting_type(value, pa.timestamp("us", "UTC")) is not None
    return isinstance(value, date)


def _float_test(expression: Expression, scope: Scope) -> TypedExpression:
    argument = _number(expression, scope)
    if pat.is_floating(argument.type):
        return Call(expression.function, (argument,), pa.bool_())
    # Other numbers are always finite; null stays null.
    own = Call("equal", (argument, argument), pa.bool_())
    return own if expression.function == "is_finite" else Call("not", (own,), pa.bool_())


def _rounded(expression: Expression, scope: Scope) -> TypedExpression:
    argument = _number(expression, scope)
    places = dict(expression.options).get("places", 0)
    if type(places) is not int or places < 0:
        what = f"round takes a number of places from 0 on; got {places!r}"
        raise failure(expression, what, "give a Python int")
    if pat.is_integer(argument.type):
        return argument
    return Call(expression.function, (argument,), argument.type, expression.options)


def _float_function(expression: Expression, scope: Scope) -> TypedExpression:
    argument = _number(expression, scope)
    return Call(expression.function, (coerce(argument, pa.float64()),), pa.float64())


def _signum(expression: Expression, scope: Scope) -> TypedExpression:
    argument = _number(expression, scope)
    return Call("sign", (argument,), argument.type)


def _power(expression: Expression, scope: Scope) -> TypedExpression:
    arguments = tuple(
        coerce(_number_of(expression, each, scope), pa.float64()) for each in expression.arguments
    )
    return Call("power", arguments, pa.float64())


def _number(expression: Expression, scope: Scope) -> TypedExpression:
    return _number_of(expression, expression.arguments[0], scope)


def _number_of(expression: Expression, operand: Expression, scope: Scope) -> TypedExpression:
    bound = scope.bind(operand)
    type_ = promotion.plain(bound.type)
    if pat.is_decimal(type_):
        return coerce(bound, type_)
    if not promotion.is_number(type_):
        what = f"{expression.function} needs a number; got {shown(operand, bound)}"
        raise failure(expression, what, 'cast it with .cast("int") or .cast("float")')
    return coerce(bound, promotion.arithmetic_type(type_))


def _extreme(expression: Expression, scope: Scope) -> TypedExpression:
    arguments = bind_together(expression.arguments, scope)
    if arguments is None or pat.is_nested(arguments[0].type):
        listed = ", ".join(shown(each, scope.bind(each)) for each in expression.arguments)
        what = f"the values cannot be compared: {listed}"
        raise failure(expression, what, "cast them to one type with .cast(…)")
    return Call(expression.function, tuple(arguments), arguments[0].type)


def _hash(expression: Expression, scope: Scope) -> TypedExpression:
    arguments = tuple(scope.bind(each) for each in expression.arguments)
    for operand, each in zip(expression.arguments, arguments, strict=True):
        if not is_key_type(each.type):
            what = f"{shown(operand, each)} has no hash"
            raise failure(expression, what, "hash a part of it, or cast it to text")
    return Call("hash", arguments, pa.uint64())


_BINDERS: dict[str, Callable[[Expression, Scope], TypedExpression]] = {
    "and": _logical,
    "or": _logical,
    "not": _logical,
    "negate": _sign,
    "abs": _sign,
    "is_null": _is_null,
    "is_nan": _float_test,
    "is_finite": _float_test,
    "coalesce": _coalesce,
    "least": _extreme,
    "greatest": _extreme,
    "case": _case,
    "is_in": _is_in,
    "floor": _rounded,
    "ceil": _rounded,
    "round": _rounded,
    "sqrt": _float_function,
    "exp": _float_function,
    "log": _float_function,
    "power": _power,
    "sign": _signum,
    "hash": _hash,
    "str": bind_text,
    "dt": bind_time,
    "list": bind_list,
    "struct": bind_struct,
    "map": bind_map,
}
