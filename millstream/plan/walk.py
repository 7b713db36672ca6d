"""Ways through a plan: every node once in order, and a node over other inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from millstream.plan.nodes import (
    LateRows,
    Node,
    StreamSource,
    TableJoin,
    TableSource,
    Union,
    is_timed,
)


def with_inputs(node: Node, inputs: Sequence[Node]) -> Node:
    """Return `node` over other inputs; `node` itself where they are the same objects."""
    if all(old is new for old, new in zip(node.inputs, inputs, strict=True)):
        return node
    match node:
        case TableJoin():
            stream, table = inputs
            assert isinstance(table, TableSource)
            return replace(node, stream=stream, table=table)
        case LateRows():
            (aggregate,) = inputs
            assert is_timed(aggregate)
            return replace(node, aggregate=aggregate)
        case Union():
            return replace(node, streams=tuple(inputs))
        case StreamSource() | TableSource():
            return node
        case _:
            return replace(node, input=inputs[0])


def in_order(roots: Sequence[Node]) -> list[Node]:
    """Return every node of the plan once, inputs before those who take them."""
    order: list[Node] = []
    seen: set[int] = set()
    # An explicit stack: a job may be a longer chain than Python recurses.
    stack: list[tuple[Node, Iterator[Node]]] = []
    for root in roots:
        stack.append((root, iter(root.inputs)))
        while stack:
            node, waiting = stack[-1]
            if id(node) in seen:
                stack.pop()
                continue
            following = next((each for each in waiting if id(each) not in seen), None)
            if following is not None:
                stack.append((following, iter(following.inputs)))
                continue
            stack.pop()
            seen.add(id(node))
            order.append(node)
    return order


def source_partitions(nodes: Sequence[Node]) -> int:
    """Return the largest partition count among what the workers share, at least 1."""
    shared = changed_tables(nodes)
    counts = [
        each.partitions
        for each in nodes
        if isinstance(each, StreamSource) or (isinstance(each, TableSource) and id(each) in shared)
    ]
    return max(counts, default=1)


def changed_tables(nodes: Sequence[Node]) -> set[int]:
    """Return the ids of the tables whose changes are read, not (only) joined by streams."""
    return {
        id(each)
        for node in nodes
        if not isinstance(node, TableJoin)
        for each in node.inputs
        if isinstance(each, TableSource)
    }
