"""Shares partitions out among members: as evenly as their subscriptions allow, moving few.

First everybody keeps what it has. Then each partition without an owner goes to the member that
has least. At last, as long as a member has two more than one that could be given some of it,
perhaps by way of others (a → b → c, where c may not have what a has, but what b has), a
partition moves along that way. No such way left means that the shares are as even as they can
be (Harvey, Ladner, Lovász, Tamir: Semi-matchings for bipartite graphs and load balancing, 2006).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from millstream.log.groups.partition_id import Catalog, PartitionId

Owners = Mapping[str, Collection[PartitionId]]
"""Partitions by member."""


def assign(
    subscriptions: Mapping[str, Collection[str]], catalog: Catalog, owned: Owners, wanted: Owners
) -> dict[str, set[PartitionId]]:
    """Return the partitions that each member should have.

    Parameters
    ----------
    subscriptions
        Names of topics by member; those that the catalog lacks have no partitions.
    owned
        What each member has now; it keeps that as far as possible.
    wanted
        What each was to have by the assignment before; it counts where nobody owns it.
    """
    topics = {
        member: {catalog[name].topic_id for name in names if name in catalog}
        for member, names in subscriptions.items()
    }
    existing = sorted({each for shape in catalog.values() for each in shape.ids()})
    eligible = [each for each in existing if any(each.topic_id in has for has in topics.values())]
    shares = _Shares(topics, owned, wanted)
    shares.keep(eligible)
    shares.give_out(eligible)
    while shares.move_one():
        pass
    return shares.of


class _Shares:
    """Shares that get even step by step.

    Attributes
    ----------
    of
        Partitions by member.
    """

    def __init__(self, topics: Mapping[str, set[str]], owned: Owners, wanted: Owners) -> None:
        self.of: dict[str, set[PartitionId]] = {member: set() for member in topics}
        self._members = sorted(topics)
        self._topics = topics
        self._owned = {member: set(owned.get(member, ())) for member in topics}
        self._wanted = {member: set(wanted.get(member, ())) for member in topics}
        self._counts: dict[str, Counter[str]] = {member: Counter() for member in topics}
        # What a member can give another, best last; a hint, for what it lost since is in it.
        self._movable: dict[tuple[str, str], list[PartitionId]] = {}

    def keep(self, eligible: Iterable[PartitionId]) -> None:
        """Leave members what they have, and of the rest what they were to have."""
        free = set(eligible)
        for before in (self._owned, self._wanted):
            for member in self._members:
                for each in before[member] & free:
                    if each.topic_id in self._topics[member]:
                        self._put(member, each)
                        free.remove(each)

    def give_out(self, eligible: Iterable[PartitionId]) -> None:
        """Give what nobody has to those who have least."""
        taken = set().union(*self.of.values())
        for each in eligible:
            if each not in taken:
                able = [name for name in self._members if each.topic_id in self._topics[name]]
                self._put(min(able, key=self._size), each)

    def move_one(self) -> bool:
        """Let one of the largest shares that can get smaller do so; return whether one could."""
        for giver in sorted(self._members, key=self._size, reverse=True):
            way = self._way_down(giver)
            if way:
                # From its end, so that nobody has more than it should in between.
                for source, target in reversed(list(pairwise(way))):
                    moved = self._best(source, target)
                    self.of[source].remove(moved)
                    self._counts[source][moved.topic_id] -= 1
                    self._put(target, moved)
                return True
        return False

    def _way_down(self, giver: str) -> list[str]:
        """Return the shortest way to the least share, two less than the giver's, or nothing."""
        rising = sorted(self._members, key=self._size)
        if self._size(rising[0]) > self._size(giver) - 2:
            return []
        before: dict[str, str] = {giver: giver}
        queue = deque([giver])
        while queue:
            source = queue.popleft()
            has = {topic for topic, count in self._counts[source].items() if count}
            for target in rising:
                if target in before or not has & self._topics[target]:
                    continue
                before[target] = source
                if self._size(target) <= self._size(giver) - 2:
                    way = [target]
                    while way[-1] != giver:
                        way.append(before[way[-1]])
                    return way[::-1]
                queue.append(target)
        return []

    def _best(self, source: str, target: str) -> PartitionId:
        """Return what to move: best what its owner has not begun, and the other was to have."""
        movable = self._movable.get((source, target))
        if movable is None:
            owned, wanted = self._owned[source], self._wanted[target]
            movable = self._movable[source, target] = sorted(
                (each for each in self.of[source] if each.topic_id in self._topics[target]),
                key=lambda each: (each not in owned, each in wanted, each),
            )
        while movable[-1] not in self.of[source]:
            movable.pop()
        return movable.pop()

    def _put(self, member: str, partition: PartitionId) -> None:
        self.of[member].add(partition)
        self._counts[member][partition.topic_id] += 1
        for key in [each for each in self._movable if each[0] == member]:
            del self._movable[key]

    def _size(self, member: str) -> int:
        return len(self.of[member])
