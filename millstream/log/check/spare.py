"""What a backup has of a partition whose segments are damaged or gone."""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable

import pyarrow as pa

from millstream.errors import BackupError
from millstream.log.backup.vault import SavedFile, Vault
from millstream.log.check.salvage import salvage
from millstream.log.control_file import LogEnd
from millstream.log.frame import Frame
from millstream.log.segment import SUFFIX, Segment, segment_file_name
from millstream.log.segments import Segments

_UNKNOWN = 2**62


class Spare:
    """The newest backup in `vault`, of the log in the folder `path`.

    Every piece is compared with its SHA-256, and every frame with its checksums, before it is
    used.

    Raises
    ------
    BackupError
        Where there is no backup.
    """

    def __init__(self, vault: Vault, path: str) -> None:
        self._vault = vault
        self._prefix = f"{path}/"
        self._files = {each.path: each for each in vault.manifest().files}

    def of_damaged(
        self, segments: Segments, segment: Segment, until: int, *, has_no_end: bool
    ) -> pa.Buffer | None:
        """Return the whole of a damaged segment, up to offset `until`; `None`: it has it not.

        What came after the backup is taken from the damaged file; for `has_no_end` see `salvage`.
        """
        saved = self._files.get(segment.source[1].removeprefix(self._prefix))
        if saved is None or (segment.head.size_bytes and saved.mark != segment.mark):
            return None
        content = self._content(saved)
        if content is None:
            return None
        rest = segment.content.slice(min(content.size, segment.limit))
        content = pa.py_buffer(content.to_pybytes() + rest.to_pybytes())
        found = _whole(segments, segment.head.base_offset, content, has_no_end=has_no_end)
        return content if found is not None and reach(found) >= until else None

    def of_missing(
        self, segments: Segments, end: LogEnd, opened: Callable[[int], Segment]
    ) -> dict[int, Segment]:
        """Return the segments that are gone between others or at the end, by their base offsets.

        Before the first one nothing is missing: retention removed it. Nor is what a compacted
        segment stands for.

        Parameters
        ----------
        end
            Up to where.
        opened
            Opens a segment that is there; one of an unknown head has no size.
        """
        there = segments.bases(end)
        control = segments.control
        durable = control.durable()
        limit = end.offset
        if not control.is_of_this_boot():
            # All that is in a backup was durable once.
            limit = _UNKNOWN if durable is None else max(limit, durable.offset)
        found: dict[int, Segment] = {}
        for base in self._bases(segments):
            at = bisect(there, base)
            if base in there or base >= limit or (there and at == 0):
                continue
            if at:
                before = found.get(there[at - 1]) or opened(there[at - 1])
                if before.head.size_bytes == 0 or reach(before) > base:
                    continue
            path = f"{segments.directory}/{segment_file_name(base)}"
            content = self._content(self._files[path.removeprefix(self._prefix)])
            segment = None if content is None else _whole(segments, base, content)
            if segment is not None and (at == len(there) or reach(segment) <= there[at]):
                found[base] = segment
                insort(there, base)
        return found

    def _bases(self, segments: Segments) -> list[int]:
        """Return the base offsets of the segments that it has of a partition, rising."""
        folder = f"{segments.directory.removeprefix(self._prefix)}/"
        names = [each.removeprefix(folder) for each in self._files if each.startswith(folder)]
        stems = [each.removesuffix(SUFFIX) for each in names if each.endswith(SUFFIX)]
        return sorted(int(each) for each in stems if each.isdigit())

    def _content(self, saved: SavedFile) -> pa.Buffer | None:
        """Return a file's bytes; `None`: they are damaged."""
        try:
            pieces = [self._vault.load(piece).to_pybytes() for piece in saved.pieces]
        except BackupError:
            return None
        return pa.py_buffer(b"".join(pieces))


def reach(segment: Segment) -> int:
    """Return the offset up to which a segment's whole frames, and what it stands for, go."""
    ends = [each.end_offset for each in salvage(segment) if isinstance(each, Frame)]
    return max([segment.head.base_offset, segment.head.compacted_end, *ends])


def _whole(
    segments: Segments, base: int, content: pa.Buffer, *, has_no_end: bool = False
) -> Segment | None:
    """Return the segment of these bytes, if all of it is whole."""
    path = segments.path(base)
    found = Segment.try_open(segments.name, path, content, segments.layouts, base)
    if not isinstance(found, Segment):
        return None
    parts = salvage(found, has_no_end=has_no_end)
    return found if all(isinstance(each, Frame) for each in parts) else None
