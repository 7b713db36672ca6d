"""Chains of filters and projections → one `Fused` node each, by substitution.

    filter(a > 1) ─ project(c = a + b) ─ filter(c < 9)
        ──▶  fused(keep: a > 1 and a + b < 9; c = a + b)

A chain ends where a node's rows go to more than one place, since what is shared runs once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pyarrow as pa

from millstream.operators.expression import (
    Call,
    Column,
    TypedExpression,
    substitute,
)
from millstream.operators.failing import may_fail
from millstream.plan.columns import Outputs, identity_outputs
from millstream.plan.nodes import Filter, Fused, Node, Project, Sink
from millstream.plan.text import expression_text
from millstream.plan.walk import in_order, with_inputs

FUSED_SIZE_MAX = 400
"""How many parts the expressions of a fused node may have: substitution can multiply them."""

SHOWN_COLUMNS_MAX = 6
"""More columns than these that pass unchanged are only counted in a step's text."""


def chains_to_fused(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Return the plan with each chain of filters and projections as one `Fused` node."""
    order = in_order(sinks)
    consumers = Counter(id(each) for node in order for each in node.inputs)
    rebuilt: dict[int, Node] = {}
    shared: set[int] = set()
    for node in order:
        inputs = [rebuilt[id(each)] for each in node.inputs]
        if isinstance(node, Filter | Project | Fused):
            (source,) = inputs
            own = _fused(node, source)
            may_merge = isinstance(source, Fused) and id(source) not in shared
            merged = _merged(cast("Fused", source), own) if may_merge else None
            rebuilt[id(node)] = _without_identity(merged or own)
        else:
            rebuilt[id(node)] = with_inputs(node, inputs)
        if consumers[id(node)] > 1:
            shared.add(id(rebuilt[id(node)]))
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def _fused(node: Filter | Project | Fused, source: Node) -> Fused:
    match node:
        case Fused():
            return replace(node, input=source)
        case Filter(predicate=predicate):
            return Fused(
                source,
                predicate,
                identity_outputs(source.schema),
                (f"filter {expression_text(predicate)}",),
                location=node.location,
                name=node.name,
            )
        case Project(outputs=outputs):
            return Fused(
                source,
                None,
                outputs,
                (_projection_text(outputs),),
                location=node.location,
                name=node.name,
            )


def _merged(first: Fused, second: Fused) -> Fused | None:
    """Return both as one, or `None` where that could change a result or grow too far."""
    computed = dict(first.outputs)
    predicate = None if second.predicate is None else substitute(second.predicate, computed)
    outputs: Outputs = tuple(
        (name, substitute(expression, computed)) for name, expression in second.outputs
    )
    later = [expression for _, expression in second.outputs]
    if second.predicate is not None:
        later.append(second.predicate)
    # What can fail must not see rows that an earlier filter took away: the predicate is computed
    # for the whole batch, outputs for the rows that pass.
    if first.predicate is not None and predicate is not None and may_fail(predicate):
        return None
    if _substituted_size(later, computed) > FUSED_SIZE_MAX:
        return None
    if first.predicate is not None:
        predicate = (
            first.predicate
            if predicate is None
            else Call("and", (first.predicate, predicate), pa.bool_())
        )
    return Fused(
        first.input,
        predicate,
        outputs,
        (*first.steps, *second.steps),
        location=second.location,
        name=second.name or first.name,
    )


def _without_identity(node: Fused) -> Node:
    unchanged = identity_outputs(node.input.schema)
    if node.predicate is None and node.outputs == unchanged and node.name is None:
        return node.input
    return node


def _substituted_size(
    expressions: Sequence[TypedExpression], by: dict[str, TypedExpression]
) -> int:
    sizes = {name: _size(expression, {}) for name, expression in by.items()}
    return sum(_size(each, sizes) for each in expressions if isinstance(each, Call))


def _size(expression: TypedExpression, of_columns: dict[str, int]) -> int:
    match expression:
        case Column(name=name):
            return of_columns.get(name, 1)
        case Call(arguments=arguments):
            return 1 + sum(_size(each, of_columns) for each in arguments)
        case _:
            return 1


def _projection_text(outputs: Outputs) -> str:
    parts = [
        name
        if isinstance(expression, Column) and expression.name == name
        else f"{name} = {expression_text(expression)}"
        for name, expression in outputs
    ]
    computed = [each for each in parts if " = " in each]
    kept = [each for each in parts if " = " not in each]
    if len(kept) > SHOWN_COLUMNS_MAX:
        kept = [f"{len(kept)} columns as they are"]
    return f"select {', '.join([*kept, *computed])}"
