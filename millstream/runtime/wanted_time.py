"""Whether a source's time column is wanted for itself, or for the watermark alone.

For the watermark nobody has to read it: each frame says the greatest time that it holds.
"""

from __future__ import annotations

from millstream.operators.expression import columns_of
from millstream.operators.fused import FusedConfig
from millstream.runtime.graph import Edge, SourceNode, Stage


def wants_time(stage: Stage, source: SourceNode) -> bool:
    """Return `True` unless nothing that takes the rows of `source` looks at their times.

    That is known where only filters and projections take them, none of which could have to show a
    row that fails.
    """
    name, edge = source.event_time, Edge(source.name)
    if name is None or source.stamped or len(source.schema) < 2:
        return True
    if edge in {*(each.input for each in stage.sends), *(each.input for each in stage.sinks)}:
        return True
    configs = [each.config for each in stage.operators if edge in each.inputs]
    return any(
        not isinstance(each, FusedConfig)
        or each.may_fail
        or any(name in columns_of(part) for part in each.expressions)
        for each in configs
    )
