"""Which operators of a worker share its memory budget."""

from __future__ import annotations

from millstream.operators.memory_budget import MemoryBudget
from millstream.operators.operator import Operator, OperatorConfig
from millstream.operators.scratch_tables import ScratchTables
from millstream.operators.spilling import Spilling
from millstream.operators.state_partition import Spillable
from millstream.storage import Scratch


class Spill:
    """Builds operators that keep within a budget together.

    Parameters
    ----------
    limit_bytes
        The budget.
    scratch
        Takes what is beyond it.
    groups
        The key groups of the worker.
    """

    def __init__(self, limit_bytes: int, scratch: Scratch, groups: range) -> None:
        self._budget = MemoryBudget(limit_bytes)
        self._tables = ScratchTables(scratch, limit_bytes)
        self._groups = groups

    def build(self, config: OperatorConfig) -> Operator:
        """Build an operator: one that is kept by key spills, others are as they are."""
        key_columns: tuple[str, ...] = getattr(config, "key_columns", ())
        operator = config.build()
        if not key_columns or not isinstance(operator, Spillable):
            return operator
        return Spilling(config, key_columns, self._groups, self._budget, self._tables)
