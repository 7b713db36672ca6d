"""Files and folders in memory, and what a power cut leaves of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from millstream.storage import Bytes

SECTOR_BYTES = 512
CHANGES_MAX = 4096
"""Unsynced writes of mapped files that are remembered; earlier ones count as written back."""

CELLS_LOST = 0.2
"""How often a power cut takes a mapped file away as a whole."""

_CAPACITY_MIN = 4096


class Chooser(Protocol):
    """What decides where a disk has a choice; `random.Random` is one."""

    def random(self) -> float:
        """Return a number from 0 up to, not including, 1."""
        ...

    def randrange(self, start: int, stop: int, /) -> int:
        """Return a number from `start` up to, not including, `stop`."""
        ...


@dataclass(slots=True)
class _Change:
    """An unsynced change of a file: `added` bytes at `position`, in place of `removed`."""

    position: int
    removed: bytes
    added: int
    size_before: int
    size_after: int


class FileContent:
    """A file's bytes as processes see them, and how to get back to what is durable.

    Attributes
    ----------
    content
        The bytes, in an array with room to grow. Maps look into it: as in a real mapping,
        what is written behind a map's end costs no copy.
    size
        How many bytes of `content` there are.
    version
        Grows with each write.
    mapped
        Whether these are shared cells, which nobody ever syncs.
    failed_syncs
        How often a sync of it failed. As in Linux, each open file is told once.
    holder
        The process that holds the lock of this file; `None`: it is free.
    wakes
        How often those who wait for a word of these cells were woken, by its position.
    """

    def __init__(self) -> None:
        self.content = bytearray()
        self.size = 0
        self.version = 0
        self.mapped = False
        self.failed_syncs = 0
        self.holder: str | None = None
        self.wakes: dict[int, int] = {}
        self._changes: list[_Change] = []
        self._dropped: list[tuple[int, int]] = []

    def read(self) -> bytes:
        """Return a copy of all bytes."""
        return bytes(memoryview(self.content)[: self.size])

    def write(self, position: int, added: Bytes) -> None:
        """Store `added` at `position`, which is at most the size."""
        end = position + len(added)
        if end > len(self.content):
            grown = bytearray(max(2 * len(self.content), end, _CAPACITY_MIN))
            grown[: self.size] = memoryview(self.content)[: self.size]
            self.content = grown
        after = max(self.size, end)
        removed = bytes(memoryview(self.content)[position : min(end, self.size)])
        if self._dropped:
            removed = self._written_anew(position, removed)
        self.content[position:end] = added
        self.version += 1
        self._note(_Change(position, removed, end - position, self.size, after))

    def _written_anew(self, position: int, removed: bytes) -> bytes:
        """Make what was dropped dirty again; return what is on the disk in place of `removed`."""
        before = bytearray(removed)
        end = position + len(before)
        for start, stop in self._dropped:
            lost_start, lost_stop = max(start, position), min(stop, end)
            if lost_start < lost_stop:
                before[lost_start - position : lost_stop - position] = bytes(lost_stop - lost_start)
        rests = [(s, min(e, position)) for s, e in self._dropped]
        rests += [(max(s, end), e) for s, e in self._dropped]
        self._dropped = [(start, stop) for start, stop in rests if start < stop]
        return bytes(before)

    def truncate(self, size: int) -> None:
        """Cut the file to `size`, or extend it by zeros."""
        if size > self.size:
            self.write(self.size, bytes(size - self.size))
        elif size < self.size:
            removed = bytes(memoryview(self.content)[size : self.size])
            self._note(_Change(size, removed, 0, self.size, size))
            self._dropped = [
                (start, min(end, size)) for start, end in self._dropped if start < size
            ]

    def grow(self, size: int) -> None:
        """Extend the file by zeros, durably, where it is shorter: mappings lie on no such file."""
        if size <= self.size:
            return
        self.content = self.content[: self.size].ljust(size, b"\0")
        self.size = size

    def _note(self, change: _Change) -> None:
        self.size = change.size_after
        self._changes.append(change)
        if self.mapped and len(self._changes) > CHANGES_MAX:
            del self._changes[: CHANGES_MAX // 2]

    def sync(self) -> None:
        """Make all bytes durable."""
        self._changes.clear()

    def drop_dirty(self) -> None:
        """Fail to write back: what was dirty counts as clean and is on no disk."""
        self.failed_syncs += 1
        for change in self._changes:
            if change.added and change.position < self.size:
                end = min(change.position + change.added, self.size)
                self._dropped.append((change.position, end))
        self._changes.clear()

    def power_cut(self, chooser: Chooser) -> None:
        """Keep what was synced, and of the rest what the chooser leaves."""
        if not self._changes and not self._dropped:
            return
        # In an array of their own: what a dead process has mapped stays as it saw it.
        image = bytearray(memoryview(self.content)[: self.size])
        additions = _undo(image, self._changes)
        for start, end in self._dropped:
            kept = max(min(end, len(image)) - start, 0)
            image[start : start + kept] = bytes(kept)
        changes, self._changes, self._dropped = self._changes, [], []
        if changes:
            image = _survivors(image, changes, additions, chooser, self.mapped)
        self.content, self.size = image, len(image)


def _undo(image: bytearray, changes: Sequence[_Change]) -> list[bytes]:
    """Take `changes` back in `image`, and return what each of them had added."""
    additions = []
    for change in reversed(changes):
        additions.append(bytes(image[change.position : change.position + change.added]))
        image[change.position : change.position + len(change.removed)] = change.removed
        del image[change.size_before :]
    additions.reverse()
    return additions


def _survivors(
    image: bytearray,
    changes: Sequence[_Change],
    additions: Sequence[bytes],
    chooser: Chooser,
    mapped: bool,
) -> bytearray:
    """Return what a power cut leaves of `changes` made to the durable `image`.

    The size is as of some moment, perhaps inside the last write. The sectors are either all
    of that moment, or each of a moment of its own; the last one of a write may be garbled.
    """
    count = len(changes)
    low = min(change.position for change in changes)
    moment = chooser.randrange(0, count + 1)
    size = changes[moment - 1].size_after if moment else changes[0].size_before
    torn = chooser.random() < 0.5
    if torn and moment < count and changes[moment].size_after > size:
        size = chooser.randrange(size, changes[moment].size_after + 1)
        moment += 1
    highest = max(len(image), *(change.size_after for change in changes))
    scattered = chooser.random() < 0.5
    # What lies before the first change, and behind the last one of a file of one size, is as ever.
    top = highest
    if all(change.size_before == change.size_after for change in changes):
        top = max(change.position + change.added for change in changes)
    ranges: dict[int, list[tuple[int, int]]] = {}
    if scattered:
        for sector in range(low // SECTOR_BYTES, -(-highest // SECTOR_BYTES)):
            place = max(sector * SECTOR_BYTES, low), min((sector + 1) * SECTOR_BYTES, top)
            ranges.setdefault(chooser.randrange(0, count + 1), []).append(place)
    else:
        ranges[moment] = [(low, top)]
    result = bytearray(highest)
    result[: len(image)] = image
    for now in range(max(ranges, default=0) + 1):
        if now:
            change, added = changes[now - 1], additions[now - 1]
            image[change.position : change.position + change.added] = added
            del image[change.size_after :]
        for start, end in ranges.get(now, ()):
            if start < end:
                result[start:end] = bytes(image[start:end]).ljust(end - start, b"\0")
    del result[size:]
    change = changes[chooser.randrange(0, count)]
    end = min(change.position + change.added, size)
    if not mapped and end > low and chooser.random() < 0.25:
        start = chooser.randrange(max(low, (end - 1) // SECTOR_BYTES * SECTOR_BYTES), end)
        result[start:end] = bytes(chooser.randrange(0, 256) for _ in range(start, end))
    return result


class Folder:
    """A folder: names, what they stand for, and what they stood for when it was synced."""

    def __init__(self) -> None:
        self.entries: dict[str, Node] = {}
        """Files and folders by name; changed by `put` only."""
        self._before: dict[str, list[Node | None]] = {}

    def put(self, name: str, node: Node | None) -> None:
        """Let `name` stand for `node`, or for nothing, as long as the power is on."""
        self._before.setdefault(name, []).append(self.entries.get(name))
        if node is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = node

    def sync(self) -> None:
        """Make all names durable."""
        self._before.clear()

    def power_cut(self, chooser: Chooser, seen: set[int]) -> None:
        """Let each unsynced name stand for anything that it stood for since the last sync."""
        for name, before in self._before.items():
            states = [*before, self.entries.get(name)]
            node = states[chooser.randrange(0, len(states))]
            self.entries.pop(name, None)
            if node is not None:
                self.entries[name] = node
        self._before.clear()
        for name, node in list(self.entries.items()):
            if id(node) in seen:
                continue  # a rename survived with the old name, or without
            seen.add(id(node))
            if isinstance(node, Folder):
                node.power_cut(chooser, seen)
                continue
            node.holder = None
            node.power_cut(chooser)
            if node.mapped and chooser.random() < CELLS_LOST:
                del self.entries[name]


Node: TypeAlias = FileContent | Folder
