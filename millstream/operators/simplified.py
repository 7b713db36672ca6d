"""Expressions as they are computed best: the same value by other functions of the table.

One item of a text that is cut needs no list of all of them, and a choice among texts is one of
numbers, which a kernel makes, and one copy of what was chosen.
"""

from __future__ import annotations

from typing import TypeAlias

import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.expression import Call, Constant, TypedExpression
from millstream.operators.failing import may_fail
from millstream.operators.functions.function import option
from millstream.operators.functions.texts import is_literal

_CHOICES_MAX = 127


def simplified(expression: TypedExpression) -> TypedExpression:
    """Return an expression with the same value in every row, and of the same type."""
    if not isinstance(expression, Call):
        return expression
    arguments = tuple(map(simplified, expression.arguments))
    call = Call(expression.function, arguments, expression.type, expression.options)
    match call.function:
        case "list.get":
            return _item(call)
        case "case":
            return _choice(call)
        case _:
            return call


Interned: TypeAlias = dict[tuple[TypedExpression, str], TypedExpression]


def interned(expression: TypedExpression, known: Interned) -> TypedExpression:
    """Return an expression in which equal parts are one object, as in all of `known`."""
    if isinstance(expression, Call):
        arguments = tuple(interned(each, known) for each in expression.arguments)
        expression = Call(expression.function, arguments, expression.type, expression.options)
    try:
        # 0.0 and -0.0 are equal.
        return known.setdefault((expression, repr(expression)), expression)
    except TypeError:
        return expression  # an option that cannot be compared


def _item(call: Call) -> Call:
    """Return an item of a text that is cut as that part of the text, where it is one."""
    cut, number = call.arguments
    if not (isinstance(cut, Call) and cut.function == "str.split"):
        return call
    if not (isinstance(number, Constant) and isinstance(number.value, int) and number.value >= 0):
        return call
    pattern = option(cut, "pattern")
    plain = option(cut, "literal") or is_literal(pattern)
    if not (plain and pattern and cut.arguments[0].type == call.type):
        return call
    options = (("pattern", pattern), ("number", number.value))
    return Call("str.split_part", cut.arguments, call.type, options)


def _choice(call: Call) -> Call:
    """Return a choice among texts as one among their numbers, and the text of that number."""
    is_text = pat.is_string(call.type) or pat.is_large_string(call.type)
    if not is_text or any(map(may_fail, call.arguments)):
        return call  # a branch that may fail is computed only for rows that take it
    conditions, branches = call.arguments[:-1:2], (*call.arguments[1::2], call.arguments[-1])
    if len(branches) > _CHOICES_MAX:
        return call
    numbers = [Constant(number, pa.int8()) for number in range(len(branches))]
    pairs = [part for pair in zip(conditions, numbers, strict=False) for part in pair]
    choice = Call("case", (*pairs, numbers[-1]), pa.int8())
    return Call("str.choose", (choice, *branches), call.type)
