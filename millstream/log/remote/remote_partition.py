"""A partition on a server: what `Partition` offers, by request and answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import NoReturn, TypeVar

import msgspec
import pyarrow as pa

from millstream.errors import OptionError, ProtocolError, SchemaMismatchError
from millstream.log.columns import SegmentLayouts, columns_of_rows
from millstream.log.condition import Condition
from millstream.log.frame import Frame, corrupt
from millstream.log.frame_header import FLAG_CONTROL, Damage
from millstream.log.partition import AppendResult, mismatch
from millstream.log.remote import messages as m
from millstream.log.remote.connection import Connection
from millstream.log.remote.rows import bytes_of, encode_rows
from millstream.log.remote.sequences import Sequences
from millstream.log.segment import Segment, try_head

READ_BYTES = 8 * 1024 * 1024
"""What is asked for at once: so much lies in memory for a reader."""

AnswerT = TypeVar("AnswerT", bound=m.Answer)


class Asker:
    """Asks a server and takes answers of the type expected only.

    Parameters
    ----------
    connection
        To the server.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sequences = Sequences()
        """Number its appends."""

    def ask(self, request: m.Request, expected: type[AnswerT], *, more_s: float = 0.0) -> AnswerT:
        """Return the answer to a request that has no bytes in either direction."""
        answer, _ = self.connection.ask(request, more_s=more_s)
        return _checked(answer, expected)

    def append(self, request: m.Append, rows: pa.Buffer) -> m.Appended:
        """Send rows; they are stored once, however often the connection is lost meanwhile."""
        repeated = msgspec.structs.replace(request, is_repeated=True)
        answer, _ = self.connection.ask(request, rows, repeated=repeated)
        return _checked(answer, m.Appended)

    def read(self, request: m.Read) -> tuple[m.Frames, pa.Buffer]:
        """Return the segment's head and frames, as one buffer."""
        answer, batch = self.connection.ask(request)
        frames = _checked(answer, m.Frames)
        return frames, bytes_of(batch, frames.head, frames.gaps)


class RemotePartition:
    """Partition `place` on the server that `asker` asks; see `Partition`.

    Any thread may use it.

    Parameters
    ----------
    schema
        Of the stored rows.
    name
        For messages.
    durability, time_column
        Of the topic.
    """

    def __init__(
        self,
        asker: Asker,
        place: m.Place,
        schema: pa.Schema,
        *,
        name: str,
        durability: str = "fsync",
        time_column: str | None = None,
    ) -> None:
        self.layouts = SegmentLayouts(schema)
        self.schema = schema
        self.name = name
        self.place = place
        self.durability = durability
        self.time_column = time_column
        self.directory = f"{asker.connection.address}/{name}"
        self._asker = asker
        self._since: int | None = None

    def adopt(self, schema: pa.Schema) -> None:
        """Take note that the topic got columns: `schema` is what its rows have now."""
        if not schema.equals(self.schema):
            self.layouts.adopt(schema)
            self.schema = schema

    def append(
        self,
        batch: pa.RecordBatch,
        *,
        owner_id: int = 0,
        epoch: int = 0,
        sequence: int = 0,
        transaction: int = 0,
        flags: int = 0,
        fence: Callable[[], None] | None = None,
        follows: int | None = None,
    ) -> AppendResult:
        """Append the rows of `batch` as one frame; see `Partition.append`.

        `fence` is not called: the server itself asks whether the writer is the newest. Appends
        that are no named producer's get sequences here, for they may have to be sent twice.
        """
        del fence
        expected = columns_of_rows(self.schema, batch.schema.names)
        if not batch.schema.equals(expected):
            raise SchemaMismatchError(mismatch(self.name, expected, batch.schema))
        if batch.num_rows == 0 and not flags & FLAG_CONTROL:
            end = self.written_end
            return AppendResult(end, end)
        has_dictionaries = self.layouts.of(batch.schema).dictionary_count > 0
        rows, checksum = encode_rows(batch, has_dictionaries=has_dictionaries)
        if self._since is None:
            self._since = self.written_end
        request = m.Append(
            self.place,
            tuple(batch.schema.names),
            checksum,
            self._asker.sequences.next() if follows is None else sequence,
            since=self._since,
            follows=follows,
            owner_id=owner_id,
            epoch=epoch,
            transaction=transaction,
            flags=flags,
        )
        answer = self._asker.append(request, rows)
        # Later appends lie behind this one. Where threads race this may go back; no matter.
        self._since = answer.end_offset
        return AppendResult(answer.base_offset, answer.end_offset, answer.losses)

    def last_sequence(self, owner_id: int) -> int:
        """Return the sequence of an owner's last append to it; see `Partition.last_sequence`."""
        return self._asker.ask(m.FindSequence(self.place, owner_id), m.Offsets).offsets[0]

    def begin_sync(self) -> None:
        """Do nothing: it is the server that syncs."""

    def sync(self, until_offset: int | None = None, losses: int | None = None) -> None:
        """Return when the rows before `until_offset` (`None`: all) are durable.

        Raises `LostRowsError` where they were lost; see `Partition.sync`.
        """
        self._asker.ask(m.Sync(self.place, until_offset, losses), m.Done)

    @property
    def sealed(self) -> NoReturn:
        """Raise `OptionError`: files are cleaned where they are."""
        message = (
            f"partition {self.name} lies on a server, which cleans it by itself; to do it at once "
            "open the log's directory there"
        )
        raise OptionError(message)

    def verify(self) -> None:
        """Read the active segment anew and allow writes again; see `Partition.verify`."""
        self._asker.ask(m.Verify(self.place), m.Done)

    @property
    def first_offset(self) -> int:
        """Offset of the first row that is kept."""
        return self._ends().first_offset

    @property
    def written_end(self) -> int:
        """Offset behind the last row that was written."""
        return self._ends().written_end

    @property
    def durable_end(self) -> int:
        """Offset behind the last row that readers may see."""
        return self._ends().durable_end

    @property
    def settled_end(self) -> int:
        """An offset before which every transaction is known to be decided."""
        return self._ends().settled_end

    @property
    def is_closed(self) -> bool:
        """Whether it takes no rows for now; see `Partition.is_closed`."""
        return self._ends().closed

    def note_settled(self, offset: int) -> None:
        """Do nothing: the server finds out by itself, and takes nobody's word for it."""

    def segments(self) -> list[tuple[int, int]]:
        """Return (base offset, readable bytes) of each segment, in order."""
        return list(self._ends().segments)

    def offset_at_time(self, timestamp_us: int) -> int:
        """Return the offset of the first row of that time or later, else the end."""
        return self._asker.ask(m.FindTime(self.place, timestamp_us), m.Offsets).offsets[0]

    def skipping(self, condition: Condition, time_column: str | None = None) -> None:
        """Return `None`: the statistics are the server's, and every frame is looked at here."""
        del condition, time_column

    def frames(self, offset: int, columns: Collection[str] | None = None) -> RemoteCursor:
        """Return a cursor over the frames from the one that holds the row of `offset` on.

        Of the user's columns those beside `columns` (`None`: none) have zeros for values, which
        fail their checksums. Raises `OffsetOutOfRangeError` where `offset` is out of range.
        """
        wanted = None if columns is None else tuple(sorted(columns))
        return RemoteCursor(self, self._asker, offset, wanted)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        message = (
            f"partition {self.name} is at {self._asker.connection.address}, whose server does not "
            f"offer this ({name}); open the log's directory there"
        )
        raise OptionError(message)

    def _ends(self) -> m.Ends:
        return self._asker.ask(m.FindEnds(self.place), m.Ends)


