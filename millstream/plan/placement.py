"""What is known of where rows lie: by which key they are spread over the workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from millstream.operators.expression import Column
from millstream.plan.nodes import (
    ChangeRows,
    Consolidate,
    Dedup,
    Explode,
    Fused,
    GroupAggregate,
    LateRows,
    LatestRows,
    Limit,
    Lookup,
    MapBatches,
    Node,
    Peek,
    Process,
    StreamSource,
    TableJoin,
    TableSource,
    Top,
    Union,
    WindowAggregate,
    is_timed,
)
from millstream.plan.walk import in_order
from millstream.windows.assignment import RowWindow
from millstream.windows.by_rows import Counting

Keyed: TypeAlias = WindowAggregate | GroupAggregate | LatestRows | Top | Dedup | Process | Limit
"""What needs all rows of a key on one worker."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How the rows of a node are spread over the workers.

    Parameters
    ----------
    keys
        The columns by whose hash each row has its worker, in order; `None` when rows of a
        key may lie anywhere.
    reason
        Why, for `explain`.
    """

    keys: tuple[str, ...] | None
    reason: str


def distribution_of(node: Node, parallelism: int) -> Distribution:
    """Return how the rows of `node`, of a rewritten plan, lie at a parallelism.

    A topic written by key lies right where the workers share its partitions evenly: then the
    key group that chose the partition chooses the same worker.
    """
    match node:
        case StreamSource():
            return _source_distribution(node, node.schema.names, parallelism)
        case TableSource():
            names = {column: name for name, column in node.columns}
            found = _source_distribution(node, list(names), parallelism)
            keys = None if found.keys is None else tuple(names[each] for each in found.keys)
            return Distribution(keys, found.reason)
        case ChangeRows() | Consolidate() | Explode() | Peek() | Lookup():
            return distribution_of(node.input, parallelism)
        case Fused():
            return _renamed(distribution_of(node.input, parallelism), node)
        case TableJoin():
            return distribution_of(node.stream, parallelism)
        case (
            WindowAggregate()
            | GroupAggregate()
            | LatestRows()
            | Top()
            | Dedup()
            | Process()
            | Limit()
        ):
            return Distribution(node.columns, f"rows lie by {_listed(node.columns)} already")
        case LateRows():
            # Combined rows cross to the aggregate's worker; those that came late stay behind.
            combined = is_combined(node.aggregate, parallelism)
            place = node.aggregate.input if combined else node.aggregate
            return distribution_of(place, parallelism)
        case Union():
            every = [distribution_of(each, parallelism) for each in node.streams]
            if all(each.keys == every[0].keys for each in every):
                return every[0]
            return Distribution(None, "the united streams lie by different keys")
        case _:
            return Distribution(None, "rows lie anywhere")


def needs_exchange(node: Keyed, parallelism: int) -> bool:
    """Return `True` iff rows of a key may lie on several workers before who needs them together."""
    return parallelism > 1 and distribution_of(node.input, parallelism).keys != node.columns


def is_combined(node: Keyed, parallelism: int) -> bool:
    """Return `True` iff rows are combined before they cross to an aggregate.

    Not where a partition may be declared idle: rows of one that comes back can be late by the
    aggregate's own watermark, and must reach it as they are.
    """
    if not needs_exchange(node, parallelism):
        return False
    if isinstance(node, GroupAggregate):
        return node.merges and node.ttl_us is None
    if not isinstance(node, WindowAggregate) or isinstance(node.window, RowWindow):
        return False
    sources = [each for each in in_order([node]) if isinstance(each, StreamSource)]
    return all(each.idle_timeout_us is None for each in sources)


def _source_distribution(
    node: StreamSource | TableSource, columns: Sequence[str], parallelism: int
) -> Distribution:
    topic, keys = repr(node.topic), node.topic_keys
    if not keys:
        return Distribution(None, f"{topic} is not written by key")
    if node.partitions % parallelism != 0:
        reason = f"{parallelism} workers share the {node.partitions} partitions of {topic} unevenly"
        return Distribution(None, reason)
    reason = f"{topic} is written by {_listed(keys)}"
    if not set(keys).issubset(columns):
        return Distribution(None, reason)
    return Distribution(keys, reason)


def _renamed(have: Distribution, node: Fused) -> Distribution:
    if have.keys is None:
        return have
    names: dict[str, str] = {}
    for name, expression in node.outputs:
        if isinstance(expression, Column) and (
            expression.name not in names or name == expression.name
        ):
            names[expression.name] = name
    keys = tuple(names.get(each, "") for each in have.keys)
    return Distribution(keys if all(keys) else None, have.reason)


def stamped_sources(nodes: Sequence[Node]) -> set[int]:
    """Return the ids of the stream sources whose rows reach a timed operator.

    A timed operator takes the stamps off, so the search upward ends at the next one.
    """
    return _sources_before(each.input for each in nodes if is_timed(each))


def positioned_sources(nodes: Sequence[Node]) -> dict[int, int]:
    """Return by id the numbers of the stream sources whose rows are taken in order by someone."""
    ends = [
        each.input
        for each in nodes
        if isinstance(each, WindowAggregate | GroupAggregate | Process) and _is_in_order(each)
    ]
    found = _sources_before(ends)
    every = [id(each) for each in nodes if isinstance(each, StreamSource)]
    return {each: number for number, each in enumerate(every) if each in found}


def _is_in_order(node: WindowAggregate | GroupAggregate | Process) -> bool:
    """Return `True` iff results depend on the order of rows that have the same time."""
    if isinstance(node, Process):
        return node.in_order
    if isinstance(node, WindowAggregate) and isinstance(node.window, Counting):
        return True
    return any(each.is_in_order for each in node.aggregates)


def _sources_before(ends: Iterable[Node]) -> set[int]:
    """Return the ids of the stream sources whose own rows come out of some nodes."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        match node:
            case StreamSource():
                found.add(id(node))
            case (
                WindowAggregate()
                | LateRows()
                | GroupAggregate()
                | LatestRows()
                | ChangeRows()
                | Top()
                | Process()
            ):
                pass
            case MapBatches() if not node.same_rows:
                pass
            case TableJoin():
                waiting.append(node.stream)
            case _:
                waiting.extend(node.inputs)
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
