"""A consumer that is a member of a group: it reads the partitions that it owns, and commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, get_args

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import (
    FencedMemberError,
    NoCommittedOffsetError,
    OffsetOutOfRangeError,
    OptionError,
    UnknownTopicError,
)
from millstream.log.bells import DECISIONS, bell_of_group
from millstream.log.consumer import Columns, Consumer, Positions, TopicPartition
from millstream.log.groups.member import GroupMember
from millstream.log.groups.partition_id import PartitionId
from millstream.log.reader import Isolation
from millstream.log.topic import Topic
from millstream.log.transactions import Writer

Start = Literal["beginning", "end", "error"]
Callback = Callable[[list[TopicPartition]], None]


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """How a member behaves.

    Parameters
    ----------
    start
        Where to begin where nothing is committed, or what is committed is out of range
        (Kafka's `auto.offset.reset`): `"beginning"`, `"end"`, or `"error"`: raise.
    auto_commit
        Whether a poll commits now and then what the polls before it returned, and so do the
        loss of a partition and the end. Without it `commit` or a transaction does.
    auto_commit_interval_ms
        How often.
    session_timeout_ms
        A member that neither polls nor calls `heartbeat` for so long is taken for stopped, and
        others get its partitions. A dead one is noticed at once.
    on_assigned
        Called with partitions that are read from now on.
    on_revoked
        Called with partitions that are given up, before they are: the place to commit.
    on_lost
        Called with partitions that others have already, for this member was taken for stopped.
    """

    start: Start = "beginning"
    auto_commit: bool = True
    auto_commit_interval_ms: int = 1_000
    session_timeout_ms: int = 45_000
    on_assigned: Callback | None = None
    on_revoked: Callback | None = None
    on_lost: Callback | None = None

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            message = f"start is 'beginning', 'end' or 'error'; got {self.start!r}"
            raise OptionError(message)
        for name in ("auto_commit_interval_ms", "session_timeout_ms"):
            if getattr(self, name) < 1:
                message = f"{name} must be 1 or more; got {getattr(self, name)}"
                raise OptionError(message)


class GroupConsumer(Consumer):
    """A member of a group; made by `Log.consumer` with `group=`.

    It joins with its first `poll`, and gives its partitions back with `close`, which leaving the
    `with` block calls. Polling keeps it in the group: see `session_timeout_ms`.

    Parameters
    ----------
    find_topic
        Returns the topic of a name, as it is now.
    names
        Of the topics.
    clock, columns, isolation, where
        As for `Consumer`.
    group, member
        The group's name, and this member in it.
    options
        How it behaves.

    Examples
    --------
    >>> with log.consumer("flights", group="billing") as consumer:  # doctest: +SKIP
    ...     while True:
    ...         batch = consumer.poll(timeout_us=1_000_000)
    """

    def __init__(
        self,
        find_topic: Callable[[str], Topic],
        names: Sequence[str],
        clock: Clock,
        *,
        group: str,
        member: GroupMember,
        options: GroupOptions,
        columns: Columns = None,
        isolation: Isolation = "read_committed",
        where: object = None,
    ) -> None:
        self._set_up([find_topic(name) for name in names], clock, columns, isolation, where)
        self._find_topic = find_topic
        self.group = group
        self.options = options
        self._member = member
        self._known_version = -1
        self._is_waiting = False
        self._ids: dict[TopicPartition, PartitionId] = {}
        """What is read: a topic that is created anew under its name is another."""
        self._committed: dict[TopicPartition, int] = {}
        self._rows_end: dict[TopicPartition, int] = {}
        """Behind the last row that was polled of each partition."""
        self._commit_at_us = 0
        # Partitions whose rows were polled and not committed, and those of them given up since.
        self._polled: set[TopicPartition] = set()
        self._given_up: set[TopicPartition] = set()
        self.resets: dict[TopicPartition, tuple[int, int]] = {}
        """Where a committed offset was out of range: it, and where reading went on instead."""

    @property
    def member(self) -> str:
        """Its name in the group; empty before the first poll, unless it is static."""
        return self._member.name

    @property
    def auto_commit(self) -> bool:
        """Whether polls commit."""
        return self.options.auto_commit

    def poll(self, timeout_us: int = 0, rows_max: int = 65_536) -> pa.RecordBatch | None:
        """Return the next rows of some owned partition, or `None` when none came in time.

        A poll joins the group, keeps the membership alive, gives up partitions and takes others.

        Raises
        ------
        FencedMemberError
            Where another consumer has joined under the name of this static member.
        NoCommittedOffsetError, OffsetOutOfRangeError
            Where it is to begin nowhere but at a committed offset, and there is none in range.
        """
        # What earlier polls returned was worked on by now: that is why they poll again.
        if self.auto_commit and self._clock.monotonic_us() >= self._commit_at_us:
            self._commit_silently()
        batch = super().poll(timeout_us, rows_max)
        if batch is not None and self.source is not None:
            self._polled.add(self.source)
            self._rows_end[self.source] = self._readers[self.source].position
        return batch

    def heartbeat(self) -> None:
        """Stay in the group in the middle of long work; gives up and takes no partitions."""
        if self._member.state() is not None:
            self._member.beat()

    def commit(self, offsets: Positions | None = None) -> None:
        """Commit durably where the group goes on when this member does not.

        Parameters
        ----------
        offsets
            Offset of the next row by partition; by default the positions: behind all rows that
            were polled.

        Raises
        ------
        FencedMemberError
            Where this member does not own one of the partitions any more; nothing is committed.
        """
        chosen = self._offsets(offsets)
        if offsets is None:
            chosen = {
                place: offset
                for place, offset in chosen.items()
                if self._committed.get(place) != offset
            }
        if chosen:
            self._member.commit({self._ids[place]: offset for place, offset in chosen.items()})
            self._committed.update(chosen)
        self._polled.clear()
        self._given_up.clear()

    def commit_in(self, writer: Writer, transaction: int, offsets: Positions | None) -> None:
        """Commit offsets as a part of a transaction; see `Transaction.commit_offsets`."""
        if self.auto_commit:
            message = (
                f"a consumer of group {self.group!r} that commits by itself cannot commit in a "
                "transaction; make it with auto_commit=False"
            )
            raise OptionError(message)
        if self._given_up:
            message = (
                f"rows of {sorted(tuple(each) for each in self._given_up)} were polled, and the "
                f"partitions then given up to others of group {self.group!r}: abort the "
                "transaction, and rewind the consumer"
            )
            raise FencedMemberError(message)
        chosen = self._offsets(offsets)
        if chosen:
            ids = {self._ids[place]: offset for place, offset in chosen.items()}
            self._member.commit(ids, writer, transaction)
        self._polled.clear()

    def committed(self) -> dict[TopicPartition, int | None]:
        """Return what is committed of the owned partitions; `None`: nothing."""
        found = self._member.committed([self._ids[place] for place in self.partitions])
        return {self._place_of(each): offset for each, offset in found.items()}

    def rewind(self) -> None:
        """Go back to what is committed, e.g. when the transaction with what was polled failed.

        A partition whose offsets are in a transaction that is still open is read again once that
        is decided.
        """
        self._polled.clear()
        self._given_up.clear()
        with suppress(FencedMemberError):  # the next poll finds out, and begins at what holds
            found = self._member.committed(list(self._ids.values()))
            for place, each in list(self._ids.items()):
                if each in found:
                    start = self._start(place, found[each], each)
                    self._readers[place].seek(start)
                    self._rows_end[place] = start
                else:
                    self._drop([place])
                    self._is_waiting = True

    def close(self) -> None:
        """Commit, if it commits by itself, and leave: others take the partitions at once.

        A static member's wait for it to come back, as long as `session_timeout_ms`.
        """
        if self._member.epoch:
            if self.auto_commit:
                self._commit_silently()
            self._member.leave()
        self._drop(self.partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            # What was polled last may be what failed: it is not committed.
            self._member.leave()
            self._drop(self.partitions)

    def _read(self, rows_max: int) -> pa.RecordBatch | None:
        self._follow()
        return super()._read(rows_max)

    def _awaited(self) -> list[int]:
        """Return also the bell of the group's state, and of a decision that is waited for."""
        others = [bell_of_group(self.group), *([DECISIONS] if self._is_waiting else [])]
        return super()._awaited() + others

    def _pass_seams(self) -> bool:
        """Commit at the seams that were read to; the group goes on when all its members have."""
        for name in {place.topic for place in self._readers}:
            topic, generation = self._topics[name], self._generations[name]
            if not topic.is_older(generation):
                continue
            for place in [each for each in self.partitions if each.topic == name]:
                if topic.is_read(generation, {place.partition: self._readers[place]}):
                    self._commit_seam(place)
            self._member.at_seam()
        return False

    def _commit_seam(self, place: TopicPartition) -> None:
        """Commit the end of a closed partition; of one whose last rows were committed already.

        Behind them may be rows that were taken back, which nobody polls.
        """
        position = self._readers[place].position
        if self._committed.get(place) == position:
            return
        if self.auto_commit:
            self._commit_silently()
            return
        with suppress(FencedMemberError):
            found = self._member.committed([self._ids[place]])
            if found and (found[self._ids[place]] or 0) >= self._rows_end[place]:
                self.commit({place: position})

    def _go_to(self, topic: Topic, generation: int) -> None:
        """Do nothing: a member goes to places in the generation that its group reads."""

    def _follow(self) -> None:
        """Do what the group's state asks of this member; nearly nothing where it did not change."""
        member = self._member
        if member.state() is None:
            self._join()
        else:
            member.beat()
        state = member.state()
        if state is None or (state.version == self._known_version and not self._is_waiting):
            return
        # Lost in the middle of it: the next time that is what the state says.
        with suppress(FencedMemberError):
            self._reconcile()

    def _join(self) -> None:
        """Begin a life; first end the one that others ended."""
        if self._member.epoch:
            if self._member.is_replaced():
                message = (
                    f"member {self.member!r} of group {self.group!r} was replaced: another "
                    "consumer joined under its name; give each its own"
                )
                raise FencedMemberError(message)
            lost = self.partitions
            self._drop(lost)
            self._member.forget()
            if lost and self.options.on_lost is not None:
                self.options.on_lost(lost)
        self._member.join()
        self._known_version = -1

    def _reconcile(self) -> None:
        """Give up what is not to be owned, then take what is free of what is.

        Any step may fail: the next poll begins anew, with the state as it is then.
        """
        member = self._member
        while (state := member.state()) is not None:
            me = state.members[member.name]
            leaving = [place for place, each in self._ids.items() if each not in me.target]
            if leaving:
                self._revoke(sorted(leaving))
            if any(each not in me.target for each in me.owned):
                member.release(me.target)
            elif state.available(member.name):
                member.acquire()
            else:
                self._open([each for each in me.owned if each not in self._ids.values()])
                self._is_waiting = len(self._ids) < len(me.owned)
                self._known_version = state.version
                return

    def _revoke(self, places: list[TopicPartition]) -> None:
        if self.options.on_revoked is not None:
            self.options.on_revoked(places)
        if self.auto_commit:
            self._commit_silently()
        self._drop(places)

    def _open(self, partitions: Sequence[PartitionId]) -> None:
        """Read owned partitions, each from where the group is; those that can be by now."""
        if not partitions:
            return
        opened = []
        for each, committed in self._member.committed(partitions).items():
            place = self._place_of(each)
            self._generations[place.topic] = each.generation
            start = self._start(place, committed, each)
            reader = self._reader(place, start)
            self._rows_end[place] = start
            if start != committed and self.options.start == "end":
                # Else whoever gets it next would begin at an end that has moved since.
                self._member.commit({each: start})
            if start == committed or self.options.start == "end":
                self._committed[place] = start
            self._readers[place] = reader
            self._ids[place] = each
            opened.append(place)
        if opened and self.options.on_assigned is not None:
            self.options.on_assigned(sorted(opened))

    def _start(
        self, place: TopicPartition, committed: int | None, partition_id: PartitionId
    ) -> int:
        """Return where to begin; raises where there is no such place and none is to be chosen."""
        topic = self._topics[place.topic]
        partition = topic.partition(place.partition, partition_id.generation)
        first, end = partition.first_offset, partition.durable_end
        if committed is not None and first <= committed <= end:
            return committed
        if committed is None and self._member.has_begun_before(partition_id):
            return first  # it has read the generation before to its seam
        if self.options.start == "error":
            where = f"group {self.group!r} in partition {place.partition} of {place.topic!r}"
            if committed is None:
                message = (
                    f"{where} has committed no offset; give one with `millstream groups reset`, "
                    "or let the consumer start at 'beginning' or 'end'"
                )
                raise NoCommittedOffsetError(message)
            message = (
                f"{where} has committed offset {committed}; there are {first} to {end}: rows "
                "before were removed, rows beyond lost. Give another one with `millstream groups "
                "reset`, or let the consumer start at 'beginning' or 'end'"
            )
            raise OffsetOutOfRangeError(message)
        start = first if self.options.start == "beginning" else self._stable_end(place)
        if committed is not None:
            self.resets[place] = (committed, start)
        return start

    def _commit_silently(self) -> None:
        """Commit positions; who is not allowed to any more finds out by the group's state."""
        self._commit_at_us = (
            self._clock.monotonic_us() + self.options.auto_commit_interval_ms * 1_000
        )
        with suppress(FencedMemberError):
            self.commit()

    def _drop(self, places: Sequence[TopicPartition]) -> None:
        for place in places:
            self._readers.pop(place, None)
            self._ids.pop(place, None)
            self._committed.pop(place, None)
            self._rows_end.pop(place, None)
            self._paused.discard(place)
            if place in self._polled:
                self._polled.remove(place)
                self._given_up.add(place)

    def _offsets(self, offsets: Positions | None) -> dict[TopicPartition, int]:
        if offsets is None:
            return self.positions
        chosen = {self._place(partition): offset for partition, offset in offsets.items()}
        for place, offset in chosen.items():
            if offset < 0:
                message = f"an offset to commit is 0 or more; got {offset} for {tuple(place)}"
                raise OptionError(message)
        return chosen

    def _place_of(self, partition: PartitionId) -> TopicPartition:
        for name, topic in self._topics.items():
            if topic.config.id == partition.topic_id:
                return TopicPartition(name, partition.partition)
        for name in self._topics:
            topic = self._find_topic(name)  # created anew under its name
            if topic.config.id == partition.topic_id:
                self._topics[name] = topic
                return TopicPartition(name, partition.partition)
        message = f"topic {partition.topic_id} of group {self.group!r} is gone; open the log anew"
        raise UnknownTopicError(message)
