"""What an offset is an offset in: a partition of one generation of a topic, named for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias


class PartitionId(NamedTuple):
    """A partition, by its topic's id: a topic that is created anew under a name is another."""

    topic_id: str
    generation: int
    partition: int


class TopicShape(NamedTuple):
    """What a group needs to know of a topic."""

    topic_id: str
    generation: int
    partitions: int

    def ids(self) -> list[PartitionId]:
        """Return the topic's partitions."""
        return [
            PartitionId(self.topic_id, self.generation, index) for index in range(self.partitions)
        ]


Catalog: TypeAlias = Mapping[str, TopicShape]
"""The topics that exist, by name."""
