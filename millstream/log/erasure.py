"""Erases keys: rewrites every segment that has rows of them, without these rows.

    journal ─▶ each partition: its active segment is sealed ─▶ each segment with such rows is
    rewritten ─▶ the journal is removed

The journal says which keys are to go, and up to where; as long as it is there, the erasure is not
done. Who finds it, perhaps much later, does it all again, which takes no longer than the first
time: rows that were appended since it began stay.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.clock import Clock
from millstream.errors import InvalidTopicError, SchemaMismatchError
from millstream.log.checked_json import decode_checked, encode_checked
from millstream.log.frame import Frame
from millstream.log.frame_header import Damage
from millstream.log.latest_rows import one_form
from millstream.log.partition import Partition
from millstream.log.rewriting import Kind, SegmentRewriter
from millstream.log.segment import Segment
from millstream.storage import AppendFile, Storage

JOURNAL_NAME = "erasing.json"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure did; it is done when this is returned.

    Attributes
    ----------
    topic
        Which.
    keys
        How many keys were to go.
    rows
        Rows that were removed, tombstones and those of aborted transactions included.
    segments
        Segments that were rewritten.
    """

    topic: str
    keys: int
    rows: int
    segments: int


class _Begun(msgspec.Struct, forbid_unknown_fields=True):
    """An erasure in the journal: its keys as an Arrow IPC stream, in base64, and ends."""

    keys: str
    ends: list[tuple[int, int, int]]


class _Journal(msgspec.Struct, forbid_unknown_fields=True):
    """`erasing.json`: what was begun and is not done."""

    erasures: list[_Begun]


class BegunErasure(NamedTuple):
    """What an erasure is to remove.

    Attributes
    ----------
    keys
        Of `fitted_keys`.
    ends
        By generation and partition: the rows of the keys before this offset go. They are durable.
    """

    keys: pa.Table
    ends: Mapping[tuple[int, int], int]


class EraseJournal:
    """The journal of the topic in `directory`."""

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._path = f"{directory}/{JOURNAL_NAME}"

    def read(self) -> list[BegunErasure]:
        """Return the erasures that are not done."""
        try:
            content = self._storage.read_file(self._path)
        except FileNotFoundError:
            return []
        try:
            begun = decode_checked(content, _Journal).erasures
            return [
                BegunErasure(
                    pa.ipc.open_stream(base64.b64decode(each.keys)).read_all(),
                    {(generation, index): end for generation, index, end in each.ends},
                )
                for each in begun
            ]
        except (msgspec.DecodeError, ValueError, pa.ArrowInvalid) as error:
            message = (
                f"{self._path} is damaged: {error}; which keys were being erased is not known: "
                "remove the file and erase them again"
            )
            raise InvalidTopicError(message) from error

    def write(self, erasures: Sequence[BegunErasure]) -> None:
        """Say that these are begun."""
        begun = []
        for each in erasures:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, each.keys.schema) as stream:
                stream.write_table(each.keys)
            ends = [(*place, end) for place, end in each.ends.items()]
            begun.append(_Begun(base64.b64encode(sink.getvalue()).decode(), ends))
        self._storage.write_file(self._path, encode_checked(_Journal(begun)))

    def remove(self) -> None:
        """Say that all of them are done."""
        self._storage.remove(self._path)


