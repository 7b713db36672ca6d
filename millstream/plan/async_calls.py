"""Async functions in expressions: where they may stand, and the nodes that call them.

select(x = answer(a + 1) * 2)  ──▶  project(… a1 = a + 1) ─ lookup(a2 = answer(a1)) ─ x = a2 * 2
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from millstream.operators.expression import Call, Column, TypedExpression
from millstream.operators.lookup import LookupCall
from millstream.operators.user_function import AsyncFunction
from millstream.plan.changes import require_facts
from millstream.plan.columns import identity_outputs
from millstream.plan.sources import PlanNode

if TYPE_CHECKING:
    from millstream.plan.nodes import Node, Sink


@dataclass(frozen=True, eq=False)
class Lookup(PlanNode):
    """The rows with columns of answers; made by rewrites."""

    input: Node
    calls: tuple[LookupCall, ...]

    def __post_init__(self) -> None:
        source = self.input
        added = [pa.field(each.name, each.type) for each in self.calls]
        self._settle(pa.schema([*source.schema, *added]), source.keys, source.time_column)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows."""
        return (self.input,)


def function_of(expression: TypedExpression) -> AsyncFunction | None:
    """Return the async function that an expression is a call of, if it is one."""
    if not isinstance(expression, Call) or expression.function != "udf":
        return None
    function = dict(expression.options)["function"]
    return function if isinstance(function, AsyncFunction) else None


def check_async_calls(
    node: PlanNode, expressions: Iterable[TypedExpression], location: str
) -> None:
    """Check that async functions are called for facts alone; raises `PlanError`."""
    for each in expressions:
        for call in _innermost(each):
            function = function_of(call)
            assert function is not None
            what = f"{function.name}, which may answer otherwise when a row is taken back,"
            require_facts(node, location, what)


def async_calls_to_lookups(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Return the plan with a `Lookup` before each filter and projection that calls async functions.

    Its arguments become columns before. Calls of the results of calls follow in further ones.
    """
    from millstream.plan.nodes import Filter, Project
    from millstream.plan.walk import in_order, with_inputs

    rebuilt: dict[int, Node] = {}
    for node in in_order(sinks):
        inputs = [rebuilt[id(each)] for each in node.inputs]
        made = with_inputs(node, inputs)
        if isinstance(node, Project):
            source, parts = _answered(inputs[0], [each for _, each in node.outputs], node.location)
            if source is not inputs[0]:
                names = [name for name, _ in node.outputs]
                made = replace(node, input=source, outputs=tuple(zip(names, parts, strict=True)))
        elif isinstance(node, Filter):
            source, (predicate,) = _answered(inputs[0], [node.predicate], node.location)
            if source is not inputs[0]:
                kept = replace(node, input=source, predicate=predicate)
                made = Project(kept, identity_outputs(node.schema), location=node.location)
        rebuilt[id(node)] = made
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def _answered(
    source: Node, expressions: list[TypedExpression], location: str
) -> tuple[Node, list[TypedExpression]]:
    """Return rows with the answers that expressions need, and the expressions over those."""
    from millstream.plan.nodes import Project

    while calls := list(dict.fromkeys(each for part in expressions for each in _innermost(part))):
        names = _new_names(source.schema.names)
        arguments: dict[TypedExpression, str] = {}
        made: dict[TypedExpression, TypedExpression] = {}
        lookups = []
        for call in calls:
            for each in call.arguments:
                if not isinstance(each, Column):
                    arguments.setdefault(each, next(names))
            name, function = next(names), function_of(call)
            assert function is not None
            columns = tuple(
                each.name if isinstance(each, Column) else arguments[each]
                for each in call.arguments
            )
            lookups.append(LookupCall(name, call.type, function, columns))
            made[call] = Column(name, call.type)
        if arguments:
            computed = tuple((name, each) for each, name in arguments.items())
            outputs = (*identity_outputs(source.schema), *computed)
            source = Project(source, outputs, location=location)
        source = Lookup(source, tuple(lookups), location=location)
        expressions = [_replaced(each, made) for each in expressions]
    return source, expressions


def _new_names(taken: Sequence[str]) -> Iterator[str]:
    number = 0
    while True:
        name = f"__async_{number}"
        number += 1
        if name not in taken:
            yield name


def _innermost(expression: TypedExpression) -> Iterator[Call]:
    """Give the calls of async functions whose arguments have none."""
    if not isinstance(expression, Call):
        return
    found = [each for argument in expression.arguments for each in _innermost(argument)]
    if not found and function_of(expression) is not None:
        yield expression
    yield from found


def _replaced(
    expression: TypedExpression, by: dict[TypedExpression, TypedExpression]
) -> TypedExpression:
    if not isinstance(expression, Call):
        return expression
    if expression in by:
        return by[expression]
    arguments = tuple(_replaced(each, by) for each in expression.arguments)
    return replace(expression, arguments=arguments)
