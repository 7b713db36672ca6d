"""Changes are brought into the form that whoever takes them takes: upserts become a changelog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from millstream.operators.consolidate import can_consolidate
from millstream.operators.expression import Column
from millstream.operators.operator import ChangeMode
from millstream.plan.nodes import (
    AsTable,
    ChangeRows,
    Consolidate,
    Fused,
    LatestRows,
    Node,
    Sink,
    TableJoin,
    Top,
)
from millstream.plan.walk import in_order, with_inputs


def upserts_to_changelogs(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Put `LatestRows` before who needs to know what a row replaces; drop `AsTable`.

    A join reads a table's upserts as they are, and so does a sink that writes upserts, unless
    the latest row is to be found by its time first.
    """
    rebuilt: dict[int, Node] = {}
    latest: dict[int, LatestRows] = {}
    for node in in_order(sinks):
        inputs: list[Node] = []
        for each in node.inputs:
            if each.mode is ChangeMode.UPSERT and not _takes_upserts(node, each):
                made = latest.get(id(each)) or _latest(each, rebuilt[id(each)])
                inputs.append(latest.setdefault(id(each), made))
            else:
                inputs.append(rebuilt[id(each)])
        rebuilt[id(node)] = inputs[0] if isinstance(node, AsTable) else with_inputs(node, inputs)
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def changes_to_consolidated(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """Leave out what cancels where columns were left out and each change counts.

    Takes a plan of fused chains.
    """
    rebuilt: dict[int, Node] = {}
    made: dict[int, Consolidate] = {}
    for node in in_order(sinks):
        inputs = [rebuilt[id(each)] for each in node.inputs]
        if isinstance(node, ChangeRows | Top) or (isinstance(node, Sink) and node.upsert):
            (source,) = inputs
            if isinstance(source, Fused) and _may_cancel(source):
                consolidate = Consolidate(source, location=source.location)
                inputs = [made.setdefault(id(source), consolidate)]
        rebuilt[id(node)] = with_inputs(node, inputs)
    return tuple(cast("Sink", rebuilt[id(each)]) for each in sinks)


def _takes_upserts(node: Node, source: Node) -> bool:
    if isinstance(node, Sink) and node.upsert:
        return not (isinstance(source, AsTable) and source.input.time_column is not None)
    return isinstance(node, TableJoin)


def _latest(table: Node, rows: Node) -> LatestRows:
    if isinstance(table, AsTable):
        order = table.input.time_column
        return LatestRows(rows, table.columns, order, location=table.location, name=table.name)
    return LatestRows(rows, table.keys, location=table.location)


def _may_cancel(node: Fused) -> bool:
    """Return whether rows that differed before may be equal now."""
    if node.mode is ChangeMode.APPEND or not can_consolidate(node.schema):
        return False
    kept = {each.name for _, each in node.outputs if isinstance(each, Column)}
    return not kept.issuperset(node.input.schema.names)
