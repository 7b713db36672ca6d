"""A partition's control file: how far it is written and how far it is durable, in this boot.

Every process that uses the partition has the file mapped (FORMAT.md, "Control file"). An end
lies in two slots that are written in turn, each with its checksum: whoever reads always finds
one whole, even if a writer died inside the other.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from crc32c import crc32c

from millstream.storage import SharedCells, Storage

VERSION = 1
SIZE = 4096
FILE_NAME = "control"

_BOOT = struct.Struct("<4sI48s")
_SLOT = struct.Struct("<qqqq")
_CRC = struct.Struct("<I")
_SLOT_SIZE = _SLOT.size + _CRC.size
_MAGIC = b"MSct"
_WRITTEN = (64, 128)
_DURABLE = (192, 256)
_SLOTS_SIZE = 64 + _SLOT_SIZE  # from the first slot of an end to behind its second
_SYNC_FAILED = 320
_SYNC_UNDER_WAY = 328
_LOSSES = 336
_SETTLED = 344
_SEQUENCED = 352
_APPEND_UNDER_WAY = 360
_SETTLED_CHECK = 368
_CLOSED = 384
_BOOT_LOSSES_BITS = 24
_SET = -1  # all bits of a word: one that flips does not unset it
_READS_MAX = 1000  # a reader that is overtaken twice within one read tries again


class LogEnd(NamedTuple):
    """A place behind the last row: in the partition, and in the files.

    Attributes
    ----------
    segment_base
        Base offset of the segment.
    position
        Bytes of that segment; 0 where its head is still to be written.
    offset
        Of the next row.
    """

    segment_base: int
    position: int
    offset: int


class _Slot(NamedTuple):
    """The newest slot of an end, and the bytes of both slots when it was looked at."""

    content: bytes
    generation: int
    position: int
    end: LogEnd


class ControlFile:
    """The mapped control file of the partition in `directory`, created where it is missing."""

    def __init__(self, storage: Storage, directory: str) -> None:
        self._cells: SharedCells = storage.shared_cells(f"{directory}/{FILE_NAME}", SIZE)
        self._boot = _boot_record(storage.boot_id())
        self._known: dict[int, _Slot] = {}

    def is_of_this_boot(self) -> bool:
        """Return `True` iff what the file says was written since the machine started."""
        return self._cells.read(0, len(self._boot)) == self._boot

    def stamp_boot(self) -> None:
        """Say that the ends hold from now on; the last step of a recovery."""
        self._cells.write(0, self._boot)

    @property
    def sync_failed(self) -> bool:
        """Whether a sync failed, so that nobody may write until the partition is verified."""
        return self._cells.read_word(_SYNC_FAILED) != 0

    @sync_failed.setter
    def sync_failed(self, failed: bool) -> None:
        self._cells.write_word(_SYNC_FAILED, _SET if failed else 0)

    @property
    def sync_under_way(self) -> bool:
        """Whether the holder of the sync lock is inside a sync.

        Who holds the lock and finds it so knows that somebody died in a sync, which may have
        failed.
        """
        return self._cells.read_word(_SYNC_UNDER_WAY) != 0

    def will_sync(self, until_offset: int) -> bool:
        """Whether the holder of the sync lock makes the rows before `until_offset` durable.

        They are written. A holder that has not begun looks at the written end afterwards.
        """
        until = self._cells.read_word(_SYNC_UNDER_WAY)
        return until == 0 or until_offset <= ~until

    def begin_sync(self, until_offset: int) -> None:
        """Say that a sync of the rows before `until_offset` is under way."""
        self._cells.write_word(_SYNC_UNDER_WAY, ~until_offset)

    def end_sync(self) -> None:
        """Say that it is over, and did not fail."""
        self._cells.write_word(_SYNC_UNDER_WAY, 0)

    @property
    def losses(self) -> int:
        """A number that is another one whenever rows were lost that were written but not synced."""
        return self._cells.read_word(_LOSSES)

    def count_loss(self) -> None:
        """Tell of a loss; before the ends say so.

        In a boot that is new to the file, whatever was not synced is lost, and how many losses it
        tells of may be old: it begins with a number of the boot's own.
        """
        is_known = self.is_of_this_boot()
        boot = int.from_bytes(self._boot[-_CRC.size :], "little")
        losses = self.losses + 1 if is_known else boot << _BOOT_LOSSES_BITS
        self._cells.write_word(_LOSSES, losses)

    @property
    def settled(self) -> int:
        """An offset before which every transaction is decided, as far as somebody found out."""
        offset = self._cells.read_word(_SETTLED)
        return offset if self._cells.read_word(_SETTLED_CHECK) == ~offset else 0

    @settled.setter
    def settled(self, offset: int) -> None:
        self._cells.write_word(_SETTLED_CHECK, ~offset)
        self._cells.write_word(_SETTLED, offset)

    @property
    def sequenced(self) -> bool:
        """Whether frames of named producers may be there, as far as this boot knows."""
        return self._cells.read_word(_SEQUENCED) != 0

    @sequenced.setter
    def sequenced(self, sequenced: bool) -> None:
        self._cells.write_word(_SEQUENCED, _SET if sequenced else 0)

    @property
    def append_under_way(self) -> bool:
        """Whether the holder of the append lock is between its write and the new written end.

        Who holds the lock and finds it so knows that somebody died there.
        """
        return self._cells.read_word(_APPEND_UNDER_WAY) != 0

    @append_under_way.setter
    def append_under_way(self, under_way: bool) -> None:
        self._cells.write_word(_APPEND_UNDER_WAY, _SET if under_way else 0)

    @property
    def closed(self) -> bool:
        """Whether the partition's generation may be an older one, so that nobody may append.

        `topic.json` says whether it is. Changed under the append lock only.
        """
        return self._cells.read_word(_CLOSED) != 0

    @closed.setter
    def closed(self, closed: bool) -> None:
        self._cells.write_word(_CLOSED, _SET if closed else 0)

    def written(self) -> LogEnd | None:
        """Return the written end; `None`: there is none (a new or damaged file)."""
        return self._read(_WRITTEN)

    def durable(self) -> LogEnd | None:
        """Return the durable end; `None`: there is none (a new or damaged file)."""
        return self._read(_DURABLE)

    def publish_written(self, end: LogEnd) -> None:
        """Move the written end; only the holder of the append lock may."""
        self._write(_WRITTEN, end)

    def publish_durable(self, end: LogEnd) -> None:
        """Move the durable end; only the holder of the sync lock may."""
        self._write(_DURABLE, end)

    def _newest(self, positions: tuple[int, int]) -> _Slot | None:
        """Return the newest good slot; `None`: there is none.

        Mostly it is the one that was seen last time: nobody has written since.
        """
        first = positions[0]
        content = self._cells.read(first, _SLOTS_SIZE)
        known = self._known.get(first)
        if known is not None and known.content == content:
            return known
        good = []
        for position in positions:
            start = position - first
            packed = content[start : start + _SLOT.size]
            if crc32c(packed) == _CRC.unpack_from(content, start + _SLOT.size)[0]:
                generation, segment_base, at, offset = _SLOT.unpack(packed)
                good.append((generation, position, LogEnd(segment_base, at, offset)))
        if not good:
            return None
        slot = self._known[first] = _Slot(content, *max(good))
        return slot

    def _read(self, positions: tuple[int, int]) -> LogEnd | None:
        for _ in range(_READS_MAX):
            slot = self._newest(positions)
            if slot is not None:
                return slot.end
            if not any(
                self._cells.read(position, _SLOT.size).strip(b"\0") for position in positions
            ):
                return None  # zeros: nobody wrote yet
        return None

    def _write(self, positions: tuple[int, int], end: LogEnd) -> None:
        newest = self._newest(positions)
        generation = 1
        other = positions[0]
        if newest is not None:
            generation = newest.generation + 1
            other = positions[newest.position == positions[0]]
        packed = _SLOT.pack(generation, *end)
        packed += _CRC.pack(crc32c(packed))
        self._cells.write(other, packed)
        if newest is not None:
            before = newest.content
            start = other - positions[0]
            content = before[:start] + packed + before[start + _SLOT_SIZE :]
            self._known[positions[0]] = _Slot(content, generation, other, end)


def _boot_record(boot_id: str) -> bytes:
    name = boot_id.encode()[:48]
    record = _BOOT.pack(_MAGIC, VERSION, name)
    return record + _CRC.pack(crc32c(record))