class RemoteCursor:
    """Goes through a partition on a server, frame by frame; see `FrameCursor`.

    Frames come many at a time, as the bytes that are stored; what their checksums say is found
    out here.
    """

    def __init__(
        self,
        partition: RemotePartition,
        asker: Asker,
        offset: int,
        columns: tuple[str, ...] | None,
    ) -> None:
        self._columns = columns
        self._partition = partition
        self._asker = asker
        self._waiting: deque[Frame] = deque()
        self._next_offset = offset
        self._damage: tuple[tuple[str, str], int, Damage] | None = None
        self.offset = offset
        self._fetch()
        if self._waiting:
            self.offset = self._waiting[0].header.base_offset

    @property
    def is_at_hand(self) -> bool:
        """Whether `next` finds out without asking the server."""
        return bool(self._waiting)

    def next(self) -> Frame | None:
        """Return the next frame, or `None`: there is none now, later perhaps.

        Raises `CorruptSegmentError` where its header is damaged; a later call raises again.
        """
        if not self._waiting and self._damage is None:
            self._fetch()
        if not self._waiting:
            self.offset = self._next_offset
            if self._damage is None:
                return None
            source, position, damage = self._damage
            self._damage = None  # the next call asks again: it may have been the line
            raise corrupt(source, position, self.offset, damage)
        frame = self._waiting.popleft()
        self.offset = frame.end_offset if self._waiting else self._next_offset
        return frame

    def _fetch(self) -> None:
        """Ask for the frames that come next."""
        request = m.Read(self._partition.place, self._next_offset, READ_BYTES, self._columns)
        answer, content = self._asker.read(request)
        if not answer.head:
            self._next_offset = max(self._next_offset, answer.next_offset)
            return
        partition = self._partition
        source = partition.name, f"{answer.path} on {self._asker.connection.address}"
        head = try_head(memoryview(content), content.size)
        if isinstance(head, Damage):
            self._damage = source, 0, head
            return
        segment = Segment.try_open(*source, content, partition.layouts, head.base_offset)
        if isinstance(segment, Damage):
            self._damage = source, 0, segment
            return
        position = len(answer.head)
        expected: int | None = None
        while position < segment.limit:
            frame = segment.try_frame(position)
            if isinstance(frame, Frame) and expected not in {None, frame.header.base_offset}:
                frame = Damage(f"it starts with offset {frame.header.base_offset}, not {expected}")
            if isinstance(frame, Damage):
                self._damage = source, answer.position + position - len(answer.head), frame
                return
            position += frame.header.frame_size
            expected = frame.end_offset
            if expected >= self._next_offset:
                self._waiting.append(frame)
                self._next_offset = expected
        self._next_offset = max(self._next_offset, answer.next_offset)


def _checked(answer: m.Answer, expected: type[AnswerT]) -> AnswerT:
    if not isinstance(answer, expected):
        message = f"{expected.__name__} was asked for; the server sent {type(answer).__name__}"
        raise ProtocolError(message)
    return answer
