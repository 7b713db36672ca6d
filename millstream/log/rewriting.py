"""Writes some rows of sealed segments into one compacted segment, which takes their place.

    frames ─▶ rows that are kept, with their offsets ─▶ frames of a good size ─▶ a file aside,
    synced ─▶ renamed over the first source ─▶ the other sources are removed

Until the rename nothing has happened; from then on everything has: the head says up to which
offset the segment stands for what was there, so the other sources are leftovers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.columns import OFFSET_COLUMN, TIMESTAMP_COLUMN, is_system, joined
from millstream.log.dictionaries import without_unused_values
from millstream.log.encoding import encode_batch
from millstream.log.frame import Frame
from millstream.log.frame_header import FLAG_COMPACTED, FLAG_CONTROL, FrameHeader
from millstream.log.metadata import ColumnLayout
from millstream.log.projection import Projection
from millstream.log.row_time import max_time_us
from millstream.log.segment import Segment, encode_head
from millstream.storage import AppendFile

FRAME_ROWS = 65_536
FRAME_BYTES = 4 * 1024 * 1024


class Kind(NamedTuple):
    """What the rows of one frame share; a frame of another kind is a frame of its own.

    Attributes
    ----------
    owner_id, epoch, transaction
        Of a transaction that is not decided yet; all 0: the rows count as they are.
    tombstones_since_us
        When a compaction first met the tombstones among the rows; 0: there are none, or they
        are of no concern.
    """

    owner_id: int = 0
    epoch: int = 0
    transaction: int = 0
    tombstones_since_us: int = 0

    def can_take(self, other: Kind) -> bool:
        """Return `True` iff rows of both may share a frame."""
        since = {self.tombstones_since_us, other.tombstones_since_us} - {0}
        return self[:3] == other[:3] and len(since) < 2


def compacted_schema(sources: Sequence[Segment], time_column: str | None) -> pa.Schema:
    """Return the columns of the segment that takes the place of `sources`.

    It has an offset for each row, and a time, where the frames' own no longer tell it.
    """
    schema = sources[0].layout.schema
    for source in sources[1:]:
        schema = joined(schema, source.layout.schema)
    names = [OFFSET_COLUMN, *([TIMESTAMP_COLUMN] if time_column is None else [])]
    users = [field for field in schema if not is_system(field.name)]
    more = pa.schema([*users, *Projection(schema, names, time_column, 0).schema])
    return joined(schema, more)


class SegmentRewriter:
    """A compacted segment on its way to the disk.

    Parameters
    ----------
    file
        Empty; what is written to it is nobody's yet.
    sources
        The segments whose place it takes, one behind the other.
    end_offset
        Up to which it stands for what was there.
    time_column, compression
        Of the topic.
    created_us
        The time.
    """

    def __init__(
        self,
        file: AppendFile,
        sources: Sequence[Segment],
        end_offset: int,
        time_column: str | None,
        compression: str,
        created_us: int,
    ) -> None:
        schema = compacted_schema(sources, time_column)
        self._file = file
        self._compression = compression
        self._layout = ColumnLayout.of(schema)
        self._time = TIMESTAMP_COLUMN if time_column is None else time_column
        self._projection = Projection(schema, schema.names, time_column, 0)
        self._offset = sources[0].head.base_offset
        self._end_offset = end_offset
        self._kind = Kind()
        self._pieces: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._appended_us = 0
        head = encode_head(
            self._layout,
            self._offset,
            created_us,
            compacted_end=end_offset,
            compactions=1 + max(source.head.compactions for source in sources),
        )
        file.append([head])

    def add(self, frame: Frame, kept: npt.NDArray[np.bool_], kind: Kind) -> None:
        """Write those rows of `frame` that are `kept`, bool of shape (rows,); all verified."""
        if not kept.any():
            return
        rows = self._projection.rows(frame, verify=True)
        if not kept.all():
            rows = rows.filter(pa.array(kept))
            if self._layout.dictionary_count:
                rows = without_unused_values(rows)
        size = frame.header.frame_size * rows.num_rows // frame.header.row_count
        # Dictionaries of several frames might have more values than there are indices.
        is_full = self._layout.dictionary_count > 0
        is_full |= self._rows + rows.num_rows > FRAME_ROWS or self._bytes + size > FRAME_BYTES
        if self._pieces and (is_full or not self._kind.can_take(kind)):
            self._write(FLAG_COMPACTED)
        since = max(self._kind.tombstones_since_us if self._pieces else 0, kind[3])
        self._kind = kind._replace(tombstones_since_us=since)
        self._pieces.append(rows)
        self._rows += rows.num_rows
        self._bytes += size
        self._appended_us = max(self._appended_us, frame.header.appended_us)

    def finish(self) -> None:
        """Write what is left, and make the file durable.

        The last frame ends where the segment does, even if it has no rows: so a reader sees
        whether a cut has taken frames away.
        """
        if self._pieces:
            self._write(FLAG_COMPACTED, self._end_offset)
        else:
            self._pieces = [pa.RecordBatch.from_pylist([], self._layout.schema)]
            self._write(FLAG_COMPACTED | FLAG_CONTROL, self._end_offset)
        self._file.sync()

    def _write(self, flags: int, end: int | None = None) -> None:
        rows = self._pieces[0] if len(self._pieces) == 1 else pa.concat_batches(self._pieces)
        encoded = encode_batch(rows, self._layout, self._compression)
        if end is None:
            end = rows.column(OFFSET_COLUMN)[-1].as_py() + 1
        header = FrameHeader(
            frame_size=encoded.frame_size,
            base_offset=self._offset,
            row_count=encoded.row_count,
            max_timestamp_us=max_time_us(rows, self._time),
            owner_id=self._kind.owner_id,
            epoch=self._kind.epoch,
            sequence=self._kind.tombstones_since_us,
            transaction=self._kind.transaction,
            appended_us=self._appended_us,
            durable_offset=end,
            flags=flags,
        )
        self._file.append(encoded.chunks(header))
        self._offset = header.end_offset
        self._pieces = []
        self._rows = self._bytes = self._appended_us = 0
