"""Which generation of a topic a group reads: the oldest that it has not read to its seam.

    generation 0 ── all partitions committed at the seam ──▶ generation 1 ── … ──▶ the present one

No partition of a generation is read by anybody before all of the one before are done with.
"""

from __future__ import annotations

from collections.abc import Mapping

from millstream.log.generations import ClosedGeneration
from millstream.log.groups.offsets import Committed
from millstream.log.groups.partition_id import PartitionId
from millstream.log.topic import Topic


def generation_to_read(
    topic: Topic, committed: Mapping[PartitionId, Committed], *, from_beginning: bool
) -> int:
    """Return the generation that a group reads.

    Parameters
    ----------
    topic
        As it is now.
    committed
        What the group has committed, in all topics and generations.
    from_beginning
        Whether a group that has committed nothing begins at the beginning.
    """
    config = topic.config
    begun = [each.generation for each in committed if each.topic_id == config.id]
    if not begun and not from_beginning:
        return config.generation
    first = min(begun, default=0)
    for each in config.older:
        if each.number >= first and not _is_read(topic, each, committed):
            return each.number
    return config.generation


def has_begun_before(partition: PartitionId, committed: Mapping[PartitionId, Committed]) -> bool:
    """Return `True` iff a group has committed in an earlier generation of a partition's topic."""
    return any(
        each.topic_id == partition.topic_id and each.generation < partition.generation
        for each in committed
    )


def _is_read(
    topic: Topic, generation: ClosedGeneration, committed: Mapping[PartitionId, Committed]
) -> bool:
    for index, end in enumerate(generation.ends):
        found = committed.get(PartitionId(topic.config.id, generation.number, index))
        # Where nothing is committed there may have been nothing to commit.
        offset = None if found is None else found.offset
        if offset is None:
            offset = topic.partition(index, generation.number).first_offset
        if offset < end:
            return False
    return True
