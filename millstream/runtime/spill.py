"""Which operators of a worker share its memory budget."""

from __future__ import annotations

from millstream.log.key_hash import KEY_GROUPS
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
        by_key: tuple[str, ...] = getattr(config, "key_columns", ())
        keys: tuple[tuple[str, ...], ...] = getattr(config, "spill_keys", (by_key,))
        operator = config.build()
        if not keys or not keys[0] or not isinstance(operator, Spillable):
            return operator
        groups = range(KEY_GROUPS) if config.broadcast_state else self._groups
        return Spilling(config, keys, groups, self._budget, self._tables)
