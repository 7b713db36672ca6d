"""Plan → plan: what the user wrote becomes what can be compiled, rows unchanged.

Each rewrite is `x_to_y(sinks) -> sinks`. `sinks_to_physical` applies them in the order in
which they lean on each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import pyarrow as pa

from millstream.operators.expression import Column, TypedExpression
from millstream.plan.async_calls import async_calls_to_lookups
from millstream.plan.columns import Outputs, identity_outputs
from millstream.plan.conversions import changes_to_consolidated, upserts_to_changelogs
from millstream.plan.fusion import chains_to_fused
from millstream.plan.nodes import (
    Dedup,
    GroupAggregate,
    KeyBy,
    LateRows,
    Node,
    Process,
    Project,
    Sink,
    StreamSource,
    TableSource,
    Timed,
    WindowAggregate,
)
from millstream.plan.pushdown import columns_to_needed
from millstream.plan.skipping import filters_to_sources
from millstream.plan.walk import in_order, with_inputs
from millstream.windows.by_rows import Sliding

AggregateNode = TypeVar("AggregateNode", WindowAggregate, GroupAggregate)


def sinks_to_physical(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Return the plan as it is compiled: fused, and with sources that read what is needed."""
    plan = upserts_to_changelogs(key_by_to_nothing(sinks))
    plan = async_calls_to_lookups(aggregates_to_columns(plan))
    plan = chains_to_fused(plan)
    plan = columns_to_needed(plan)
    # Pushdown put columns in order with projections of its own, which fuse once more.
    return changes_to_consolidated(filters_to_sources(chains_to_fused(plan)))


def sources_to_partitions(sinks: Sequence[Sink], partitions: Mapping[str, int]) -> tuple[Sink, ...]:
    """Let the sources of the topics in `partitions` have so many partitions."""
    rebuilt: dict[int, Node] = {}
    for node in in_order(sinks):
        if isinstance(node, StreamSource | TableSource) and node.topic in partitions:
            rebuilt[id(node)] = replace(node, partitions=partitions[node.topic])
        else:
            rebuilt[id(node)] = with_inputs(node, [rebuilt[id(each)] for each in node.inputs])
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def key_by_to_nothing(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Drop `KeyBy`: aggregates and sinks hold their key columns themselves."""
    rebuilt: dict[int, Node] = {}
    for node in in_order(sinks):
        inputs = [rebuilt[id(each)] for each in node.inputs]
        rebuilt[id(node)] = inputs[0] if isinstance(node, KeyBy) else with_inputs(node, inputs)
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def aggregates_to_columns(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Put a projection before each aggregate that computes more than columns.

    Its arguments become columns of the input, so that the operator knows only columns. What
    the projection added is taken off again behind the late rows.
    """
    rebuilt: dict[int, Node] = {}
    prepared: dict[int, Timed] = {}
    for node in in_order(sinks):
        match node:
            case WindowAggregate():
                window = _with_columns(node, rebuilt[id(node.input)])
                rebuilt[id(node)] = prepared[id(node)] = window
                if isinstance(node.window, Sliding):
                    rebuilt[id(node)] = _trimmed(window, node.schema)
            case GroupAggregate():
                group = _with_columns(node, rebuilt[id(node.input)])
                rebuilt[id(node)] = prepared[id(node)] = group
            case Dedup() | Process():
                first = replace(node, input=rebuilt[id(node.input)])
                rebuilt[id(node)] = prepared[id(node)] = first
            case LateRows():
                late = replace(node, aggregate=prepared[id(node.aggregate)])
                rebuilt[id(node)] = _trimmed(late, node.schema)
            case _:
                inputs = [rebuilt[id(each)] for each in node.inputs]
                rebuilt[id(node)] = with_inputs(node, inputs)
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def _trimmed(node: Node, schema: pa.Schema) -> Node:
    if node.schema.names == schema.names:
        return node
    return Project(node, identity_outputs(schema), location=node.location)


def _with_columns(node: AggregateNode, source: Node) -> AggregateNode:
    added: dict[TypedExpression, str] = {}
    aggregates = []

    def column_of(argument: TypedExpression | None) -> TypedExpression | None:
        if argument is None or isinstance(argument, Column):
            return argument
        return Column(added.setdefault(argument, f"__argument_{len(added)}"), argument.type)

    for each in node.aggregates:
        argument, by = column_of(each.argument), column_of(each.by)
        aggregates.append(replace(each, argument=argument, by=by))
    if added:
        computed: Outputs = tuple((name, expression) for expression, name in added.items())
        outputs = (*identity_outputs(source.schema), *computed)
        source = Project(source, outputs, location=node.location)
    return replace(node, input=source, aggregates=tuple(aggregates))
