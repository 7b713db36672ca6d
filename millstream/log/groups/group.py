"""A group as others see it: what it has committed, how far it is behind, who is in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Literal, TypedDict

from millstream.errors import GroupActiveError, OptionError, UnknownGroupError
from millstream.log.consumer import TopicPartition
from millstream.log.groups import membership
from millstream.log.groups.folder import GroupFolder
from millstream.log.groups.membership import GroupState
from millstream.log.groups.offsets import Committed, CommittedOffsets, Committer
from millstream.log.groups.partition_id import Catalog, PartitionId
from millstream.log.groups.reset import OffsetChange, ResetTarget
from millstream.log.groups.seams import has_begun_before
from millstream.log.topic import Topic
from millstream.log.transactions import Writer

NOBODY = Committer(None, 0)


class MemberDescription(TypedDict):
    """A member of a group; `process` is `None` where it is unknown or dead."""

    name: str
    static: bool
    epoch: int
    alive: bool
    process: int | None
    silent_us: int
    topics: list[str]
    owned: list[TopicPartition]
    target: list[TopicPartition]


class PartitionDescription(TypedDict):
    """How far a group is in a partition; `None` where nothing is committed."""

    topic: str
    generation: int
    partition: int
    committed: int | None
    end: int
    lag: int | None
    member: str | None
    committed_us: int | None


class GroupDescription(TypedDict):
    """All there is to know of a group."""

    name: str
    state: Literal["empty", "stable", "rebalancing"]
    generation: int
    members: list[MemberDescription]
    partitions: list[PartitionDescription]


class Group:
    """A group of a log, which need not exist yet; made by `Log.group`.

    Parameters
    ----------
    folder
        Where it lies.
    open_offsets
        Returns the committed offsets of a state of it.
    find_topic, catalog
        Return a topic by name, and those of the named topics that exist; without names: all.
    """

    def __init__(
        self,
        folder: GroupFolder,
        open_offsets: Callable[[GroupState], CommittedOffsets],
        find_topic: Callable[[str], Topic],
        catalog: Callable[[Collection[str] | None], Catalog],
    ) -> None:
        self._folder = folder
        self._open_offsets = open_offsets
        self._find_topic = find_topic
        self._catalog = catalog

    @property
    def name(self) -> str:
        """As users call it."""
        return self._folder.name

    def committed(self) -> dict[TopicPartition, int]:
        """Return the committed offsets: the next row of each partition.

        They are of the generation that the group reads of each topic; see `Group.generations`.

        Raises
        ------
        UnknownGroupError
            Where there is no such group.
        """
        found = self._committed(self._existing())
        return {place: each.offset for place, each in found.items() if each.offset is not None}

    def lag(self) -> dict[TopicPartition, int]:
        """Return how many offsets are behind each committed one; raises `UnknownGroupError`.

        What is in later generations of a topic counts for the partitions of the same numbers.
        """
        lags: dict[TopicPartition, int] = {}
        state = self._existing()
        for each in self._describe_partitions(state, self._names()):
            if each["lag"] is not None:
                place = TopicPartition(each["topic"], each["partition"])
                lags[place] = lags.get(place, 0) + each["lag"]
        return lags

    def generations(self) -> dict[str, int]:
        """Return which generation the group reads of each topic: the oldest not read to its end."""
        return {name: each.generation for name, each in self._catalog(None).items()}

    def describe(self) -> GroupDescription:
        """Return who is in the group and how far it is; raises `UnknownGroupError`."""
        state = self._existing()
        names = self._names()
        settled = all(set(each.owned) == set(each.target) for each in state.members.values())
        return {
            "name": self.name,
            "state": "empty" if not state.members else "stable" if settled else "rebalancing",
            "generation": state.generation,
            "members": [
                {
                    "name": name,
                    "static": member.static,
                    "epoch": member.epoch,
                    "alive": self._folder.is_alive(member),
                    "process": self._folder.process(member),
                    "silent_us": self._folder.silence_us(member),
                    "topics": list(member.topics),
                    "owned": _places(member.owned, names),
                    "target": _places(member.target, names),
                }
                for name, member in sorted(state.members.items())
            ],
            "partitions": self._describe_partitions(state, names),
        }

    def members(self) -> dict[str, int]:
        """Return the epoch of each member by its name; nobody: there is no such group."""
        state = self._folder.read()
        return {} if state is None else {name: each.epoch for name, each in state.members.items()}

    def commit(
        self,
        offsets: Mapping[tuple[str, int], int] | Mapping[TopicPartition, int],
        writer: Writer | None = None,
        transaction: int = 0,
        *,
        generations: Mapping[str, int] | None = None,
    ) -> None:
        """Commit offsets of a group without members, for who shares partitions out by itself.

        Parameters
        ----------
        offsets
            Of the next rows.
        writer, transaction
            Whose transaction they are to be a part of.
        generations
            What the partitions are in, by topic, as `Consumer.generations` says; by default
            what the group reads.

        Raises
        ------
        GroupActiveError
            Where the group has members.
        """
        ids = {}
        known = self.generations() if generations is None else generations
        for place, offset in offsets.items():
            topic = self._find_topic(place[0])
            generation = known.get(place[0], topic.config.generation)
            topic.partition(place[1], generation)  # raises where there is none
            ids[PartitionId(topic.config.id, generation, place[1])] = offset
        state = self._folder.read()
        if state is None:
            with self._folder.exclusive() as found:
                state = self._folder.write(self._folder.begin()) if found is None else found
        self._open_offsets(state).commit(
            ids, NOBODY, self._refuse_with_members, writer, transaction
        )

    def reset(
        self,
        topics: Sequence[str] | None = None,
        *,
        to: Literal["beginning", "end"] | None = None,
        to_offset: int | None = None,
        to_time: int | datetime | None = None,
        shift: int | None = None,
        partitions: Sequence[tuple[str, int]] | None = None,
        dry_run: bool = False,
    ) -> list[OffsetChange]:
        """Commit other offsets; one of `to`, `to_offset`, `to_time` and `shift` says which.

        Parameters
        ----------
        topics
            Whose partitions; by default all topics that the group reads or has committed in. A
            group that does not exist yet is created.
        to, to_offset, to_time, shift
            As for `ResetTarget`. Offsets are moved into the range of those that there are.
        partitions
            Only these.
        dry_run
            Change nothing; also allowed while the group has members.

        Raises
        ------
        GroupActiveError
            Where a member of the group is alive.
        UnknownGroupError, OptionError
            Where it is not clear what to reset.
        """
        target = ResetTarget(to, to_offset, to_time, shift)
        before = self._folder.read()
        if dry_run:
            return self._changes(before, topics, target, partitions)
        if topics is None and partitions is None:
            self._existing()
        with self._without_members() as state:
            # What members read who were just put out of it is what the group reads.
            changes = self._changes(before or state, topics, target, partitions)
            if changes:
                offsets = {
                    PartitionId(
                        self._find_topic(place.topic).config.id, generation, place.partition
                    ): after
                    for place, _, after, generation in changes
                }
                self._open_offsets(state).commit(offsets, NOBODY, lambda: None)
        return changes

    def delete(self) -> None:
        """Remove the group and its committed offsets.

        Raises
        ------
        GroupActiveError
            Where a member of the group is alive.
        UnknownGroupError
            Where there is none.
        """
        self._existing()
        with self._without_members():
            self._folder.remove()

    @contextmanager
    def _without_members(self) -> Iterator[GroupState]:
        """Hold the group's lock and its state, in which nobody can commit."""
        with self._folder.exclusive() as found:
            state = self._folder.begin() if found is None else found
            gone = {name for name, each in state.members.items() if self._folder.is_gone(each)}
            for name, member in state.members.items():
                if name not in gone and self._folder.is_alive(member):
                    message = (
                        f"group {self.name!r} has living members, e.g. {name!r} of process "
                        f"{self._folder.process(member)}; close them first"
                    )
                    raise GroupActiveError(message)
            if gone or found is None:
                # One that was stopped may wake; it must not commit then.
                state = self._folder.write(membership.leave(state, gone, self._catalog(None)))
            yield state

    def _refuse_with_members(self) -> None:
        """Raise `GroupActiveError` where the group has members, be they alive or not."""
        self._folder.refuse()
        state = self._existing()
        if state.members:
            message = (
                f"group {self.name!r} has members, who commit themselves: {sorted(state.members)}"
            )
            raise GroupActiveError(message)

    def _changes(
        self,
        state: GroupState | None,
        topics: Sequence[str] | None,
        target: ResetTarget,
        partitions: Sequence[tuple[str, int]] | None,
    ) -> list[OffsetChange]:
        committed = {} if state is None else self._committed_ids(state)
        reads = self._catalog(None)
        if partitions is not None:
            places = [
                (reads[each[0]].generation, TopicPartition(*each))
                if each[0] in reads
                else (0, TopicPartition(*each))
                for each in partitions
                if topics is None or each[0] in topics
            ]
        else:
            subscribed = set() if state is None else _subscriptions(state)
            begun = {each.topic_id for each in committed}
            known = [
                name for name, each in reads.items() if name in subscribed or each.topic_id in begun
            ]
            places = [
                (generation, TopicPartition(name, index))
                for name in (sorted(known) if topics is None else topics)
                for generation in self._generations(name, target)
                for index in range(self._find_topic(name).config.partitions_of(generation))
            ]
        if not places:
            message = f"group {self.name!r} has committed nothing; name the topics to reset"
            raise OptionError(message)
        changes = []
        for generation, place in places:
            topic = self._find_topic(place.topic)
            found = committed.get(PartitionId(topic.config.id, generation, place.partition))
            before = None if found is None else found.offset
            after = target.of(topic, generation, place.partition, before)
            changes.append(OffsetChange(place, before, after, generation))
        return changes

    def _generations(self, topic: str, target: ResetTarget) -> list[int]:
        """Return the generations of a topic in which a reset commits."""
        if target.is_of_all_generations:
            return self._find_topic(topic).config.generations
        reads = self._catalog({topic})
        return [reads[topic].generation] if topic in reads else [0]

    def _existing(self) -> GroupState:
        state = self._folder.read()
        if state is None:
            message = f"no group {self.name!r} in the log; `log.groups()` lists those that exist"
            raise UnknownGroupError(message)
        return state

    def _committed_ids(self, state: GroupState) -> Mapping[PartitionId, Committed]:
        """Return all that is committed, in all generations."""
        offsets = self._open_offsets(state)
        offsets.refresh()
        return offsets.committed()

    def _committed(self, state: GroupState) -> dict[TopicPartition, Committed]:
        """Return what is committed in topics that exist, in the generations that are read."""
        names = self._names()
        return {
            TopicPartition(names[each.topic_id, each.generation], each.partition): found
            for each, found in sorted(self._committed_ids(state).items())
            if (each.topic_id, each.generation) in names
        }

    def _names(self) -> dict[tuple[str, int], str]:
        """Return the names of topics by id and the generation that is read."""
        catalog = self._catalog(None)
        return {(each.topic_id, each.generation): name for name, each in catalog.items()}

    def _describe_partitions(
        self, state: GroupState, names: Mapping[tuple[str, int], str]
    ) -> list[PartitionDescription]:
        committed = self._committed_ids(state)
        begun = {each.topic_id for each in committed}
        subscribed = _subscriptions(state)
        owners = {
            place: name
            for name, member in state.members.items()
            for place in _places(member.owned, names)
        }
        described: list[PartitionDescription] = []
        for name, shape in sorted(self._catalog(None).items()):
            if name not in subscribed and shape.topic_id not in begun:
                continue
            topic = self._find_topic(name)
            for generation in topic.config.generations:
                if generation < shape.generation:
                    continue
                for index in range(topic.config.partitions_of(generation)):
                    place = PartitionId(shape.topic_id, generation, index)
                    found = committed.get(place)
                    offset = None if found is None else found.offset
                    follows = generation > shape.generation or has_begun_before(place, committed)
                    if offset is None and follows:
                        offset = topic.partition(index, generation).first_offset
                    is_read = generation == shape.generation
                    owner = owners.get(TopicPartition(name, index)) if is_read else None
                    described.append(
                        {
                            "topic": name,
                            "generation": generation,
                            "partition": index,
                            "committed": None if found is None else found.offset,
                            "end": topic.stable_end(index, generation),
                            "lag": _lag(topic, generation, index, offset),
                            "member": owner,
                            "committed_us": None if found is None else found.committed_us,
                        }
                    )
        return described


def _lag(topic: Topic, generation: int, partition: int, committed: int | None) -> int | None:
    """Return how many offsets are behind a committed one; `None`: nothing is committed."""
    if committed is None:
        return None
    first = topic.partition(partition, generation).first_offset
    return max(topic.stable_end(partition, generation) - max(committed, first), 0)


def _subscriptions(state: GroupState) -> set[str]:
    """Return the names of all topics that members subscribed to."""
    return {name for member in state.members.values() for name in member.topics}


def _places(
    partitions: Collection[PartitionId], names: Mapping[tuple[str, int], str]
) -> list[TopicPartition]:
    """Return partitions by name; those of topics that are gone are left out."""
    return [
        TopicPartition(names[each.topic_id, each.generation], each.partition)
        for each in partitions
        if (each.topic_id, each.generation) in names
    ]
