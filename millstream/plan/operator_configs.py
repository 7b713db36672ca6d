"""Plan node → the operator that does it, where no more than the node must be known for that."""

from __future__ import annotations

from typing import TypeAlias

from millstream.operators.change_rows import ChangeRowsConfig
from millstream.operators.consolidate import ConsolidateConfig
from millstream.operators.dedup import DedupConfig
from millstream.operators.explode import ExplodeConfig
from millstream.operators.latest_rows import LatestRowsConfig
from millstream.operators.limit import LimitConfig
from millstream.operators.lookup import LookupConfig
from millstream.operators.map_batches import MapBatchesConfig
from millstream.operators.operator import OperatorConfig
from millstream.operators.peek import PeekConfig
from millstream.operators.process import ProcessConfig
from millstream.operators.top import TopConfig
from millstream.plan.nodes import (
    ChangeRows,
    Consolidate,
    Dedup,
    Explode,
    LatestRows,
    Limit,
    Lookup,
    MapBatches,
    Peek,
    Process,
    Top,
)

InPlace: TypeAlias = Explode | Peek | MapBatches | Lookup | ChangeRows | Consolidate
"""What is done to rows wherever they lie."""
OfKeys: TypeAlias = LatestRows | Top | Dedup | Process
"""What is done to rows as they are, all of a key on one worker."""


def operator_in_place(node: InPlace) -> tuple[str, OperatorConfig]:
    """Return what the operator is called by default, and its config."""
    match node:
        case Explode():
            exploded = ExplodeConfig(
                node.input.schema, node.columns, node.empty_as_null, node.keep_nulls
            )
            return "explode", exploded
        case Peek():
            return "peek", PeekConfig(node.schema, node.function, node.function_name)
        case MapBatches():
            mapped = MapBatchesConfig(
                node.input.schema, node.schema, node.function, node.function_name, node.kept
            )
            return "map-batches", mapped
        case Lookup():
            return "lookup", LookupConfig(node.input.schema, node.calls)
        case ChangeRows():
            return "changes", ChangeRowsConfig(node.input.schema, node.column, node.input.unique)
        case Consolidate():
            return "consolidate", ConsolidateConfig(node.schema)


def operator_of_keys(node: OfKeys) -> tuple[str, OperatorConfig]:
    """Return what the operator is called by default, but for the key, and its config."""
    match node:
        case LatestRows():
            return "latest", LatestRowsConfig(node.schema, node.columns, node.order)
        case Top():
            return "top", _top(node)
        case Dedup():
            time = None if node.within_us is None else node.time_column
            return "dedup", DedupConfig(node.schema, node.columns, time, node.within_us)
        case Process():
            processed = ProcessConfig(
                node.input.schema,
                node.columns,
                node.function,
                node.function_name,
                node.state,
                node.output,
                node.input.time_column,
                node.in_order,
                node.ttl_us,
            )
            return "process", processed


def order_notes(node: OfKeys) -> tuple[str, ...]:
    """Return what `explain` says where what comes out depends on which row arrived first."""
    arrives = isinstance(node, Process) and not node.in_order
    return ("not deterministic: rows of a key come as they arrive",) if arrives else ()


def limit_of(node: Limit, *, is_share: bool = False) -> LimitConfig:
    """Return the limit of all rows, or of the share of one worker."""
    return LimitConfig(node.schema, node.count, is_share)


def _top(node: Top) -> TopConfig:
    return TopConfig(
        node.input.schema,
        node.columns,
        node.by,
        node.limit,
        ascending=node.ascending,
        ties=node.ties,
        then=node.then,
        takes_changes=node.takes_changes,
        rank=node.rank,
    )
