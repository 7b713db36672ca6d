"""Wakes readers in any process when a partition has more to read.

    bells ── 0: a transaction was decided │ 1 … 255: partitions, and groups: several on one

A bell is a word of a mapped file: 1 while somebody listens, else 0. Who moves a partition's
readable end looks at its bell afterwards; where nobody listens that is all it costs.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from millstream.clock import Clock
from millstream.storage import Storage

FILE_NAME = "bells"
COUNT = 256
DECISIONS = 0
"""The bell that rings when transactions were decided, or their owner began another life."""

LOOK_AGAIN_US = 100_000
"""Who rings may die before it does: a listener looks for itself this often."""

_LISTENED_FOR = 1


class Bells:
    """The bells of the log in `path`, which has a topic.

    Parameters
    ----------
    path, storage, clock
        Of the log.

    Examples
    --------
    >>> bells.listen([3])  # doctest: +SKIP
    >>> if nothing_to_read():  # doctest: +SKIP
    ...     bells.wait([3], timeout_us=50_000)
    """

    def __init__(self, path: str, storage: Storage, clock: Clock) -> None:
        self._cells = storage.shared_cells(f"{path}/{FILE_NAME}", 8 * COUNT)
        self._clock = clock

    def listen(self, bells: Sequence[int]) -> None:
        """Ask to be rung for; what is published from now on ends the next `wait`."""
        for each in bells:
            self._cells.write_word(8 * each, _LISTENED_FOR)

    def wait(self, bells: Sequence[int], timeout_us: int) -> None:
        """Sleep until one of `bells` was rung since `listen`, or may have been.

        Returns after `timeout_us` or `LOOK_AGAIN_US` at the latest.
        """
        words = [(8 * each, _LISTENED_FOR) for each in dict.fromkeys(bells)]
        self._cells.wait(words, min(timeout_us, LOOK_AGAIN_US), self._clock)

    def ring(self, bell: int) -> None:
        """Wake who listens. What they wait for was published before.

        Between the two lies a call of the kernel (a lock was let go): so either this sees that
        somebody listens, or who listens sees what was published.
        """
        if self._cells.read_word(8 * bell) != 0:
            self._cells.write_word(8 * bell, 0)
            self._cells.wake(8 * bell)

    def ring_all(self) -> None:
        """Wake everybody: a decision may let any partition's readers go on."""
        for each in range(COUNT):
            self.ring(each)


def bell_of_group(name: str) -> int:
    """Return the number of the bell that rings when the state of a group changed."""
    return 1 + zlib.crc32(name.encode()) % (COUNT - 1)


def bell_of(topic_id: str, partition: int) -> int:
    """Return the number of a partition's bell; several partitions may have the same."""
    return 1 + (int(topic_id) * 31 + partition) % (COUNT - 1)
