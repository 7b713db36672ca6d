"""The folder of a group: its state, who may change it, and who of its members is alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import msgspec

from millstream.clock import Clock
from millstream.errors import LockTimeoutError, LogError
from millstream.log.bells import Bells, bell_of_group
from millstream.log.checked_json import decode_checked, encode_checked
from millstream.log.groups.cells import GroupCells
from millstream.log.groups.membership import FORMAT_VERSION, GroupState, Member
from millstream.storage import Storage


def groups_directory(path: str) -> str:
    """Return the folder of all groups of the log in `path`."""
    return f"{path}/groups"


class GroupFolder:
    """The folder of the group `name`; nothing is there before somebody enters `exclusive`.

    Parameters
    ----------
    path
        The log's folder.
    storage, clock
        Of the log.
    refuse
        Raises where nothing may be changed; called before each change.
    """

    def __init__(
        self,
        path: str,
        name: str,
        storage: Storage,
        clock: Clock,
        refuse: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.refuse = refuse
        self._path = path
        self.directory = f"{groups_directory(path)}/{name}"
        self._storage = storage
        self._clock = clock
        self._opened: GroupCells | None = None
        self._state: GroupState | None = None
        self._changed = False

    def state(self) -> GroupState | None:
        """Return the newest state; `None`: there is no such group. Mostly one read of memory."""
        known = self._state
        if known is None or known.version != self._cells().version:
            self._state = known = self.read()
        return known

    def read(self) -> GroupState | None:
        """Return the state as it is on disk; `None`: there is no such group.

        Raises
        ------
        LogError
            Where the file cannot be understood.
        """
        path = f"{self.directory}/state.json"
        try:
            content = self._storage.read_file(path)
        except FileNotFoundError:
            return None
        try:
            state = decode_checked(content, GroupState)
        except msgspec.DecodeError as error:
            message = f"{path} is damaged or of a newer version: {error}; restore it from a copy"
            raise LogError(message) from error
        if state.format > FORMAT_VERSION:
            message = f"{path} is of format {state.format}; update Millstream to read it"
            raise LogError(message)
        return state

    @contextmanager
    def exclusive(self) -> Iterator[GroupState | None]:
        """Hold the right to change the group; gives its state, or `None`: there is none yet.

        Raises
        ------
        LockTimeoutError
            When another process does not let go of it.
        LogError
            When the disk refused.
        """
        self.refuse()
        try:
            self._storage.make_directory(f"{self.directory}/members")
            with self._storage.lock(f"{self.directory}/group.lock"):
                state = self.read()
                cells = self._cells()
                version = 0 if state is None else state.version
                if not cells.is_of_this_boot():
                    cells.begin(version, self._clock.monotonic_us())
                elif cells.version < version:
                    cells.version = version  # who wrote the state died before it said so
                    self._changed = True
                try:
                    yield state
                finally:
                    changed, self._changed = self._changed, False
            if changed:
                Bells(self._path, self._storage, self._clock).ring(bell_of_group(self.name))
        except OSError as error:
            message = f"group {self.name!r} in {self.directory}: the disk refused: {error}"
            raise LogError(message) from error

    def next_version(self) -> int:
        """Return the version that the next state will have; only inside `exclusive`."""
        return self._cells().version + 1

    def write(self, state: GroupState) -> GroupState:
        """Make `state` the group's, with the next version; only inside `exclusive`.

        First the file, which counts, then the cell, which tells: who acts on a state that was
        overtaken does so before the cell has changed.
        """
        state = msgspec.structs.replace(state, version=self.next_version())
        self._storage.write_file(f"{self.directory}/state.json", encode_checked(state))
        self._cells().version = state.version
        self._state = state
        self._changed = True
        return state

    def begin(self) -> GroupState:
        """Return the first state of a group; only inside `exclusive`, and not yet written."""
        # What a crash left of a group of that name that was deleted.
        self._storage.remove(f"{self.directory}/offsets")
        version = self.next_version()
        self._storage.make_directory(f"{self.directory}/offsets/{version}")
        return GroupState(version=version, offsets=version)

    def remove(self) -> None:
        """Remove the group; only inside `exclusive`. Its lock and its cells stay."""
        self._storage.remove(f"{self.directory}/state.json")
        self._cells().version = self.next_version()
        self._changed = True
        for name in ("offsets", "members"):
            self._storage.remove(f"{self.directory}/{name}")
        self._state = None

    def life(self, epoch: int) -> AbstractContextManager[bool]:
        """Hold the lock that says that the life `epoch` of a member goes on."""
        return self._storage.lock(self._life_path(epoch))

    def is_alive(self, member: Member) -> bool:
        """Return `True` iff the process of a member holds its lock; it may be stopped."""
        path = self._life_path(member.epoch)
        if not self._storage.exists(path):  # to ask for the lock would create it
            return False
        try:
            with self._storage.lock(path, timeout_us=0):
                free = True
        except LockTimeoutError:
            free = False
        return not free

    def process(self, member: Member) -> int | None:
        """Return the process id of a living member, as it wrote it down; `None`: unknown."""
        try:
            content = self._storage.read_file(self._life_path(member.epoch))
        except FileNotFoundError:
            return None
        number = content.partition(b"\n")[0].strip()
        return int(number) if number.isdigit() else None

    def tidy(self, state: GroupState) -> None:
        """Remove the locks of lives that are in no member any more; only inside `exclusive`."""
        kept = {self._life_path(member.epoch) for member in state.members.values()}
        folder = f"{self.directory}/members"
        paths = {f"{folder}/{name}" for name in self._storage.list_directory(folder)}
        with suppress(OSError):  # the next one does it
            for path in sorted(paths - kept):
                self._storage.remove(path)

    def beat(self, slot: int) -> None:
        """Say that the member in `slot` is alive."""
        self._cells().beat(slot, self._clock.monotonic_us())

    def silence_us(self, member: Member) -> int:
        """Return for how long a member was not heard."""
        return self._clock.monotonic_us() - self._cells().last_beat_us(member.slot)

    def is_gone(self, member: Member) -> bool:
        """Return `True` iff a member is to be expelled: it is dead, or was silent for too long.

        A static one that died may come back until its time is out.
        """
        if self.silence_us(member) > member.session_timeout_us:
            return True
        return not member.static and not self.is_alive(member)

    def _cells(self) -> GroupCells:
        if self._opened is None:
            self._opened = GroupCells(self.directory, self._storage)
        return self._opened

    def _life_path(self, epoch: int) -> str:
        return f"{self.directory}/members/{epoch}.lock"
