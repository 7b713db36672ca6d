"""When a stage has the barrier from everybody: pure, without the rows.

sender 0   ──rows──B──(waits)
sender 1   ──rows──rows──rows──B        aligned here: snapshot, pass the barrier on
sender 2   ──rows──rows──B──(waits)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class Alignment:
    """Which inputs of a stage have delivered the barrier of the checkpoint under way.

    Rows behind a barrier belong to the next checkpoint, so an input that has delivered its
    barrier is held back until the others have, too.

    Parameters
    ----------
    inputs
        The stage's inlets. Without any, a stage is aligned as soon as it is asked.
    """

    def __init__(self, inputs: Iterable[Hashable]) -> None:
        self._inputs = frozenset(inputs)
        self._delivered: set[Hashable] = set()
        self._checkpoint: int | None = None

    @property
    def checkpoint(self) -> int | None:
        """The checkpoint under way."""
        return self._checkpoint

    def is_held(self, source: Hashable) -> bool:
        """Return `True` iff nothing may be taken from `source` now."""
        return source in self._delivered

    def on_barrier(self, source: Hashable, checkpoint: int) -> bool:
        """Note a barrier; return `True` iff it was the last: the stage is aligned."""
        assert source in self._inputs, f"a barrier from {source!r}, which is no input"
        assert source not in self._delivered, f"two barriers from {source!r}"
        assert self._checkpoint in {None, checkpoint}, "one checkpoint at a time"
        self._checkpoint = checkpoint
        self._delivered.add(source)
        return self._delivered == self._inputs

    def release(self) -> None:
        """Let rows pass again: the snapshot is taken."""
        self._delivered.clear()
        self._checkpoint = None