def fitted_keys(keys: pa.RecordBatch | pa.Table, schema: pa.Schema, topic: str) -> pa.Table:
    """Return `keys` with the types of the key columns in `schema`, each key once.

    Raises `SchemaMismatchError` where a column is missing or does not fit.
    """
    table = pa.Table.from_batches([keys]) if isinstance(keys, pa.RecordBatch) else keys
    if set(table.schema.names) != set(schema.names):
        message = f"the keys of topic {topic!r} are {schema.names}; got {table.schema.names}"
        raise SchemaMismatchError(message)
    try:
        fitted = table.select(schema.names).cast(pa.schema([f.with_nullable(True) for f in schema]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"keys of topic {topic!r} do not fit its key columns: {error}"
        raise SchemaMismatchError(message) from error
    formed = [one_form(column) for column in fitted.columns]
    return pa.table(formed, names=schema.names).group_by(schema.names).aggregate([])


class Eraser:
    """Removes the rows of `keys` before an offset from one partition.

    Parameters
    ----------
    partition
        Which. Its caller has the right to clean it.
    keys
        Of `fitted_keys`.
    end_offset
        Rows from here on stay.
    compression
        Of the topic.
    clock
        Stamps the rewritten segments.
    """

    def __init__(
        self,
        partition: Partition,
        keys: pa.Table,
        end_offset: int,
        compression: str,
        clock: Clock,
    ) -> None:
        self._partition = partition
        self._end_offset = end_offset
        self._sealed = partition.sealed
        self._keys = keys
        self._names: list[str] = keys.schema.names
        self._known = set(_tuples(keys, self._names)) if len(self._names) > 1 else set()
        self._compression = compression
        self._clock = clock

    def run(self) -> tuple[int, int]:
        """Erase; return how many rows were removed, and how many segments were rewritten."""
        self._partition.roll()  # all that was appended before is in sealed segments now
        rows = segments = 0
        for segment in self._sealed.list():
            if segment.head.base_offset >= self._end_offset:
                break
            erased = sum(int(np.count_nonzero(mask)) for _, mask in self._erased(segment))
            if erased:
                self._rewrite(segment)
                rows += erased
                segments += 1
        return rows, segments

    def _erased(self, segment: Segment) -> Iterator[tuple[Frame, npt.NDArray[np.bool_]]]:
        """Yield the frames with rows, and which of these are to go."""
        position, offset = segment.head.size_bytes, segment.head.base_offset
        for frame in segment.walk(position, offset):
            if isinstance(frame, Damage):
                raise self._sealed.corrupt(segment, position, offset, frame)
            if frame.header.row_count:
                yield frame, self._matches(frame) & self._is_before_end(frame)
            position, offset = position + frame.header.frame_size, frame.end_offset

    def _matches(self, frame: Frame) -> npt.NDArray[np.bool_]:
        batch = frame.batch(self._names)
        columns = [one_form(column) for column in batch.columns]
        # A row of a key has values that occur in the keys, in each column; of one column that is
        # all there is to it.
        mask = np.ones(batch.num_rows, dtype=np.bool_)
        for name, column in zip(self._names, columns, strict=True):
            found = pc.is_in(column, value_set=self._keys.column(name).combine_chunks())
            mask &= found.to_numpy(zero_copy_only=False)
        if self._known:
            rows = np.flatnonzero(mask)
            candidates = pa.table(columns, names=self._names).take(pa.array(rows))
            is_key = [each in self._known for each in _tuples(candidates, self._names)]
            mask[rows] = np.array(is_key, dtype=np.bool_)
        return mask

    def _is_before_end(self, frame: Frame) -> npt.NDArray[np.bool_]:
        offsets = frame.offsets()
        if offsets is None:
            start = frame.header.base_offset
            offsets = np.arange(start, start + frame.header.row_count)
        return offsets < self._end_offset

    def _rewrite(self, segment: Segment) -> None:
        end_offset = self._sealed.end_offset(segment)

        def write(file: AppendFile) -> None:
            rewriter = SegmentRewriter(
                file, [segment], end_offset, self._partition.time_column, self._compression,
                self._clock.now_us(),
            )  # fmt: skip
            for frame, is_erased in self._erased(segment):
                rewriter.add(frame, ~is_erased, _kind(frame))
            rewriter.finish()

        self._sealed.replace([segment], write)


def _kind(frame: Frame) -> Kind:
    """Return the kind of a frame's rows: in whose transaction they are is not touched."""
    header = frame.header
    since_us = header.sequence if header.is_compacted else 0
    if not header.transaction:
        return Kind(tombstones_since_us=since_us)
    return Kind(header.owner_id, header.epoch, header.transaction, since_us)


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[object, ...]]:
    """Return the keys as Python has them; of floats there is one NaN."""
    columns = [table.column(name).to_pylist() for name in names]
    return [
        tuple("NaN" if each != each else each for each in row)  # noqa: PLR0124  # NaN is not itself
        for row in zip(*columns, strict=True)
    ]
