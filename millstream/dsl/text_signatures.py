"""What each function of `.str` accepts, and the type that it gives."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from millstream.dsl import promotion
from millstream.dsl.binding import Scope, coerce, failure, named_type, shown
from millstream.dsl.expressions import Expression, option
from millstream.operators.expression import Call, TypedExpression
from millstream.operators.functions.json_texts import path_steps
from millstream.operators.functions.texts import with_named_groups

_REGEX = ("str.contains", "str.count", "str.replace", "str.extract", "str.split")
_BOOLEAN = ("str.contains", "str.starts_with", "str.ends_with")
_NUMBER = ("str.length", "str.len_bytes", "str.count")


def bind_text(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a function of text, typed.

    Raises
    ------
    ExpressionTypeError
        When the operand is no text, or an option cannot be used.
    """
    function, operand = expression.function, expression.arguments[0]
    argument = scope.bind(operand)
    type_ = promotion.plain(argument.type)
    if not promotion.is_text(type_):
        what = f".{function} needs text; got {shown(operand, argument)}"
        raise failure(expression, what, 'cast it with .cast("string")')
    argument = coerce(argument, type_)
    for name, value in expression.options:
        check = _CHECKS.get(name)
        if check is not None:
            check(expression, name, value)
    if function in _REGEX:
        _check_regex(expression)
    special = _SPECIAL.get(function)
    if special is not None:
        return special(expression, argument)
    result = type_
    if function in _BOOLEAN:
        result = pa.bool_()
    elif function in _NUMBER:
        result = pa.int64()
    elif function in {"str.split", "str.extract_all"}:
        result = pa.list_(type_)
    return Call(function, (argument,), result, expression.options)


def _check_text(expression: Expression, name: str, value: object) -> None:
    if not isinstance(value, str):
        what = f".{expression.function} takes its {name} as a constant text; got {value!r}"
        raise failure(expression, what, "give it as a Python str")


def _check_optional_text(expression: Expression, name: str, value: object) -> None:
    if value is not None:
        _check_text(expression, name, value)


def _check_character(expression: Expression, name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) != 1:
        what = f".{expression.function} pads with one character; got {value!r}"
        raise failure(expression, what, 'give one such as "0"')


def _check_position(expression: Expression, name: str, value: object) -> None:
    if type(value) is not int:
        what = f".{expression.function} takes its {name} as an integer; got {value!r}"
        raise failure(expression, what, "give a Python int; a column cannot say it")


def _check_count(expression: Expression, name: str, value: object) -> None:
    if value is not None and (type(value) is not int or value < 0):
        what = f".{expression.function} takes its {name} as an integer from 0 on; got {value!r}"
        raise failure(expression, what, "leave it out for all")


_CHECKS: dict[str, Callable[[Expression, str, object], None]] = {
    "pattern": _check_text,
    "replacement": _check_text,
    "path": _check_text,
    "characters": _check_optional_text,
    "format": _check_optional_text,
    "padding": _check_character,
    "start": _check_position,
    "group": _check_count,
    "length": _check_count,
    "width": _check_count,
    "count": _check_count,
}


def _check_regex(expression: Expression) -> None:
    options = dict(expression.options)
    if options.get("literal"):
        return
    pattern = str(options["pattern"])
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        what = f".{expression.function}: {pattern!r} is no regular expression ({error})"
        raise failure(expression, what, "correct it, or give literal=True") from error
    group = options.get("group")
    if isinstance(group, int) and group > with_named_groups(pattern)[1]:
        what = f".{expression.function}: {pattern!r} has no group {group}"
        raise failure(expression, what, "put what is wanted in parentheses, or take group 0")


def _integer(expression: Expression, argument: TypedExpression) -> TypedExpression:
    base, strict = option(expression, "base"), option(expression, "strict")
    if type(base) is not int or not 2 <= base <= 36:
        what = f".str.to_integer takes a base from 2 to 36; got {base!r}"
        raise failure(expression, what, "leave it out for 10")
    if base == 10:
        return Call("cast", (argument,), pa.int64(), () if strict else (("strict", False),))
    return Call("str.to_integer", (argument,), pa.int64(), expression.options)


def _moment(expression: Expression, argument: TypedExpression) -> TypedExpression:
    options = dict(expression.options)
    type_ = pa.date32()
    if expression.function == "str.to_datetime":
        unit, zone = options["unit"], options["zone"]
        type_ = named_type(f"timestamp[{unit}]", expression.location)
        if zone is not None:
            type_ = zoned(expression, type_.unit, zone)
    given = (("format", options["format"]), ("strict", options["strict"]))
    return Call("str.strptime", (argument,), type_, given)


def zoned(expression: Expression, unit: str, zone: object) -> pa.DataType:
    """Return the timestamp type of a zone.

    Raises
    ------
    ExpressionTypeError
        When there is no such zone.
    """
    try:
        type_ = pa.timestamp(unit, zone)
        pc.local_timestamp(pa.array([0], type_))
    except (pa.ArrowInvalid, TypeError) as error:
        what = f"{zone!r} is no time zone"
        raise failure(expression, what, 'name one such as "Europe/Berlin" or "UTC"') from error
    return type_


def _json(expression: Expression, argument: TypedExpression) -> TypedExpression:
    options = dict(expression.options)
    steps = path_steps(str(options["path"]))
    if steps is None:
        what = f".str.json: {options['path']!r} is no path"
        raise failure(expression, what, "write names and indices, e.g. $.user.ids[0]")
    type_ = named_type(options["type"], expression.location)
    given = (("steps", steps), ("strict", options["strict"]))
    return Call("str.json", (argument,), type_, given)


_SPECIAL: dict[str, Callable[[Expression, TypedExpression], TypedExpression]] = {
    "str.to_integer": _integer,
    "str.to_datetime": _moment,
    "str.to_date": _moment,
    "str.json": _json,
}
