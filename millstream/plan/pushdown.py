"""Columns that nobody needs are not read: needs flow up from the sinks to the sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pyarrow as pa

from millstream.operators.expression import columns_of
from millstream.plan.columns import identity_outputs
from millstream.plan.nodes import (
    AsTable,
    ChangeRows,
    Consolidate,
    Dedup,
    Explode,
    Filter,
    Fused,
    GroupAggregate,
    KeyBy,
    LateRows,
    LatestRows,
    Limit,
    Lookup,
    MapBatches,
    Node,
    Peek,
    Process,
    Project,
    Sink,
    StreamSource,
    TableJoin,
    TableSource,
    Top,
    Union,
    WindowAggregate,
)
from millstream.plan.walk import in_order, with_inputs
from millstream.windows.by_rows import Sliding

Needs = dict[int, set[str]]


def columns_to_needed(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Return the plan with sources and projections reduced to the columns that are used.

    A node may keep more columns than one of its consumers needs, where another needs them;
    sinks and unions get exactly theirs, in order. Takes a plan of fused chains.
    """
    order = in_order(sinks)
    needs: Needs = {id(node): set() for node in order}
    for node in reversed(order):
        _add_needs(node, needs)
    rebuilt: dict[int, Node] = {}
    for node in order:
        inputs = [rebuilt[id(each)] for each in node.inputs]
        rebuilt[id(node)] = _reduced(node, inputs, needs[id(node)])
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def _add_needs(node: Node, needs: Needs) -> None:
    needed = needs[id(node)]
    match node:
        case Sink():
            needs[id(node.input)].update(node.schema.names)
        case Fused():
            _keep_one(needed, [name for name, _ in node.outputs])
            wanted = needs[id(node.input)]
            for name, expression in node.outputs:
                if name in needed:
                    wanted.update(columns_of(expression))
            if node.predicate is not None:
                wanted.update(columns_of(node.predicate))
        case TableJoin():
            needs[id(node.stream)].update(needed.intersection(node.stream.schema.names))
            needs[id(node.stream)].update(node.stream_keys)
            needs[id(node.table)].update(needed.intersection(node.table.schema.names))
            needs[id(node.table)].update(node.table_keys)
            needs[id(node.table)].update(node.table.keys)  # its latest rows are told by them
        case WindowAggregate() | GroupAggregate():
            wanted = needs[id(node.input)]
            _add_needs_of_aggregate(node, wanted)
            if isinstance(node, WindowAggregate) and isinstance(node.window, Sliding):
                wanted.update(needed.intersection(node.input.schema.names))
        case LatestRows():
            order = () if node.order is None else (node.order,)
            needs[id(node.input)].update(needed, node.columns, order)
        case Dedup():
            time = () if node.within_us is None else (node.time_column,)
            needs[id(node.input)].update(needed, node.columns, filter(None, time))
        case ChangeRows() | Top() | Peek() | MapBatches() | Process():
            # A change of a column that nobody needs is a change, too; and it may tell rows apart.
            # A function may read any column.
            needs[id(node.input)].update(node.input.schema.names)
        case Lookup():
            _add_needs_of_lookup(node, needed, needs[id(node.input)])
        case Explode() | Limit():
            needs[id(node.input)].update(needed, node.columns)
            _keep_one(needs[id(node.input)], node.input.schema.names)
        case LateRows():
            # What is wanted of the late rows must have come in with the others.
            needs[id(node.aggregate.input)].update(needed)
        case Union():
            _keep_one(needed, node.schema.names)
            for stream in node.streams:
                needs[id(stream)].update(needed)
        case StreamSource() | TableSource():
            pass
        case Filter() | Project() | KeyBy() | AsTable() | Consolidate():
            message = f"pushdown takes a plan of fused chains; got a {type(node).__name__}"
            raise AssertionError(message)


def _add_needs_of_aggregate(node: WindowAggregate | GroupAggregate, wanted: set[str]) -> None:
    wanted.update(node.columns)
    for each in node.aggregates:
        for argument in each.arguments:
            wanted.update(columns_of(argument))
    if isinstance(node, WindowAggregate):
        wanted.add(node.event_time)
        return
    timed = node.ttl_us is not None or any(each.is_in_order for each in node.aggregates)
    if timed and node.input.row_time is not None:
        wanted.add(node.input.row_time)
    _keep_one(wanted, node.input.schema.names)


def _add_needs_of_lookup(node: Lookup, needed: set[str], wanted: set[str]) -> None:
    wanted.update(needed.intersection(node.input.schema.names))
    for each in node.calls:
        if each.name in needed:
            wanted.update(each.arguments)
    _keep_one(wanted, node.input.schema.names)


def _keep_one(needed: set[str], names: Sequence[str]) -> None:
    # Rows without columns have no number in Arrow, so one column stays to count them by.
    if not needed.intersection(names):
        needed.add(names[0])


def _reduced(node: Node, inputs: list[Node], needed: set[str]) -> Node:
    match node:
        case StreamSource():
            return replace(node, topic_schema=_source_schema(node, needed))
        case TableSource():
            columns = tuple(each for each in node.columns if each[0] in needed)
            return replace(node, columns=columns)
        case Fused():
            outputs = tuple(each for each in node.outputs if each[0] in needed)
            return replace(node, input=inputs[0], outputs=outputs)
        case Union():
            names = [each for each in node.schema.names if each in needed]
            return replace(node, streams=tuple(_exactly(each, names) for each in inputs))
        case Sink():
            return replace(node, input=_exactly(inputs[0], node.schema.names))
        case Lookup():
            calls = tuple(each for each in node.calls if each.name in needed)
            return replace(node, input=inputs[0], calls=calls) if calls else inputs[0]
        case TableJoin():
            unneeded = frozenset(node.table.keys) - needed - frozenset(node.table_keys)
            return with_inputs(replace(node, left_out=unneeded) if unneeded else node, inputs)
        case _:
            return with_inputs(node, inputs)


def _source_schema(node: StreamSource, needed: set[str]) -> pa.Schema:
    # The time column stays even where no operator wants it: the watermark comes from it.
    kept = [
        each for each in node.topic_schema if each.name in needed or each.name == node.event_time
    ]
    if not kept:
        kept = [min(node.topic_schema, key=_width)]
    return pa.schema(kept)


def _width(column: pa.Field) -> int:
    try:
        return int(column.type.bit_width)
    except ValueError:  # a type of variable width
        return 1_000


def _exactly(node: Node, names: Sequence[str]) -> Node:
    if node.schema.names == list(names):
        return node
    chosen = pa.schema(node.schema.field(name) for name in names)
    return Fused(node, None, identity_outputs(chosen), location=node.location)
