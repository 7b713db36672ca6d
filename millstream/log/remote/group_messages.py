"""What is said about groups: of a member's life, and of a group as a whole (PROTOCOL.md)."""

from __future__ import annotations

from typing import Literal

import msgspec

from millstream.log.groups.partition_id import PartitionId
from millstream.log.remote.numbers import Count, Integer

TopicOffset = tuple[str, Integer, Integer]
"""Topic, partition, offset."""


class Life(msgspec.Struct, frozen=True):
    """A life of a member that the server leads for a client, who chose `token`.

    `name` and `epoch` are what the server answered when it began.
    """

    token: str
    group: str
    name: str
    epoch: Count


class JoinGroup(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Membership`; `member` is the name of a static one."""

    token: str
    group: str
    member: str | None
    topics: tuple[str, ...]
    session_timeout_us: Count
    from_beginning: bool


class BeatInGroup(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Membership`: the member lives, and perhaps has read a generation to its end."""

    life: Life
    at_seam: bool = False


class HasBegunBefore(msgspec.Struct, tag=True, frozen=True):
    """Asks for `GroupFacts`: whether anything is committed in an earlier generation."""

    life: Life
    partition: PartitionId


class LeaveGroup(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Left`; `gives_back` whether the group is told, as by one that closes."""

    life: Life
    gives_back: bool


class ReleasePartitions(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Membership`: owns only these any longer."""

    life: Life
    kept: tuple[PartitionId, ...]


class AcquirePartitions(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Membership`: owns what it should and nobody else does."""

    life: Life


class FindMembersOffsets(msgspec.Struct, tag=True, frozen=True):
    """Asks for `MembersOffsets` of owned partitions."""

    life: Life
    partitions: tuple[PartitionId, ...]


class CommitAsMember(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Left`; with an owner: as a part of its transaction."""

    life: Life
    offsets: tuple[tuple[PartitionId, Count], ...]
    owner_id: Count = 0
    epoch: Count = 0
    transaction: Count = 0


class ListGroups(msgspec.Struct, tag=True, frozen=True):
    """Asks for `GroupFacts`: names."""


class AskGroup(msgspec.Struct, tag=True, frozen=True):
    """Asks for `GroupFacts`: what the method of `Group` returns."""

    group: str
    what: Literal["describe", "committed", "lag", "generations"]


class CommitForGroup(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Left`; of a group without members."""

    group: str
    offsets: tuple[TopicOffset, ...]
    owner_id: Count = 0
    epoch: Count = 0
    transaction: Count = 0
    generations: dict[str, Integer] | None = None


class ResetGroup(msgspec.Struct, tag=True, frozen=True):
    """Asks for `GroupFacts`: the changes."""

    group: str
    topics: tuple[str, ...] | None
    to: Literal["beginning", "end"] | None
    to_offset: Integer | None
    to_time_us: Integer | None
    shift: Integer | None
    partitions: tuple[tuple[str, Integer], ...] | None
    dry_run: bool


class DeleteGroup(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Left`."""

    group: str


GroupRequest = (
    JoinGroup
    | BeatInGroup
    | HasBegunBefore
    | LeaveGroup
    | ReleasePartitions
    | AcquirePartitions
    | FindMembersOffsets
    | CommitAsMember
    | ListGroups
    | AskGroup
    | CommitForGroup
    | ResetGroup
    | DeleteGroup
)


class Membership(msgspec.Struct, tag=True, frozen=True):
    """A member's name and epoch, and the group's `state.json`; null: it is no member any more.

    `is_replaced`: another life has its name.
    """

    name: str
    epoch: Integer
    state: msgspec.Raw
    is_replaced: bool


class MembersOffsets(msgspec.Struct, tag=True, frozen=True):
    """Committed offsets; those are missing that an undecided transaction has."""

    offsets: tuple[tuple[PartitionId, Integer | None], ...]


class GroupFacts(msgspec.Struct, tag=True, frozen=True):
    """What was asked, as JSON."""

    facts: msgspec.Raw


class Left(msgspec.Struct, tag=True, frozen=True):
    """It was done."""


GroupAnswer = Membership | MembersOffsets | GroupFacts | Left
