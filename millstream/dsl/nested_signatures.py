"""What each function of `.list`, `.struct` and `.map` accepts, and the type that it gives."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import literals, promotion
from millstream.dsl.binding import Scope, coerce, failure, shown
from millstream.dsl.expressions import Expression, option
from millstream.errors import nearest
from millstream.operators.expression import Call, TypedExpression


def bind_list(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a function of lists, typed.

    Raises
    ------
    ExpressionTypeError
        When the operand is no list, or its items are not such as the function takes.
    """
    function, operand = expression.function, expression.arguments[0]
    argument = scope.bind(operand)
    type_ = argument.type
    if not _is_list(type_):
        what = f".{function} needs a list; got {shown(operand, argument)}"
        raise failure(expression, what, "a text becomes one with .str.split(…)")
    item = type_.value_type
    plain = pa.list_(item)
    argument = coerce(argument, plain)
    match function:
        case "list.len":
            return Call(function, (argument,), pa.int64())
        case "list.get":
            index = coerce(scope.bind(expression.arguments[1]), pa.int64())
            return Call(function, (argument, index), item)
        case "list.contains":
            return _contains(expression, argument, scope)
        case "list.sum" | "list.mean" if not promotion.is_number(item):
            what = f".{function} needs a list of numbers; got {shown(operand, argument)}"
            raise failure(expression, what, "cast it, e.g. with .cast(pa.list_(pa.float64()))")
        case "list.sum":
            is_float = pat.is_floating(item)
            return Call(function, (argument,), pa.float64() if is_float else pa.int64())
        case "list.mean":
            return Call(function, (argument,), pa.float64())
        case "list.join" if not promotion.is_text(item):
            what = f".list.join needs a list of texts; got {shown(operand, argument)}"
            raise failure(expression, what, "cast it with .cast(pa.list_(pa.string()))")
        case "list.join":
            return Call(function, (argument,), item, expression.options)
        case "list.min" | "list.max" | "list.sort" | "list.unique" if pat.is_nested(item):
            what = f".{function} cannot compare items of {shown(operand, argument)}"
            raise failure(expression, what, "take a part of each first")
        case "list.min" | "list.max":
            return Call(function, (argument,), item)
        case "list.slice":
            _check_slice(expression)
    return Call(function, (argument,), plain, expression.options)


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        pat.is_list(type_)
        or pat.is_large_list(type_)
        or pat.is_fixed_size_list(type_)
        or pat.is_list_view(type_)
        or pat.is_large_list_view(type_)
    )


def _check_slice(expression: Expression) -> None:
    for name, value in expression.options:
        least = 0 if name == "length" else -(2**31)
        missing = name == "length" and value is None
        if not missing and (type(value) is not int or value < least):
            what = f".list.slice takes its {name} as an integer; got {value!r}"
            raise failure(expression, what, "a length counts items from 0 on")


def _contains(expression: Expression, argument: TypedExpression, scope: Scope) -> TypedExpression:
    item, wanted = argument.type.value_type, expression.arguments[1]
    if wanted.function == "literal":
        value = option(wanted, "value")
        met = literals.meeting_type(value, item)
        if met is not None:
            constant = literals.constant(value, met)
            return Call("list.contains", (coerce(argument, pa.list_(met)), constant), pa.bool_())
    else:
        bound = scope.bind(wanted)
        met = promotion.common_type(item, bound.type)
        if met is not None and not pat.is_nested(met):
            arguments = (coerce(argument, pa.list_(met)), coerce(bound, met))
            return Call("list.contains", arguments, pa.bool_())
    what = f"no item of {shown(expression.arguments[0], argument)} can be {wanted!r}"
    raise failure(expression, what, "give a value of the items' type")


def bind_struct(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a field of a struct, or a struct made of values, typed.

    Raises
    ------
    ExpressionTypeError
        When the operand is no struct or has no such field; lists the nearest names.
    """
    if expression.function == "struct.of":
        parts = tuple(scope.bind(each) for each in expression.arguments)
        names = [str(name) for name, _ in expression.options]
        fields = [pa.field(name, each.type) for name, each in zip(names, parts, strict=True)]
        return Call("struct.of", parts, pa.struct(fields))
    operand = expression.arguments[0]
    argument = scope.bind(operand)
    if not pat.is_struct(argument.type):
        what = f".{expression.function} needs a struct; got {shown(operand, argument)}"
        raise failure(expression, what, "name a column that has fields")
    name = option(expression, "name")
    names = [each.name for each in argument.type]
    if name not in names:
        what = f"{shown(operand, argument)} has no field {name!r}{nearest(str(name), names)}"
        raise failure(expression, what, "name one of its fields")
    type_ = argument.type.field(name).type
    return Call("struct.field", (argument,), type_, expression.options)


def bind_map(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a function of maps, typed.

    Raises
    ------
    ExpressionTypeError
        When the operand is no map, or a key is not of its type.
    """
    operand = expression.arguments[0]
    argument = scope.bind(operand)
    type_ = argument.type
    if not pat.is_map(type_):
        what = f".{expression.function} needs a map; got {shown(operand, argument)}"
        raise failure(expression, what, "a struct's fields are had with .struct.field(…)")
    match expression.function:
        case "map.len":
            return Call("map.len", (argument,), pa.int64())
        case "map.keys":
            return Call("map.keys", (argument,), pa.list_(type_.key_type))
        case "map.values":
            return Call("map.values", (argument,), pa.list_(type_.item_type))
    key = option(expression, "key")
    met = literals.meeting_type(key, type_.key_type)
    if key is None or met is None or not met.equals(type_.key_type):
        what = f"{key!r} is no key of {shown(operand, argument)}"
        raise failure(expression, what, f"give a constant of type {type_.key_type}")
    held = literals.constant(key, met).value
    return Call("map.get", (argument,), type_.item_type, (("key", held),))
