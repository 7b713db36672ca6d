"""Rows on their way into a segment whose columns are not known for sure yet."""

from __future__ import annotations

import pyarrow as pa

from millstream.log.columns import (
    SegmentLayouts,
    can_be_widened,
    is_system,
    joined,
    widened,
)
from millstream.log.encoding import EncodedBatch, encode_batch
from millstream.log.metadata import ColumnLayout


class Draft:
    """A batch that is encoded for one layout after another, until it has its place.

    Another process may start a segment of other columns at any time, so which columns the
    active one has is certain under the append lock only. It changes so seldom that encoding the
    rows anew there does no harm.

    Attributes
    ----------
    own
        The layout of the rows as they are.

    Parameters
    ----------
    batch
        The rows.
    layouts
        Of the partition.
    compression
        `"none"`, `"lz4"` or `"zstd"`.
    """

    def __init__(self, batch: pa.RecordBatch, layouts: SegmentLayouts, compression: str) -> None:
        self.own = layouts.of(batch.schema)
        self._batch = batch
        self._layouts = layouts
        self._compression = compression
        self._encoded: EncodedBatch | None = None

    def layout_in(self, active: ColumnLayout) -> ColumnLayout:
        """Return `active` where the rows fit into its segment, else that of the next segment.

        The next segment has all columns that either has, so that producers of rows with and
        without some column share segments.
        """
        if active is self.own or can_be_widened(self.own.schema, active.schema):
            return active
        return self._layouts.of(joined(active.schema, self.own.schema))

    def layout_after(self, active: ColumnLayout) -> ColumnLayout:
        """Return the layout of the segment after one that is full.

        It drops the system columns that these rows do not need.
        """
        if active is self.own:
            return active
        users = [field for field in active.schema if not is_system(field.name)]
        return self._layouts.of(joined(pa.schema(users), self.own.schema))

    def encode(self, layout: ColumnLayout) -> EncodedBatch:
        """Return the rows as a frame of `layout`; costs nothing where it is that of last time."""
        encoded = self._encoded
        if encoded is None or encoded.layout is not layout:
            rows = widened(self._batch, layout.schema)
            encoded = self._encoded = encode_batch(rows, layout, self._compression)
        return encoded
