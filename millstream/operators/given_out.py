"""Remembers in state how far the windows of each key group were given out.

The watermark after a restore can lie behind the one before it: an idle partition no longer
holds nobody back, or the key group comes from a worker that was ahead. Rows that would open
a window again, which was given out before the checkpoint, are late by this::

    key group   0 ─────────── 2047 │ 2048 ────── 4095
    until       10:00              │ 09:00                  "0-2047:… 2048-4095:…"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import KEY_GROUPS, key_groups
from millstream.windows.watermark import WATERMARK_MIN

_PIECE = re.compile(r"(\d+)-(\d+):(-?\d+)")


_PENDING_ROWS_MAX = 65_536


class GivenOut:
    """The watermark up to which windows were given out, by key group.

    A worker owns a range of key groups, so what it gave out for two groups holds for all
    between them. Groups for which it never gave anything out need not be remembered.
    """

    def __init__(self) -> None:
        # Before the restore, and the greatest of it: beyond the watermark only for a while.
        self._restored_us = np.full(KEY_GROUPS, WATERMARK_MIN, dtype=np.int64)
        self.restored_max_us = WATERMARK_MIN
        self._owned: range | None = None
        # Keys are hashed when it is time for a snapshot, which a short run may never take.
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0

    def note(self, keys: pa.RecordBatch) -> None:
        """Take into account that windows of `keys` are given out; no columns: of all rows."""
        self._pending.append(keys)
        self._pending_rows += keys.num_rows
        if self._pending_rows > _PENDING_ROWS_MAX:
            self._hash_pending()

    def until(self, keys: Sequence[pa.Array], count: int) -> npt.NDArray[np.int64]:
        """Return for each of `count` rows until when its key group was given out before."""
        groups = key_groups(keys) if keys else np.zeros(count, dtype=np.int32)
        return self._restored_us[groups]

    def to_text(self, watermark_us: int, closed_us: int) -> str | None:
        """Return it for a snapshot taken at `watermark_us`.

        `None` where nothing was given out, or rows of whatever was are late already because a
        run ended at `closed_us`.
        """
        if closed_us >= max(watermark_us, self.restored_max_us):
            return None
        self._hash_pending()
        until = self._restored_us.copy()
        if self._owned is not None:
            own = slice(self._owned.start, self._owned.stop)
            until[own] = np.maximum(until[own], watermark_us)
        edges = [0, *(np.flatnonzero(np.diff(until)) + 1).tolist(), KEY_GROUPS]
        pieces = [
            f"{first}-{end - 1}:{until[first]}"
            for first, end in pairwise(edges)
            if until[first] != WATERMARK_MIN
        ]
        return " ".join(pieces) or None

    def restore(self, texts: Sequence[str], owned: range) -> None:
        """Take what snapshots say of the key groups `owned`."""
        for text in texts:
            for first, last, until_us in _PIECE.findall(text):
                piece = self._restored_us[int(first) : int(last) + 1]
                np.maximum(piece, int(until_us), out=piece)
        self._restored_us[: owned.start] = WATERMARK_MIN
        self._restored_us[owned.stop :] = WATERMARK_MIN
        self.restored_max_us = int(self._restored_us.max())
        self._owned = owned

    def _hash_pending(self) -> None:
        """Widen the range of key groups by those of keys that were noted."""
        for keys in self._pending:
            groups = key_groups(keys.columns) if keys.num_columns else np.zeros(1, np.int32)
            first, last = int(groups.min()), int(groups.max())
            if self._owned is not None and len(self._owned):
                first, last = min(first, self._owned[0]), max(last, self._owned[-1])
            self._owned = range(first, last + 1)
        self._pending, self._pending_rows = [], 0
