"""Groups of a served log: the server leads a member's life, and the client is heard by it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal, TypeVar, cast

import msgspec

from millstream.clock import Clock
from millstream.errors import FencedMemberError, LogError
from millstream.log.consumer import TopicPartition
from millstream.log.groups.group import Group, GroupDescription
from millstream.log.groups.groups import Groups, check_group_name
from millstream.log.groups.member import GroupMember
from millstream.log.groups.membership import GroupState
from millstream.log.groups.partition_id import PartitionId
from millstream.log.groups.reset import OffsetChange, ResetTarget
from millstream.log.remote import group_messages as g
from millstream.log.remote.remote_partition import Asker
from millstream.log.topic import Topic
from millstream.log.transactions import Writer

BEAT_INTERVAL_US = 100_000
"""How often a poll asks the server for the group's state: as long is a change unnoticed."""

SEAM_INTERVAL_US = 20_000
"""The same, where a generation of a topic was read to its end."""

FactsT = TypeVar("FactsT")


class RemoteGroups(Groups):
    """The groups of a served log.

    Parameters
    ----------
    asker
        Asks the server.
    clock, find_topic
        Of the log.
    """

    def __init__(self, asker: Asker, clock: Clock, find_topic: Callable[[str], Topic]) -> None:
        self._asker = asker
        self._clock = clock
        self._find_topic = find_topic

    def names(self) -> list[str]:
        """Return the names of all groups, sorted."""
        return _facts(self._asker, g.ListGroups(), list[str])

    def group(self, name: str) -> Group:
        """Return a group, which need not exist yet; raises `InvalidGroupError`."""
        check_group_name(name, "group")
        return cast("Group", RemoteGroup(self._asker, name))

    def member(
        self,
        topics: Sequence[str],
        group: str,
        member: str | None,
        session_timeout_us: int,
        *,
        from_beginning: bool = True,
    ) -> GroupMember:
        """Return a member that has not joined yet; see `Groups.member`."""
        check_group_name(group, "group")
        if member is not None:
            check_group_name(member, "member")
        remote = RemoteMember(
            self._asker,
            self._clock,
            group,
            member,
            tuple(topics),
            session_timeout_us,
            from_beginning=from_beginning,
        )
        return cast("GroupMember", remote)


class RemoteGroup:
    """A group of a served log; see `Group`."""

    def __init__(self, asker: Asker, name: str) -> None:
        self.name = name
        self._asker = asker

    def committed(self) -> dict[TopicPartition, int]:
        """Return the committed offsets; raises `UnknownGroupError`."""
        return self._offsets("committed")

    def lag(self) -> dict[TopicPartition, int]:
        """Return how many offsets are behind each committed one; raises `UnknownGroupError`."""
        return self._offsets("lag")

    def generations(self) -> dict[str, int]:
        """Return which generation the group reads of each topic; see `Group.generations`."""
        return _facts(self._asker, g.AskGroup(self.name, "generations"), dict[str, int])

    def describe(self) -> GroupDescription:
        """Return who is in the group and how far it is; raises `UnknownGroupError`."""
        return _facts(self._asker, g.AskGroup(self.name, "describe"), GroupDescription)

    def commit(
        self,
        offsets: Mapping[tuple[str, int], int],
        writer: Writer | None = None,
        transaction: int = 0,
        *,
        generations: Mapping[str, int] | None = None,
    ) -> None:
        """Commit offsets of a group without members; see `Group.commit`."""
        chosen = tuple((*place, offset) for place, offset in offsets.items())
        owner_id, epoch = (0, 0) if writer is None else (writer.owner_id, writer.epoch)
        known = None if generations is None else dict(generations)
        request = g.CommitForGroup(self.name, chosen, owner_id, epoch, transaction, known)
        self._asker.ask(request, g.Left)

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
        """Commit other offsets; see `Group.reset`."""
        ResetTarget(to, to_offset, to_time, shift)  # raises where it is not clear
        if isinstance(to_time, datetime):
            to_time = round(to_time.timestamp() * 1_000_000)
        request = g.ResetGroup(
            self.name,
            None if topics is None else tuple(topics),
            to,
            to_offset,
            to_time,
            shift,
            None if partitions is None else tuple((name, index) for name, index in partitions),
            dry_run,
        )
        return _facts(self._asker, request, list[OffsetChange])

    def delete(self) -> None:
        """Remove the group and its committed offsets; raises `GroupActiveError`."""
        self._asker.ask(g.DeleteGroup(self.name), g.Left)

    def _offsets(self, what: Literal["committed", "lag"]) -> dict[TopicPartition, int]:
        rows = _facts(self._asker, g.AskGroup(self.name, what), list[tuple[str, int, int]])
        return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}


