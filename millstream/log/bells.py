"""Wakes readers in any process when a partition has more to read.

    bells ── 0: a transaction was decided │ 1 … 254: partitions, and groups: several on one │ 255:
    whichever of them
    a bell ── how often it was rung │ 1 while somebody listens, else 0

Who moves a partition's readable end looks afterwards whether somebody listens; where nobody does
that is all it costs. Listeners sleep on the number of rings that they saw when they began to
listen, so no ring is missed, whoever else listens to the same bell.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeAlias

from millstream.clock import Clock
from millstream.storage import WORDS_MAX, SharedCells, Storage

FILE_NAME = "bells"
COUNT = 256
DECISIONS = 0
"""The bell that rings when transactions were decided, or their owner began another life."""

LOOK_AGAIN_US = 100_000
"""Who rings may die before it does: a listener looks for itself this often."""

_ANY = COUNT - 1
_SIZE = 16

Rung: TypeAlias = list[tuple[int, int]]
"""Bells, and what was known of each when somebody began to listen."""


class Bells:
    """The bells of the log in `path`, which has a topic.

    Parameters
    ----------
    path, storage, clock
        Of the log.

    Examples
    --------
    >>> rung = bells.listen([3])  # doctest: +SKIP
    >>> if nothing_to_read():  # doctest: +SKIP
    ...     bells.wait(rung, timeout_us=50_000)
    """

    def __init__(self, path: str, storage: Storage, clock: Clock) -> None:
        self._cells: SharedCells = storage.shared_cells(f"{path}/{FILE_NAME}", _SIZE * COUNT)
        self._clock = clock

    def listen(self, bells: Sequence[int]) -> Rung:
        """Ask to be rung for; what is published from now on ends a `wait` for what this returns."""
        cells = self._cells
        distinct = list(dict.fromkeys(bells))
        # Counted first: of a ring in between, the other listener's mark is taken away, not this.
        rung = [(each, cells.read_word(_SIZE * each)) for each in distinct]
        for each in distinct:
            cells.write_word(_SIZE * each + 8, 1)
        return rung

    def wait(self, rung: Rung, timeout_us: int) -> bool:
        """Sleep until one of the bells was rung since `listen`; return whether it may have been.

        Returns after `timeout_us` or `LOOK_AGAIN_US` at the latest.
        """
        timeout_us = min(timeout_us, LOOK_AGAIN_US)
        if len(rung) <= WORDS_MAX:
            words = [(_SIZE * each, count) for each, count in rung]
            return self._cells.wait(words, timeout_us, self._clock)
        deadline_us = self._clock.monotonic_us() + timeout_us
        while True:
            any_of_them = self.listen([_ANY])
            if self.heard(rung):
                return True
            left_us = deadline_us - self._clock.monotonic_us()
            if left_us <= 0 or not self.wait(any_of_them, left_us):
                return False

    def heard(self, rung: Rung) -> list[int]:
        """Return which of the bells were rung since `listen`."""
        read = self._cells.read_word
        return [each for each, count in rung if read(_SIZE * each) != count]

    def ring(self, bell: int) -> None:
        """Wake who listens. What they wait for was published before.

        The bell that rings with every other comes last: who hears it finds out which it was.

        Between the two lies a call of the kernel (a lock was let go): so either this sees that
        somebody listens, or who listens sees what was published.
        """
        self._ring(bell)
        self._ring(_ANY)

    def ring_all(self) -> None:
        """Wake everybody: a decision may let any partition's readers go on."""
        for each in range(COUNT):
            self._ring(each)

    def _ring(self, bell: int) -> None:
        cells, position = self._cells, _SIZE * bell
        if cells.read_word(position + 8) != 0:
            # In this order: who begins to listen in between is marked again, or sees the count
            # change. Two who ring at once may count one ring; it is another number all the same.
            cells.write_word(position + 8, 0)
            cells.write_word(position, (cells.read_word(position) + 1) & 0x7FFFFFFF)
            cells.wake(position)


def bell_of_group(name: str) -> int:
    """Return the number of the bell that rings when the state of a group changed."""
    return 1 + zlib.crc32(name.encode()) % (COUNT - 2)


def bell_of(topic_id: str, partition: int) -> int:
    """Return the number of a partition's bell; several partitions may have the same."""
    return 1 + (int(topic_id) * 31 + partition) % (COUNT - 2)
