"""One life of a member of a group: it joins, is heard, watches its neighbour, owns, commits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress

from millstream.clock import Clock
from millstream.errors import FencedError, FencedMemberError, LogError, TransactionError
from millstream.log.groups import membership
from millstream.log.groups.folder import GroupFolder
from millstream.log.groups.membership import GroupState, Member
from millstream.log.groups.offsets import CommittedOffsets, Committer, Undecided
from millstream.log.groups.partition_id import Catalog, PartitionId
from millstream.log.groups.seams import has_begun_before
from millstream.log.transactions import Transactions, Writer

WATCH_INTERVAL_US = 100_000
"""How often a member looks whether its neighbour lives: as long is a death unnoticed."""

CATALOG_INTERVAL_US = 1_000_000
"""How often a member looks whether its topics are still what they were."""

NOT_IN = (
    "it was expelled, or another life of it began, or it has not polled yet: it was silent for too "
    "long, or its name is used twice"
)


class GroupMember:
    """A life that begins with `join`. One thread uses it.

    Parameters
    ----------
    folder
        The group's.
    open_offsets
        Returns the committed offsets of a state of the group.
    clock, transactions
        Of the log.
    catalog
        Returns those of the named topics that exist.
    name
        Of a static member; `None`: it gets a name for this life.
    topics
        Names of what it subscribes to.
    session_timeout_us
        After so long without `beat` others expel it.
    """

    def __init__(
        self,
        folder: GroupFolder,
        open_offsets: Callable[[GroupState], CommittedOffsets],
        clock: Clock,
        transactions: Transactions,
        catalog: Callable[[Collection[str]], Catalog],
        name: str | None,
        topics: tuple[str, ...],
        session_timeout_us: int,
    ) -> None:
        self._folder = folder
        self._open_offsets = open_offsets
        self._clock = clock
        self._transactions = transactions
        self._catalog = catalog
        self._static = name is not None
        self._topics = topics
        self._session_timeout_us = session_timeout_us
        self.name = name or ""
        self.epoch = 0
        """0: it is in no group."""
        self._life = ExitStack()
        self._slot = 0
        self._offsets: CommittedOffsets | None = None
        self._settled: set[PartitionId] = set()
        self._watch_at_us = 0
        self._catalog_at_us = 0
        self._known_topics: Catalog = {}

    def __del__(self) -> None:
        # Whoever is dropped without `leave`, e.g. in a notebook, must not seem to live on.
        life = getattr(self, "_life", None)
        if life is not None:
            with suppress(ValueError):  # at the very end the lock's file may be closed already
                life.close()

    def join(self) -> None:
        """Begin a life: fence an older one of the same name, and expel who is gone.

        Raises
        ------
        LogError
            Where the group is full, or the disk refused.
        """
        self.forget()
        with self._folder.exclusive() as found:
            state = self._folder.begin() if found is None else found
            gone = self._gone(state)
            epoch = self._folder.next_version()
            name = self.name if self._static else f"member:{epoch}"
            slot = membership.free_slot(state)
            if slot is None:
                message = f"group {self._folder.name!r} has {len(state.members)} members; no more"
                raise LogError(message)
            member = Member(epoch, self._static, self._topics, self._session_timeout_us, slot)
            with ExitStack() as life:
                life.enter_context(self._folder.life(epoch))
                self._folder.beat(slot)
                rest = membership.leave(state, gone - {name}, self._catalog_of(state))
                state = membership.join(rest, name, member, self._catalog_of(state))
                state = self._folder.write(state)
                self._life = life.pop_all()
            self.name, self.epoch, self._slot = name, epoch, slot
            self._folder.tidy(state)
        now_us = self._clock.monotonic_us()
        self._watch_at_us = now_us + WATCH_INTERVAL_US
        self._catalog_at_us = now_us + CATALOG_INTERVAL_US
        self._known_topics = self._catalog(self._topics)

    def leave(self) -> None:
        """End this life.

        A dynamic member's partitions are free at once, a static one's when its time is out,
        unless it has come back by then.
        """
        if self.epoch and not self._static:
            with self._folder.exclusive() as state:
                me = None if state is None else state.members.get(self.name)
                if state is not None and me is not None and me.epoch == self.epoch:
                    catalog = self._catalog_of(state)
                    rest = membership.leave(state, [self.name], catalog)
                    self._folder.tidy(self._folder.write(rest))
        self.forget()

    def forget(self) -> None:
        """Be in no group any more; the group finds out by itself."""
        self._life.close()
        self.epoch = 0
        self._settled.clear()
        self._offsets = None

    def has_begun_before(self, partition: PartitionId) -> bool:
        """Return `True` iff the group has committed in an earlier generation of its topic."""
        return has_begun_before(partition, self._committed_offsets().committed())

    def at_seam(self) -> None:
        """Look with the next beat whether the group can go on in a topic's next generation."""
        self._catalog_at_us = self._clock.monotonic_us()

    def beat(self) -> None:
        """Be heard, and now and then look after the others: costs two accesses to memory."""
        self._folder.beat(self._slot)
        now_us = self._clock.monotonic_us()
        if now_us >= self._watch_at_us:
            self._watch_at_us = now_us + WATCH_INTERVAL_US
            self._watch()
        if now_us >= self._catalog_at_us:
            self._catalog_at_us = now_us + CATALOG_INTERVAL_US
            self._look_at_topics()

    def state(self) -> GroupState | None:
        """Return the group's state, if this life is a part of it."""
        state = self._folder.state() if self.epoch else None
        me = None if state is None else state.members.get(self.name)
        return state if me is not None and me.epoch == self.epoch else None

    def is_replaced(self) -> bool:
        """Return `True` iff another life has this one's name."""
        state = self._folder.state()
        me = None if state is None else state.members.get(self.name)
        return me is not None and me.epoch > self.epoch

    def release(self, kept: Collection[PartitionId]) -> None:
        """Own, of what is owned, only `kept` any longer; commit before."""
        self._settled.intersection_update(kept)
        with self._folder.exclusive() as state:
            if state is not None and self._is_in(state):
                self._folder.write(membership.release(state, self.name, kept))

    def acquire(self) -> None:
        """Own what is to be owned and nobody else owns."""
        with self._folder.exclusive() as state:
            if state is not None and self._is_in(state) and state.available(self.name):
                self._folder.write(membership.acquire(state, self.name))

    def committed(self, partitions: Collection[PartitionId]) -> dict[PartitionId, int | None]:
        """Return the committed offsets of owned partitions, from which to go on.

        Those are missing that a transaction has offsets of that is still to be decided. Where its
        member is gone, an open one is aborted here; a prepared one waits for who decides it.

        Raises
        ------
        FencedMemberError
            Where one of them is not owned any more.
        """
        offsets = self._committed_offsets()
        if not self._settled.issuperset(partitions):
            # Who owned them before may be inside a commit that was still allowed.
            offsets.settle(lambda: self._check(partitions))
            self._settled.update(partitions)
        offsets.refresh()
        undecided = offsets.undecided(partitions)
        if undecided:
            for each in undecided:
                self._abort_if_gone(each)
            offsets.refresh()
            undecided = offsets.undecided(partitions)
        held_back = {partition for each in undecided for partition in each.offsets}
        found = offsets.committed()
        return {
            each: found[each].offset if each in found else None
            for each in partitions
            if each not in held_back
        }

    def commit(
        self,
        offsets: Mapping[PartitionId, int],
        writer: Writer | None = None,
        transaction: int = 0,
    ) -> None:
        """Commit offsets of owned partitions, durably, or as a part of a transaction.

        Raises
        ------
        FencedMemberError
            Where one of them is not owned, or not any more; none was committed.
        """
        by = Committer(self.name, self.epoch)
        self._committed_offsets().commit(
            offsets, by, lambda: self._check(offsets), writer, transaction
        )

    def _committed_offsets(self) -> CommittedOffsets:
        if self._offsets is None:
            state = self.state()
            if state is None:
                raise FencedMemberError(self._fenced(NOT_IN))
            self._offsets = self._open_offsets(state)
        return self._offsets

    def _check(self, partitions: Collection[PartitionId]) -> None:
        """Raise `FencedMemberError` unless this life owns all of `partitions`, as of now."""
        state = self.state()
        if state is None:
            raise FencedMemberError(self._fenced(NOT_IN))
        owned = state.members[self.name].owned
        for each in partitions:
            if each not in owned:
                owner = state.owner(each)
                place = f"partition {each.partition} of topic {self._topic_name(each)!r}"
                whose = "nobody does now" if owner is None else f"{owner!r} does"
                raise FencedMemberError(self._fenced(f"it does not own {place}; {whose}"))

    def _topic_name(self, partition: PartitionId) -> str:
        for name, shape in self._known_topics.items():
            if shape.topic_id == partition.topic_id:
                return name
        return partition.topic_id

    def _fenced(self, reason: str) -> str:
        return (
            f"member {self.name!r} of group {self._folder.name!r} cannot commit: {reason}. What it "
            "did not commit is processed again by who owns the partition"
        )

    def _is_in(self, state: GroupState) -> bool:
        me = state.members.get(self.name)
        return me is not None and me.epoch == self.epoch

    def _watch(self) -> None:
        """Expel who is gone, if the neighbour is, or one of those that are waited for.

        Everybody watches the next one by name that lives, so that any one who is left finds all
        who died, and looking costs the same in a group of any size.
        """
        state = self.state()
        if state is None:
            return
        names = sorted(state.members)
        after = names.index(self.name) + 1
        wanted = set(state.members[self.name].target)
        for name in names[after:] + names[: after - 1]:
            member = state.members[name]
            if self._folder.is_gone(member):
                self._expel()
                return
            if self._folder.is_alive(member):
                break
        for member in state.members.values():
            waited_for = member.epoch != self.epoch and wanted.intersection(member.owned)
            if waited_for and self._folder.is_gone(member):
                self._expel()
                return

    def _expel(self) -> None:
        """Take those who are gone out of the group."""
        with self._folder.exclusive() as state:
            if state is None or not self._is_in(state):
                return
            gone = self._gone(state) - {self.name}
            if gone:
                rest = membership.leave(state, gone, self._catalog_of(state))
                self._folder.tidy(self._folder.write(rest))

    def _gone(self, state: GroupState) -> set[str]:
        members = state.members.items()
        return {name for name, member in members if self._folder.is_gone(member)}

    def _look_at_topics(self) -> None:
        """Share partitions out anew where topics came, went or have other partitions."""
        topics = self._catalog(self._topics)
        if topics != self._known_topics:
            self._known_topics = topics
            with self._folder.exclusive() as state:
                if state is not None and self._is_in(state):
                    changed = membership.rebalance(state, self._catalog_of(state))
                    if changed != state:
                        self._folder.write(changed)

    def _catalog_of(self, state: GroupState) -> Catalog:
        names = {name for member in state.members.values() for name in member.topics}
        return self._catalog(names | set(self._topics))

    def _abort_if_gone(self, transaction: Undecided) -> None:
        """Abort an open transaction of a life that cannot go on with it."""
        state = self._folder.state()
        for committed in transaction.offsets.values():
            if committed.by.member is None:
                return  # of no member: nobody here can tell whether it goes on
            member = None if state is None else state.members.get(committed.by.member)
            if member is not None and member.epoch == committed.by.epoch:
                return
        name = (transaction.owner_id, transaction.epoch, transaction.number)
        if any(
            (each.writer.owner_id, each.writer.epoch, each.number) == name
            for each in self._transactions.prepared()
        ):
            return
        owner = self._transactions.owner(transaction.owner_id)
        writer = Writer(owner, transaction.owner_id, transaction.epoch)
        # Decided meanwhile, by whomever: then that holds.
        with suppress(FencedError, TransactionError):
            self._transactions.decide(writer, transaction.number, "abort")
