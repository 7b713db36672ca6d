"""What anybody may have read of a simulated log: every row that ever became readable, in order.

An onlooker reads each partition before every effect of every process, so no row can come and go
unnoticed. It reads only: what is to be recovered, others recover.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.errors import OffsetOutOfRangeError
from millstream.log.columns import OPERATION_FIELD
from millstream.log.cursor import FrameCursor
from millstream.log.frame import Frame
from millstream.log.partition import Partition
from millstream.log.settings import LiveSettings, TopicSettings
from millstream.log.tier.cache import SegmentCache
from millstream.storage_memory import MemoryDisk
from millstream.storage_memory.contents import FileContent

Place = tuple[str, int]
TransactionKey = tuple[int, int, int]
"""Owner id, epoch and number."""

SCHEMA = pa.schema([("id", pa.int64()), ("key", pa.int8()), ("pad", pa.string())])
DIRECTORIES: dict[Place, str] = {
    ("a", 0): "/log/topics/00000001/0/0",
    ("a", 1): "/log/topics/00000001/0/1",
    ("b", 0): "/log/topics/00000002/0/0",
    ("os", 0): "/log/topics/00000003/0/0",
    ("t", 0): "/log/topics/00000004/0/0",
}
PLACES = tuple(DIRECTORIES)

_NAMES = {place: f"{path}/control".split("/")[1:] for place, path in DIRECTORIES.items()}

_BOOT = slice(8, 56)
_CONTROL_BYTES = 328
_SYNC_FAILED = slice(320, 328)


@dataclass(eq=False, slots=True)
class Sent:
    """Rows of one append, and what its process knows of them.

    Attributes
    ----------
    place
        Topic and partition.
    ids
        One after another; of each row.
    keys
        Of each row.
    life
        Of the process, rising: rows of one life are in the order in which it appended them.
    values
        What else is in the rows, by column: made of the id, so that a mix-up shows.
    deletes
        The rows are tombstones.
    known
        They were acknowledged: they stay.
    """

    place: Place
    ids: list[int]
    keys: list[int]
    life: int
    pad: str
    values: dict[str, Callable[[int], object]] = field(default_factory=dict)
    deletes: bool = False
    known: bool = False

    def row(self, index: int) -> dict[str, object]:
        """Return what a row must be; columns that are missing here are null."""
        number = self.ids[index]
        row: dict[str, object] = {"key": self.keys[index]}
        if not self.deletes:
            row |= {"id": number, "pad": self.pad}
        return row | {name: value(number) for name, value in self.values.items()}


@dataclass(eq=False)
class History:
    """What one reader got of a place, from `start` on: (offset, id) of each row."""

    place: Place
    start: int
    position: int
    rows: list[tuple[int, int]] = field(default_factory=list)


class JournalRow(NamedTuple):
    """A row that was readable."""

    id: int
    key: int
    deletes: bool
    transaction: TransactionKey | None


def id_of(row: dict[str, Any]) -> int:
    """Return the id of a row that was read; that of a tombstone stands in its headers."""
    if row.get("id") is not None:
        return int(row["id"])
    return int(row["_headers"][0]["value"])


class Onlooker:
    """Keeps the journal of a disk.

    Parameters
    ----------
    disk, clock
        Of the simulation.
    sent
        All that was sent, by the id of each row.
    """

    def __init__(self, disk: MemoryDisk, clock: ManualClock, sent: dict[int, Sent]) -> None:
        self._disk = disk
        self._clock = clock
        self._sent = sent
        self.rows: dict[Place, list[JournalRow]] = {place: [] for place in PLACES}
        """By offset; of `os` what no power cut has taken back."""
        self.restart()

    def restart(self) -> None:
        """Open everything anew, for the power was cut."""
        self._storage = self._disk.storage("onlooker")
        self._boot = self._disk.boot_id.encode().ljust(48, b"\0")
        self._controls: dict[Place, FileContent] = {}
        self._versions: dict[Place, int] = {}
        self._cursors: dict[Place, FrameCursor] = {}
        self._ends: dict[Place, int] = defaultdict(int)

    def look(self) -> None:
        """Read what came since the last time."""
        for place in PLACES:
            control = self._controls.get(place) or self._find(place)
            if control is None or control.version == self._versions.get(place):
                continue
            cursor = self._cursors.get(place)
            if cursor is None:
                # Who opens a partition that needs a recovery would do it.
                content = control.content
                if content[_BOOT] != self._boot or any(content[_SYNC_FAILED]):
                    continue
                cursor = self._cursors[place] = self._open(place)
            self._versions[place] = control.version
            while (frame := cursor.next()) is not None:
                self._note(place, frame)

    def _find(self, place: Place) -> FileContent | None:
        node: Any = self._disk.root
        try:
            for name in _NAMES[place]:
                node = node.entries[name]
        except KeyError:
            return None
        if node.size < _CONTROL_BYTES:
            return None
        self._controls[place] = node
        found: FileContent = node
        return found

    def _open(self, place: Place) -> FrameCursor:
        """Return a cursor behind what was seen: that is still there, whatever happened."""
        is_table = place[0] == "t"
        partition = Partition(
            DIRECTORIES[place],
            SCHEMA.append(OPERATION_FIELD) if is_table else SCHEMA,
            storage=self._storage,
            clock=self._clock,
            durability="os" if place[0] == "os" else "fsync",
            settings=LiveSettings(TopicSettings()),
            name=f"{place[0]}/{place[1]}",
            cache=SegmentCache(self._storage, "/log", lambda: 2**30),
        )
        rows = self.rows[place]
        if place[0] == "os":
            rows.clear()  # other rows, of an append that nobody was told of, may be there now
        try:
            return partition.frames(len(rows))
        except OffsetOutOfRangeError as error:
            message = f"rows of {place} were readable to {len(rows)} and are gone: {error}"
            raise AssertionError(message) from error

    def _note(self, place: Place, frame: Frame) -> None:
        header, rows = frame.header, self.rows[place]
        if header.row_count == 0:
            return
        assert header.base_offset == len(rows), f"{place}: {header} does not follow {len(rows)}"
        assert not header.is_compacted, f"{place}: {header} was never seen before"
        key = (header.owner_id, header.epoch, header.transaction) if header.transaction else None
        found = frame.batch().to_pylist()
        for row in found:
            sent = self._sent[id_of(row)]
            check_row(row, place, sent)
            rows.append(JournalRow(id_of(row), row["key"], sent.deletes, key))
        assert [row.id for row in rows[-len(found) :]] == sent.ids, f"{sent} is there in part"


def check_row(row: dict[str, Any], place: Place, sent: Sent) -> None:
    """Raise `AssertionError` unless a row is as it was sent, as far as it was read."""
    expected = sent.row(sent.ids.index(id_of(row))) | {"_op": int(sent.deletes)}
    for name, value in row.items():
        if name not in {"_offset", "_timestamp"} or name in sent.values:
            assert value == expected.get(name), f"{name} of {row} in {place}; {sent}"
    assert sent.place == place, f"{row} is in {place}; {sent}"
