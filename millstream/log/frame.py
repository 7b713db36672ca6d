"""A frame as a reader sees it: verified header, and rows verified column by column."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import CorruptSegmentError, UnknownColumnError, nearest
from millstream.log.columns import OFFSET_COLUMN
from millstream.log.decoding import (
    MessagePlace,
    read_columns,
    try_column,
    try_messages,
    try_size,
)
from millstream.log.frame_header import Damage, FrameHeader
from millstream.log.metadata import PREFIX_SIZE, ColumnLayout, column_range, try_metadata_size


class Frame:
    """One record batch of a mapped segment; its rows are views of the file, unless compressed.

    Made by `Segment`; its header was verified, its columns are verified when they are read.

    Attributes
    ----------
    header
        What the frame says of its rows.
    """

    __slots__ = (
        "_buffer",
        "_header_position",
        "_layout",
        "_places",
        "_position",
        "_source",
        "_verified",
        "header",
    )

    def __init__(
        self,
        header: FrameHeader,
        buffer: pa.Buffer,
        layout: ColumnLayout,
        source: tuple[str, str],
        position: int,
        header_position: int,
    ) -> None:
        self.header = header
        self._buffer = buffer
        self._layout = layout
        self._source = source
        self._position = position
        self._header_position = header_position
        self._verified: set[int] = set()
        self._places: list[MessagePlace] | None = None

    @property
    def end_offset(self) -> int:
        """Offset of the row after the frame's last."""
        return self.header.end_offset

    @property
    def location(self) -> tuple[str, int]:
        """The segment's path, and the frame's position in it."""
        return self._source[1], self._position

    @property
    def columns(self) -> Mapping[str, int]:
        """Index by name of the columns that are stored."""
        return self._layout.positions

    @property
    def is_control(self) -> bool:
        """`True` iff the frame is a marker without rows."""
        return self.header.row_count == 0

    def segment_head(self) -> pa.Buffer:
        """Return the first bytes of its segment: the schema message with the segment's header."""
        size = try_metadata_size(memoryview(self._buffer), 0)
        assert size is not None, "the head was verified when the segment was opened"
        return self._buffer.slice(0, PREFIX_SIZE + size)

    def try_stored_to(self, last: Frame) -> pa.Buffer | None:
        """Return the stored bytes of the frames from this one to `last`, without copying them.

        `None`: they were not mapped together.
        """
        if last._buffer is not self._buffer:
            return None
        end = last._position + last.header.frame_size
        return self._buffer.slice(self._position, end - self._position)

    def other_ranges(self, columns: Collection[str]) -> list[tuple[int, int]]:
        """Return where the values of columns that are not among `columns` lie in the segment.

        As start and end, rising. Dictionaries are left out of account, and all of a frame whose
        metadata is damaged: whoever reads it finds out.
        """
        places = self._messages()
        if isinstance(places, Damage):
            return []
        _, body, end, metadata, fields = places[-1]
        ranges: list[tuple[int, int]] = []
        for name, index in self._layout.positions.items():
            if name in columns:
                continue
            at, until = column_range(metadata, fields.buffers, self._layout, index, end - body)
            if ranges and ranges[-1][1] == body + at:
                ranges[-1] = ranges[-1][0], body + until
            elif at < until:
                ranges.append((body + at, body + until))
        return ranges

    def batch(self, columns: Sequence[str] | None = None, verify: bool = True) -> pa.RecordBatch:
        """Return the frame's rows; without copying them, where they are not compressed.

        Parameters
        ----------
        columns
            Names, in the order wanted; `None` for all.
        verify
            Check the checksum of each of these columns, once in the life of this object.

        Raises
        ------
        CorruptSegmentError
            Where a checksum does not hold; names partition, file, offsets and column.
        UnknownColumnError
            Where a column is not in the segment's schema.
        """
        indices = self._indices(columns)
        found = self.try_verify(indices) if verify else None
        if found is None:
            found = self._try_read(indices)
        if isinstance(found, Damage):
            raise corrupt(self._source, self._position, self.header.base_offset, found)
        return found

    def offsets(self, verify: bool = True) -> npt.NDArray[np.int64] | None:
        """Return the offset of each row, int64; `None`: they follow each other without gaps.

        Raises `CorruptSegmentError` as `batch` does.
        """
        if not self.header.is_compacted:
            return None
        found: npt.NDArray[np.int64] = self.batch([OFFSET_COLUMN], verify).column(0).to_numpy()
        return found

    def offset_of(self, row: int) -> int:
        """Return the offset of the row of that index."""
        offsets = self.offsets()
        return self.header.base_offset + row if offsets is None else int(offsets[row])

    def try_verify(self, indices: Sequence[int] | None = None) -> Damage | None:
        """Return what is wrong with the columns of `indices` (`None`: all), or `None`."""
        places = self._messages()
        if isinstance(places, Damage):
            return places
        view = memoryview(self._buffer)
        for index in range(self._layout.column_count) if indices is None else indices:
            if index not in self._verified:
                damage = try_column(view, self._layout, places, self._header_position, index)
                if damage is not None:
                    return damage
                self._verified.add(index)
        return None

    def _try_read(self, indices: Sequence[int]) -> pa.RecordBatch | Damage:
        """Return the columns of `indices`, which were verified, or why they cannot be read."""
        places = self._messages()
        if isinstance(places, Damage):
            return places
        damage = try_size(memoryview(self._buffer), self._layout, places, indices)
        return damage or read_columns(self._buffer, self._layout, places, indices)

    def _messages(self) -> list[MessagePlace] | Damage:
        """Return where the frame's messages lie, found once; or what is wrong with them."""
        if self._places is None:
            found = try_messages(
                memoryview(self._buffer),
                self.header,
                self._layout,
                self._position,
                self._header_position,
            )
            if isinstance(found, Damage):
                return found
            self._places = found
        return self._places

    def _indices(self, columns: Sequence[str] | None) -> Sequence[int]:
        positions = self._layout.positions
        if columns is None:
            return range(len(positions))
        try:
            return [positions[name] for name in columns]
        except KeyError as error:
            name = error.args[0]
            message = f"{self._source[0]} has no column {name!r}{nearest(name, positions)}"
            raise UnknownColumnError(message) from None


def corrupt(
    source: tuple[str, str], position: int, offset: int, damage: Damage
) -> CorruptSegmentError:
    """Return the error for damaged bytes.

    Parameters
    ----------
    source
        The partition's name and the segment's path.
    position
        Where in the segment the damaged frame starts, in bytes.
    offset
        Of the first row that cannot be served.
    damage
        What is wrong.
    """
    name, path = source
    message = (
        f"partition {name} is damaged from offset {offset}: the frame at byte {position} of "
        f"{path} cannot be read; {damage.reason}; the disk or another program changed it: "
        "restore the file from a copy"
    )
    return CorruptSegmentError(message)
