"""How much memory the state of a worker's operators may take, and which part each of them has."""

from __future__ import annotations


class MemoryBudget:
    """Bytes that operators share.

    Parameters
    ----------
    limit_bytes
        For the state of all of them together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._shares: list[MemoryShare] = []

    def share(self) -> MemoryShare:
        """Return the part of one more operator."""
        share = MemoryShare(self)
        self._shares.append(share)
        return share

    def allowed_bytes(self, share: MemoryShare) -> int:
        """Return what one operator may use: an equal part, and more where others use less."""
        others = sum(each.used_bytes for each in self._shares if each is not share)
        return max(self.limit_bytes // len(self._shares), self.limit_bytes - others)


class MemoryShare:
    """What one operator uses of a budget."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.used_bytes = 0

    @property
    def allowed_bytes(self) -> int:
        """What it may use now; when others come to use more this is less, and they wait."""
        return self._budget.allowed_bytes(self)
