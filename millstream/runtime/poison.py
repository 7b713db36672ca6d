"""Where a row that failed was read: its batch goes once more, numbered, the way to where it failed.

So nothing has to be carried with rows that do not fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from millstream.errors import MillstreamError, RowError
from millstream.operators.explode import ExplodeConfig
from millstream.operators.fused import FusedConfig
from millstream.operators.map_batches import MapBatchesConfig
from millstream.operators.operator import POSITION_COLUMN, Operator
from millstream.operators.peek import PeekConfig
from millstream.operators.spilling import Spilling
from millstream.operators.table_join import TableJoinConfig
from millstream.operators.union import UnionConfig
from millstream.runtime.graph import Edge, OperatorNode, Stage

_POSITION_FIELD = pa.field(POSITION_COLUMN, pa.int64())


def failing_row(
    stage: Stage, operators: Mapping[str, Operator], source: str, rows: pa.RecordBatch, name: str
) -> int | None:
    """Return which of the rows of a source operator `name` fails on; `None`: it is not found.

    It is found where only operators without state, or tables as they stand, are on the way.

    Parameters
    ----------
    operators
        The running ones; a table join is asked again.
    """
    if POSITION_COLUMN in rows.schema.names:
        rows = rows.drop_columns([POSITION_COLUMN])
    numbers = pa.array(range(rows.num_rows), pa.int64())
    came: dict[Edge, list[pa.RecordBatch]] = {
        Edge(source): [rows.append_column(_POSITION_FIELD, numbers)]
    }
    for node in stage.operators:
        taken = [
            (index, each) for index, edge in enumerate(node.inputs) for each in came.get(edge, [])
        ]
        if not taken or (running := _again(node, operators[node.name], name)) is None:
            continue
        counters = replace(running.counters)
        try:
            for index, each in taken:
                for emit in running.on_batch(index, each):
                    came.setdefault(Edge(node.name, emit.port), []).append(emit.batch)
        except RowError as error:
            return error.position if node.name == name else None
        except MillstreamError:
            return None
        finally:
            running.counters = counters
    return None


def _again(node: OperatorNode, running: Operator, failing: str) -> Operator | None:
    config = node.config
    match config:
        case FusedConfig() | ExplodeConfig() | UnionConfig() | MapBatchesConfig():
            return config.build()
        case PeekConfig():
            return UnionConfig(config.schema).build()  # nobody is shown the rows again
        case TableJoinConfig() if not isinstance(running, Spilling):
            return running
        case _ if config.timed and node.name == failing:
            return config.build()  # it fails on a row's time, whatever it knew before
        case _:
            return None
