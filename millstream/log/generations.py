"""The generations of a topic: a change of the number of its partitions begins a new one.

    generation 0: 2 partitions, closed at 70 and 30 ──▶ generation 1: 5 partitions, open
                                         (the seam)

A generation whose partitions are closed grows no more. Who reads it to the seam, and then the
next one, reads the rows of each key in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.log.key_hash import KEY_GROUPS


@dataclass(frozen=True, slots=True)
class ClosedGeneration:
    """An older generation of a topic.

    Parameters
    ----------
    number
        Of the generation, from 0.
    ends
        The seam: for each of its partitions the offset at which it was closed.
    closed_us
        When.
    """

    number: int
    ends: tuple[int, ...]
    closed_us: int

    @property
    def partitions(self) -> int:
        """How many there were."""
        return len(self.ends)


def partition_groups(partition: int, partitions: int) -> range:
    """Return the key groups whose rows lie in a partition: ⌊group · partitions / 4096⌋.

    Examples
    --------
    >>> partition_groups(1, 4)
    range(1024, 2048)
    """
    return range(
        -(-partition * KEY_GROUPS // partitions), -(-(partition + 1) * KEY_GROUPS // partitions)
    )


def forebears(partition: int, partitions: int, before: int, *, keyed: bool) -> list[int]:
    """Return the partitions of the generation before that hold earlier rows of a partition's keys.

    Parameters
    ----------
    partition, partitions
        Of the later generation: which, and of how many.
    before
        How many partitions there were before.
    keyed
        Whether rows lie by their key; without one, any may have been anywhere.

    Examples
    --------
    >>> forebears(1, 3, 2, keyed=True)
    [0, 1]
    """
    if not keyed:
        return list(range(before))
    groups = partition_groups(partition, partitions)
    return list(range(groups[0] * before // KEY_GROUPS, groups[-1] * before // KEY_GROUPS + 1))


def partition_name(topic: str, generation: int, partition: int) -> str:
    """Return what a partition is called in messages; its generation, where it is not the first."""
    return f"{topic}/{generation}:{partition}" if generation else f"{topic}/{partition}"
