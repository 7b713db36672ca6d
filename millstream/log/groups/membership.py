"""Who is in a group and who owns what: a value, and the steps that lead to the next one.

    join, leave, expel ─▶ a new target for some ─▶ the old owner releases ─▶ the new one acquires

A partition is owned by one member at most in every state; only those that move are without an
owner for a while. Nothing here reads a disk or a clock.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from millstream.log.groups.assignment import assign
from millstream.log.groups.partition_id import Catalog, PartitionId

FORMAT_VERSION = 1
MEMBERS_MAX = 4_096


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member of a group.

    Attributes
    ----------
    epoch
        Of its life; a static member that starts again under its name has a greater one.
    static
        Whether its name stays when it dies: it keeps its partitions until its time is out.
    topics
        Names of what it subscribed to.
    session_timeout_us
        How long it may be silent.
    slot
        Number of its heartbeat's cell.
    owned
        Partitions that it may read and commit.
    target
        Those that it should own.
    """

    epoch: int
    static: bool
    topics: tuple[str, ...]
    session_timeout_us: int
    slot: int
    owned: tuple[PartitionId, ...] = ()
    target: tuple[PartitionId, ...] = ()


class GroupState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a group's `state.json`.

    Attributes
    ----------
    format
        Of the file.
    version
        Grows with each state.
    generation
        Grows with each assignment that moves a partition.
    offsets
        Name of the folder of the committed offsets; the version in which the group began.
    members
        By name.
    """

    version: int
    offsets: int
    generation: int = 0
    members: dict[str, Member] = {}
    format: int = FORMAT_VERSION

    def owner(self, partition: PartitionId) -> str | None:
        """Return the member that owns a partition."""
        for name, member in self.members.items():
            if partition in member.owned:
                return name
        return None

    def available(self, name: str) -> list[PartitionId]:
        """Return what a member should own, does not yet, and nobody else owns."""
        taken = {each for member in self.members.values() for each in member.owned}
        return [each for each in self.members[name].target if each not in taken]


def free_slot(state: GroupState) -> int | None:
    """Return the least number that no member's heartbeat has; `None`: the group is full."""
    used = {each.slot for each in state.members.values()}
    return next((slot for slot in range(MEMBERS_MAX) if slot not in used), None)


def join(state: GroupState, name: str, member: Member, catalog: Catalog) -> GroupState:
    """Return the state with `member`; one that is there under its name is replaced.

    The new life has the partitions of the old one. Where it wants the same topics, nothing moves.
    """
    before = state.members.get(name)
    if before is not None:
        member = msgspec.structs.replace(member, owned=before.owned, target=before.target)
    state = _with_members(state, {**state.members, name: member})
    return rebalance(state, catalog)


def leave(state: GroupState, names: Collection[str], catalog: Catalog) -> GroupState:
    """Return the state without members; their partitions are free."""
    rest = {name: member for name, member in state.members.items() if name not in names}
    return rebalance(_with_members(state, rest), catalog)


def release(state: GroupState, name: str, kept: Collection[PartitionId]) -> GroupState:
    """Return the state in which a member owns, of what it owned, only `kept`."""
    member = state.members[name]
    owned = tuple(each for each in member.owned if each in kept)
    return _with_member(state, name, msgspec.structs.replace(member, owned=owned))


def acquire(state: GroupState, name: str) -> GroupState:
    """Return the state in which a member owns what it should and nobody else does."""
    member = state.members[name]
    owned = tuple(sorted({*member.owned, *state.available(name)}))
    return _with_member(state, name, msgspec.structs.replace(member, owned=owned))


def rebalance(state: GroupState, catalog: Catalog) -> GroupState:
    """Return the state with targets that fit its members and the topics there are."""
    members = state.members
    shares = assign(
        {name: member.topics for name, member in members.items()},
        catalog,
        {name: member.owned for name, member in members.items()},
        {name: member.target for name, member in members.items()},
    )
    targets = {name: tuple(sorted(share)) for name, share in shares.items()}
    if all(targets[name] == member.target for name, member in members.items()):
        return state
    changed = {
        name: msgspec.structs.replace(member, target=targets[name])
        for name, member in members.items()
    }
    state = _with_members(state, changed)
    return msgspec.structs.replace(state, generation=state.generation + 1)


def _with_members(state: GroupState, members: dict[str, Member]) -> GroupState:
    return msgspec.structs.replace(state, members=members)


def _with_member(state: GroupState, name: str, member: Member) -> GroupState:
    return _with_members(state, {**state.members, name: member})