class RemoteMember:
    """One life of a member after another, led by the server; see `GroupMember`."""

    def __init__(
        self,
        asker: Asker,
        clock: Clock,
        group: str,
        name: str | None,
        topics: tuple[str, ...],
        session_timeout_us: int,
        *,
        from_beginning: bool,
    ) -> None:
        self._from_beginning = from_beginning
        self._is_at_seam = False
        self._asker = asker
        self._clock = clock
        self._group = group
        self._static_name = name
        self._topics = topics
        self._session_timeout_us = session_timeout_us
        self._token = ""
        self._state: GroupState | None = None
        self._is_replaced = False
        self._beat_at_us = 0
        self.name = name or ""
        self.epoch = 0
        """0: it is in no group."""

    def join(self) -> None:
        """Begin a life: fence an older one of the same name, and expel who is gone."""
        self.forget()
        self._token = secrets.token_hex(16)
        request = g.JoinGroup(
            self._token,
            self._group,
            self._static_name,
            self._topics,
            self._session_timeout_us,
            self._from_beginning,
        )
        self._take_note(self._asker.ask(request, g.Membership))

    def leave(self) -> None:
        """End this life and give the partitions back."""
        self._end(gives_back=True)

    def forget(self) -> None:
        """Be in no group any more; the group finds out by itself."""
        self._end(gives_back=False)

    def beat(self) -> None:
        """Be heard; `state` asks the server often enough for that."""
        self.state()

    def state(self) -> GroupState | None:
        """Return the group's state, if this life is a part of it, as of not long ago."""
        if self.epoch and self._clock.monotonic_us() >= self._beat_at_us:
            request = g.BeatInGroup(self._life(), self._is_at_seam)
            self._is_at_seam = False
            self._take_note(self._asker.ask(request, g.Membership))
        return self._state if self.epoch else None

    def has_begun_before(self, partition: PartitionId) -> bool:
        """Return `True` iff the group has committed in an earlier generation of its topic."""
        return _facts(self._asker, g.HasBegunBefore(self._life(), partition), bool)

    def at_seam(self) -> None:
        """Look soon whether the group can go on in the next generation of a topic."""
        self._is_at_seam = True
        self._beat_at_us = min(self._beat_at_us, self._clock.monotonic_us() + SEAM_INTERVAL_US)

    def is_replaced(self) -> bool:
        """Return `True` iff another life has this one's name."""
        return self._is_replaced

    def release(self, kept: Collection[PartitionId]) -> None:
        """Own, of what is owned, only `kept` any longer; commit before."""
        request = g.ReleasePartitions(self._life(), tuple(kept))
        self._take_note(self._asker.ask(request, g.Membership))

    def acquire(self) -> None:
        """Own what is to be owned and nobody else owns."""
        self._take_note(self._asker.ask(g.AcquirePartitions(self._life()), g.Membership))

    def committed(self, partitions: Collection[PartitionId]) -> dict[PartitionId, int | None]:
        """Return committed offsets of owned partitions; see `GroupMember.committed`."""
        request = g.FindMembersOffsets(self._life(), tuple(partitions))
        return dict(self._fenced(lambda: self._asker.ask(request, g.MembersOffsets)).offsets)

    def commit(
        self,
        offsets: Mapping[PartitionId, int],
        writer: Writer | None = None,
        transaction: int = 0,
    ) -> None:
        """Commit offsets of owned partitions; see `GroupMember.commit`."""
        owner_id, epoch = (0, 0) if writer is None else (writer.owner_id, writer.epoch)
        chosen = tuple(offsets.items())
        request = g.CommitAsMember(self._life(), chosen, owner_id, epoch, transaction)
        self._fenced(lambda: self._asker.ask(request, g.Left))

    def _life(self) -> g.Life:
        return g.Life(self._token, self._group, self.name, self.epoch)

    def _end(self, *, gives_back: bool) -> None:
        if self.epoch:
            # Where the server is gone, so is the life that it led.
            with suppress(LogError):
                self._asker.ask(g.LeaveGroup(self._life(), gives_back), g.Left)
        self.epoch = 0
        self._state = None
        self._is_replaced = False

    def _take_note(self, membership: g.Membership) -> None:
        self.name, self.epoch = membership.name, membership.epoch
        self._state = msgspec.json.decode(membership.state, type=GroupState | None)
        self._is_replaced = membership.is_replaced
        self._beat_at_us = self._clock.monotonic_us() + BEAT_INTERVAL_US

    def _fenced(self, ask: Callable[[], FactsT]) -> FactsT:
        try:
            return ask()
        except FencedMemberError:
            self._beat_at_us = self._clock.monotonic_us()  # what has become of this life?
            raise


def _facts(asker: Asker, request: g.GroupRequest, kind: type[FactsT]) -> FactsT:
    return msgspec.json.decode(asker.ask(request, g.GroupFacts).facts, type=kind)
