"""Leads the lives of members for clients, and answers what is about groups.

A life is led by a `GroupMember` of this process, with a log of its own. Its client is heard by
requests; when it is silent for its session's time the life ends, as that of a member that was
stopped does. When the server dies all its lives do; a client begins another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from millstream.errors import FencedMemberError, LogError
from millstream.log.groups.member import GroupMember
from millstream.log.groups.membership import MEMBERS_MAX
from millstream.log.log import Log
from millstream.log.remote import group_messages as g
from millstream.log.transactions import Writer

_NOTHING = msgspec.Raw(b"null")


class _Life:
    """A member, and when its client was last heard."""

    def __init__(self, member: GroupMember, silence_us_max: int, heard_us: int) -> None:
        self.member = member
        self.lock = threading.Lock()
        self.silence_us_max = silence_us_max
        self.heard_us = heard_us


class GroupService:
    """Groups of the log behind a server; any thread may ask.

    Parameters
    ----------
    open_log
        Returns the log, opened anew.
    find_writer
        Returns the writer of an owner's id, epoch and transaction, if these are valid; `None`
        for nobody.
    """

    def __init__(
        self, open_log: Callable[[], Log], find_writer: Callable[[int, int, int], Writer | None]
    ) -> None:
        self._open_log = open_log
        self._find_writer = find_writer
        self._log = open_log()
        self._lock = threading.Lock()
        self._lives: dict[str, _Life] = {}
        self._living = threading.Lock()

    def answer(self, request: g.GroupRequest) -> g.GroupAnswer:
        """Carry out a request; raises `MillstreamError`, which the client is to be told."""
        match request:
            case g.JoinGroup():
                return self._join(request)
            case (
                g.BeatInGroup()
                | g.HasBegunBefore()
                | g.LeaveGroup()
                | g.ReleasePartitions()
                | g.AcquirePartitions()
                | g.FindMembersOffsets()
                | g.CommitAsMember()
            ):
                return self._live(request)
            case _:
                with self._lock:
                    return self._observe(request)

    def close(self) -> None:
        """End all lives, as if their members had died: others take their partitions at once."""
        with self._living:
            lives, self._lives = list(self._lives.values()), {}
        for each in lives:
            with each.lock:
                each.member.forget()

    def _join(self, request: g.JoinGroup) -> g.GroupAnswer:
        self._bury()
        log = self._open_log()
        member = log.member(
            request.topics,
            request.group,
            request.member,
            request.session_timeout_us,
            from_beginning=request.from_beginning,
        )
        life = _Life(member, request.session_timeout_us, log.clock.monotonic_us())
        with life.lock:
            member.join()
            with self._living:
                before = self._lives.get(request.token)
                self._lives[request.token] = life
            answer = _membership(member)
        if before is not None:
            # The answer to its joining was lost, and it joined again.
            with before.lock:
                before.member.leave()
        return answer

    def _live(
        self,
        request: g.BeatInGroup
        | g.HasBegunBefore
        | g.LeaveGroup
        | g.ReleasePartitions
        | g.AcquirePartitions
        | g.FindMembersOffsets
        | g.CommitAsMember,
    ) -> g.GroupAnswer:
        with self._living:
            life = self._lives.get(request.life.token)
            if life is not None and isinstance(request, g.LeaveGroup):
                del self._lives[request.life.token]
        if life is None:
            return self._without_life(request)
        with life.lock:
            life.heard_us = self._log.clock.monotonic_us()
            member = life.member
            match request:
                case g.LeaveGroup(gives_back=gives_back):
                    if gives_back:
                        member.leave()
                    member.forget()
                    return g.Left()
                case g.FindMembersOffsets(partitions=partitions):
                    return g.MembersOffsets(tuple(member.committed(partitions).items()))
                case g.HasBegunBefore(partition=partition):
                    return _facts(member.has_begun_before(partition))
                case g.CommitAsMember(offsets=offsets):
                    writer = self._find_writer(request.owner_id, request.epoch, request.transaction)
                    member.commit(dict(offsets), writer, request.transaction)
                    return g.Left()
                case g.ReleasePartitions(kept=kept):
                    member.release(kept)
                case g.AcquirePartitions():
                    member.acquire()
                case g.BeatInGroup(at_seam=at_seam):
                    if at_seam:
                        member.at_seam()
                    if member.state() is not None:
                        member.beat()
            return _membership(member)

    def _without_life(self, request: g.GroupRequest) -> g.GroupAnswer:
        """Answer a client whose life this server does not lead, or not any more."""
        match request:
            case g.LeaveGroup():
                return g.Left()
            case (
                g.FindMembersOffsets(life=life)
                | g.CommitAsMember(life=life)
                | g.HasBegunBefore(life=life)
            ):
                message = (
                    f"member {life.name!r} of group {life.group!r} cannot commit: the server was "
                    "started anew, or heard nothing of it for too long; it joins again with its "
                    "next poll"
                )
                raise FencedMemberError(message)
            case _:
                assert hasattr(request, "life")
                life = request.life
                with self._lock:
                    others = self._log.group(life.group).members()
                epoch = others.get(life.name, 0)
                return g.Membership(life.name, life.epoch, _NOTHING, epoch > life.epoch)

    def _observe(self, request: g.GroupRequest) -> g.GroupAnswer:
        """Answer what is about a group as a whole."""
        log = self._log
        match request:
            case g.ListGroups():
                return _facts(log.groups())
            case g.AskGroup(group=name, what="describe"):
                return _facts(log.group(name).describe())
            case g.AskGroup(group=name, what="generations"):
                return _facts(log.group(name).generations())
            case g.AskGroup(group=name, what=what):
                group = log.group(name)
                found = group.committed() if what == "committed" else group.lag()
                return _facts([(*place, offset) for place, offset in found.items()])
            case g.CommitForGroup(group=name, offsets=offsets):
                chosen = {(topic, partition): offset for topic, partition, offset in offsets}
                writer = self._find_writer(request.owner_id, request.epoch, request.transaction)
                log.group(name).commit(
                    chosen, writer, request.transaction, generations=request.generations
                )
            case g.ResetGroup(group=name):
                changes = log.group(name).reset(
                    request.topics,
                    to=request.to,
                    to_offset=request.to_offset,
                    to_time=request.to_time_us,
                    shift=request.shift,
                    partitions=request.partitions,
                    dry_run=request.dry_run,
                )
                return _facts(changes)
            case g.DeleteGroup(group=name):
                log.group(name).delete()
        return g.Left()

    def _bury(self) -> None:
        """End the lives of clients that were silent for too long."""
        now_us = self._log.clock.monotonic_us()
        with self._living:
            late = {
                token: life
                for token, life in self._lives.items()
                if now_us - life.heard_us > life.silence_us_max
            }
            for token in late:
                del self._lives[token]
            if len(self._lives) >= MEMBERS_MAX:
                message = f"the server leads the lives of {MEMBERS_MAX} members; no more"
                raise LogError(message)
        for life in late.values():
            with life.lock:
                life.member.forget()


def _membership(member: GroupMember) -> g.Membership:
    state = member.state()
    content = _NOTHING if state is None else msgspec.Raw(msgspec.json.encode(state))
    is_replaced = state is None and member.is_replaced()
    return g.Membership(member.name, member.epoch, content, is_replaced)


def _facts(facts: object) -> g.GroupFacts:
    return g.GroupFacts(msgspec.Raw(msgspec.json.encode(facts)))
