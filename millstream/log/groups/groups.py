"""The groups of a log: opens each, and what is committed in it, once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypedDict

from millstream.clock import Clock
from millstream.errors import InvalidGroupError, InvalidTopicError
from millstream.log.consumer import Columns
from millstream.log.groups.consumer import Callback, GroupConsumer, GroupOptions
from millstream.log.groups.folder import GroupFolder, groups_directory
from millstream.log.groups.group import Group
from millstream.log.groups.member import GroupMember
from millstream.log.groups.membership import GroupState
from millstream.log.groups.offsets import Committed, CommittedOffsets
from millstream.log.groups.partition_id import Catalog, PartitionId, TopicShape
from millstream.log.groups.seams import generation_to_read
from millstream.log.partition import Partition
from millstream.log.reader import Isolation
from millstream.log.topic import Topic
from millstream.log.topic_config import TopicConfig, check_name
from millstream.log.transactions import GROUP_PARTICIPANT, Transactions
from millstream.storage import Storage


class MemberOptions(TypedDict, total=False):
    """Options of `Log.consumer` for members of a group; see `GroupOptions`."""

    auto_commit: bool
    auto_commit_interval_ms: int
    session_timeout_ms: int
    on_assigned: Callback
    on_revoked: Callback
    on_lost: Callback


class Groups:
    """The groups of the log in `path`.

    Parameters
    ----------
    path, storage, clock
        Of the log.
    transactions
        Returns the log's.
    find_topic, configs
        Return a topic by name, and the configurations of all topics by name.
    refuse
        Raises where nothing may be changed.
    """

    def __init__(
        self,
        path: str,
        storage: Storage,
        clock: Clock,
        transactions: Callable[[], Transactions],
        find_topic: Callable[[str], Topic],
        configs: Callable[[], dict[str, TopicConfig]],
        refuse: Callable[[], None],
    ) -> None:
        self._path = path
        self._storage = storage
        self._clock = clock
        self._transactions = transactions
        self._find_topic = find_topic
        self._configs = configs
        self._refuse = refuse
        self._offsets: dict[str, CommittedOffsets] = {}

    def names(self) -> list[str]:
        """Return the names of all groups, sorted."""
        directory = groups_directory(self._path)
        return [
            name
            for name in self._storage.list_directory(directory)
            if self._storage.exists(f"{directory}/{name}/state.json")
        ]

    def partitions(self) -> list[Partition]:
        """Return the partitions that hold committed offsets, of all groups."""
        folders = [self._folder(name) for name in self.names()]
        states = [(folder, folder.read()) for folder in folders]
        return [self._open(folder, state).partition for folder, state in states if state]

    def group(self, name: str) -> Group:
        """Return a group, which need not exist yet; raises `InvalidGroupError`."""
        folder = self._folder(name)
        return Group(
            folder,
            lambda state: self._open(folder, state),
            self._find_topic,
            lambda names: self._catalog(folder, names, from_beginning=True),
        )

    def consumer(
        self,
        topics: Sequence[str],
        group: str,
        member: str | None,
        options: GroupOptions,
        columns: Columns,
        isolation: Isolation,
        where: object,
    ) -> GroupConsumer:
        """Return a consumer that is a member of a group once it polls."""
        joining = self.member(
            topics,
            group,
            member,
            options.session_timeout_ms * 1_000,
            from_beginning=options.start == "beginning",
        )
        return GroupConsumer(
            self._find_topic,
            topics,
            self._clock,
            group=group,
            member=joining,
            options=options,
            columns=columns,
            isolation=isolation,
            where=where,
        )

    def member(
        self,
        topics: Sequence[str],
        group: str,
        member: str | None,
        session_timeout_us: int,
        *,
        from_beginning: bool = True,
    ) -> GroupMember:
        """Return a member that has not joined yet; raises `InvalidGroupError`.

        `from_beginning`: of a topic of which the group has committed nothing, it reads the oldest
        generation first.
        """
        folder = self._folder(group)
        if member is not None:
            check_group_name(member, "member")
        return GroupMember(
            folder,
            lambda state: self._open(folder, state),
            self._clock,
            self._transactions(),
            lambda names: self._catalog(folder, names, from_beginning=from_beginning),
            member,
            tuple(topics),
            session_timeout_us,
        )

    def sync(self, participant: str) -> None:
        """Make what a group has committed durable; `participant` is its name with the prefix."""
        folder = self._folder(participant.removeprefix(GROUP_PARTICIPANT))
        state = folder.read()
        if state is not None:  # else its offsets are gone with it
            self._open(folder, state).sync()

    def _folder(self, name: str) -> GroupFolder:
        check_group_name(name, "group")
        return GroupFolder(self._path, name, self._storage, self._clock, self._refuse)

    def _open(self, folder: GroupFolder, state: GroupState) -> CommittedOffsets:
        directory = f"{folder.directory}/offsets/{state.offsets}"
        found = self._offsets.get(folder.name)
        if found is None or found.directory != directory:
            found = self._offsets[folder.name] = CommittedOffsets(
                directory,
                self._storage,
                self._clock,
                f"offsets of group {folder.name}",
                self._transactions(),
            )
        return found

    def _catalog(
        self, folder: GroupFolder, names: Collection[str] | None, *, from_beginning: bool
    ) -> Catalog:
        """Return topics, each with the partitions of the generation that the group reads."""
        shapes = {}
        committed: Mapping[PartitionId, Committed] | None = None
        for name in sorted(self._configs()):
            if names is not None and name not in names:
                continue
            topic = self._find_topic(name)
            generation = topic.config.generation
            if topic.config.older:
                if committed is None:
                    committed = self._committed(folder)
                generation = generation_to_read(topic, committed, from_beginning=from_beginning)
            shapes[name] = TopicShape(
                topic.config.id, generation, topic.config.partitions_of(generation)
            )
        return shapes

    def _committed(self, folder: GroupFolder) -> Mapping[PartitionId, Committed]:
        state = folder.read()
        if state is None:
            return {}
        offsets = self._open(folder, state)
        offsets.refresh()
        return offsets.committed()


def check_group_name(name: str, what: str) -> None:
    """Raise `InvalidGroupError` unless `name` can be a group's or a member's: as for topics."""
    try:
        check_name(name)
    except InvalidTopicError as error:
        message = str(error).replace("a topic's name", f"a {what}'s name")
        raise InvalidGroupError(message) from error
