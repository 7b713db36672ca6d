"""What a filter says of a source's columns goes to the source, which passes what it refuses.

The filter itself stays where it is: the source leaves out only frames of which the log's
statistics say that no row fulfils it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import ExpressionTypeError
from millstream.log.condition import bind
from millstream.log.predicate import (
    And,
    Comparison,
    IsIn,
    IsNull,
    Not,
    Operator,
    Or,
    Predicate,
    Unknown,
)
from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.failing import may_fail
from millstream.plan.nodes import Fused, Node, Sink, StreamSource
from millstream.plan.walk import in_order, with_inputs

_OPERATORS: dict[str, tuple[Operator, Operator]] = {
    "equal": ("==", "=="),
    "not_equal": ("!=", "!="),
    "less": ("<", ">"),
    "less_equal": ("<=", ">="),
    "greater": (">", "<"),
    "greater_equal": (">=", "<="),
}
"""With the column on the left, and on the right."""


def filters_to_sources(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Return the plan with each source told what its rows must fulfil, where all filter them.

    Takes a plan of fused chains.
    """
    order = in_order(sinks)
    readers: dict[int, list[Node]] = {}
    for node in order:
        for each in node.inputs:
            readers.setdefault(id(each), []).append(node)
    rebuilt: dict[int, Node] = {}
    for node in order:
        inputs = [rebuilt[id(each)] for each in node.inputs]
        made = with_inputs(node, inputs)
        if isinstance(node, StreamSource):
            made = replace(node, where=_wanted(node, readers.get(id(node), [])))
        rebuilt[id(node)] = made
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def filter_to_predicate(filter_: TypedExpression, source: StreamSource) -> Predicate | None:
    """Return what the log can tell from statistics of a filter on the rows of `source`.

    `None` where that is nothing, or where the filter may fail on a row: a job must not succeed
    or fail by where its rows lie in files.
    """
    if may_fail(filter_) or _has_other_cast(filter_):
        return None
    found = _predicate(filter_, source)
    return None if isinstance(found, Unknown) else found


def _wanted(source: StreamSource, readers: Sequence[Node]) -> Predicate | None:
    parts = []
    for each in readers:
        if not isinstance(each, Fused) or each.predicate is None:
            return None
        part = filter_to_predicate(each.predicate, source)
        if part is None:
            return None
        parts.append(part)
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def _predicate(expression: TypedExpression, source: StreamSource) -> Predicate:
    match expression:
        case Column() if pat.is_boolean(expression.type):
            return _bound(Comparison(expression.name, "==", pa.scalar(True)), source)
        case Call(function="and" | "or" as function, arguments=arguments):
            parts = tuple(_predicate(each, source) for each in arguments)
            joined: Predicate = And(parts) if function == "and" else Or(parts)
            # One part that is known makes `and` known, one that is not makes `or` unknown.
            unknown = [isinstance(each, Unknown) for each in parts]
            return Unknown() if (all if function == "and" else any)(unknown) else joined
        case Call(function="not", arguments=(argument,)):
            part = _predicate(argument, source)
            return part if isinstance(part, Unknown) else Not(part)
        case Call(function="is_null", arguments=(Column(name=name),)):
            return Unknown() if name == source.processing_time else IsNull(name)
        case Call(function=function, arguments=(one, other)) if function in _OPERATORS:
            usual, mirrored = _OPERATORS[function]
            if isinstance(other, Constant):
                return _comparison(one, usual, other, source)
            if isinstance(one, Constant):
                return _comparison(other, mirrored, one, source)
        case Call(function="is_in", arguments=(Column(name=name, type=type_),), options=options):
            values = cast("Sequence[object]", dict(options)["values"])
            # To a job's `is_in` NaN is in a set with NaN, and −0.0 not in one with 0.0.
            if values and None not in values and not pat.is_floating(type_):
                return _bound(IsIn(name, values), source)
    return Unknown()


def _comparison(
    side: TypedExpression, operator: Operator, constant: Constant, source: StreamSource
) -> Predicate:
    column = side
    if isinstance(side, Call) and side.function == "cast" and _keeps_order(side):
        column = side.arguments[0]
    scalar = pa.scalar(constant.value, constant.type)
    if not isinstance(column, Column) or not scalar.is_valid:
        return Unknown()
    return _bound(Comparison(column.name, operator, scalar), source)


def _bound(predicate: Comparison | IsIn, source: StreamSource) -> Predicate:
    if predicate.column == source.processing_time:
        return Unknown()  # no file knows when it will be read
    stored = source.topic_schema.field(predicate.column).type
    if not stored.equals(source.schema.field(predicate.column).type):
        return Unknown()  # the source makes event time of it
    try:
        return bind(predicate, source.topic_schema, source.topic).predicate
    except ExpressionTypeError:
        return Unknown()


def _keeps_order(cast_: Call) -> bool:
    """Return whether a cast is one that Arrow's comparisons do by themselves."""
    before, after = cast_.arguments[0].type, cast_.type
    if pat.is_floating(after):
        return pat.is_integer(before) or pat.is_floating(before)
    if not pat.is_integer(before) or not pat.is_integer(after):
        return False
    grows = before.bit_width < after.bit_width
    return before.equals(after) or (
        grows and (pat.is_unsigned_integer(before) or pat.is_signed_integer(after))
    )


def _has_other_cast(expression: TypedExpression) -> bool:
    if not isinstance(expression, Call):
        return False
    if expression.function == "cast" and not _keeps_order(expression):
        return True
    return any(_has_other_cast(each) for each in expression.arguments)
