"""How a source goes on where its topic got another number of partitions.

generation 0 read to the seam ─▶ each new partition begins with the least time of its forebears
"""

from __future__ import annotations

from collections.abc import Mapping

from millstream.log import Topic
from millstream.log.generations import forebears
from millstream.runtime.manifest import PartitionState
from millstream.windows.watermark import WATERMARK_MIN


def is_at_seam(topic: Topic, generation: int, partitions: Mapping[int, PartitionState]) -> bool:
    """Return `True` iff all partitions of an older generation were read to their seams."""
    ends = topic.config.ends_of(generation)
    if ends is None:
        return False
    offsets = (_known(topic, generation, index, partitions).offset for index in range(len(ends)))
    return all(offset >= end for offset, end in zip(offsets, ends, strict=True))


def following_partitions(
    topic: Topic, generation: int, partitions: Mapping[int, PartitionState]
) -> dict[int, PartitionState]:
    """Return where the generation behind an older one begins, of which all was read.

    The watermark of a partition begins at the least of those of the partitions that hold earlier
    rows of its keys: it promises no more than they did.
    """
    config = topic.config
    following = config.following(generation)
    before, count = config.partitions_of(generation), config.partitions_of(following)
    begun = {}
    for index in range(count):
        older = forebears(index, count, before, keyed=bool(config.key))
        greatest_us = min(_known(topic, generation, each, partitions).greatest_us for each in older)
        first = topic.partition(index, following).first_offset
        begun[index] = PartitionState(first, greatest_us, following)
    return begun


def _known(
    topic: Topic, generation: int, index: int, partitions: Mapping[int, PartitionState]
) -> PartitionState:
    found = partitions.get(index)
    if found is not None:
        return found
    first = topic.partition(index, generation).first_offset
    return PartitionState(first, WATERMARK_MIN, generation)
