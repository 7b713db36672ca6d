"""What client and server of a log say to each other (PROTOCOL.md).

A message is JSON with the field `type`, and some carry bytes beside it. Everything here is
decoded into these types and no others.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from millstream import errors
from millstream.errors import LogError, MillstreamError, ProtocolError
from millstream.log.cleaner import Cleaning
from millstream.log.remote.group_messages import GroupAnswer, GroupRequest
from millstream.log.remote.numbers import Checksum, Count, Flags, Integer

PROTOCOL = b"millstream-log/1"
"""What a stream is opened with."""

CONTROL = "control"
"""The topic id of the control topic, which has one partition and is only read."""

BODY_BYTES_MAX = 1024 * 1024 * 1024
"""Of what is appended at once; a topic's `max.message.bytes` is mostly far less."""

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""Of the JSON of one message."""

READ_BYTES_MAX = 64 * 1024 * 1024
"""Of the frames that are read at once, unless a single one is larger."""

WAIT_US_MAX = 30_000_000
"""A server answers at least so often: nobody can tell a longer wait from a broken line."""


class Place(msgspec.Struct, frozen=True):
    """A partition: its topic's id (a later topic of that name has another), number, generation."""

    topic: str
    partition: Integer
    generation: Integer = 0


class WriterName(msgspec.Struct, frozen=True):
    """A `Writer`."""

    owner: str
    owner_id: Count
    epoch: Count


class ListTopics(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Topics`."""


class CreateTopic(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`; `config` is a `topic.json` whose id does not count.

    Where there is such a topic already, to the microsecond of its creation, this request has
    come before.
    """

    config: str
    if_not_exists: bool


class AlterTopic(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`; null takes a setting back to its default.

    `columns` is an Arrow schema message of the columns to add; empty: none.
    """

    topic: str
    config: dict[str, str | int | float | None]
    columns: bytes = b""


class Repartition(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`; also where the topic has so many partitions already."""

    topic: str
    partitions: Integer


class Follow(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`, once no repartition is under way: a generation was found closed.

    Where it is still the present one, its partitions take rows again.
    """

    topic: str
    generation: Integer


class DeleteTopic(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`, also where no topic has this name and id any more."""

    topic: str
    topic_id: str


class CleanTopic(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Cleaned`."""

    topic: str


class DescribeTopic(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Description`."""

    topic: str


class FindEnds(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Ends`."""

    place: Place


class FindStableEnds(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Offsets`: the last stable ones of some partitions of a topic."""

    topic: str
    generation: Integer
    partitions: tuple[Integer, ...]


class FindSequence(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Offsets`, one: the number of an owner's last append to a partition; 0: none."""

    place: Place
    owner_id: Count


class FindTime(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Offsets`, one: that of the first row of that time or later."""

    place: Place
    timestamp_us: Integer


class Append(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Appended`; beside it the rows, as a record batch message of Arrow IPC.

    `checksum` is the CRC-32C of these bytes. No other append has the same `sequence`, and this
    one may come twice. Then it `is_repeated`, and where the server does not remember it, it
    looks for it in the partition, from the offset `since` on. An append that `follows` another
    of its owner is one of a named producer, whose number `sequence` is; the log stores it once.
    """

    place: Place
    columns: tuple[str, ...]
    checksum: Checksum
    sequence: Count
    since: Count
    is_repeated: bool = False
    follows: Count | None = None
    owner_id: Count = 0
    epoch: Count = 0
    transaction: Count = 0
    flags: Flags = 0


class Sync(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`; or for a `LostRowsError`, where the partition's losses are others by now."""

    place: Place
    until_offset: Integer | None
    losses: Integer | None = None


class SyncAll(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`; topics by their names. `losses` are those of each, as in `Sync`."""

    participants: tuple[tuple[str, int], ...]
    losses: tuple[Integer | None, ...]


class Verify(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`."""

    place: Place


class Read(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Frames` from the one that holds `offset` on.

    Of the user's columns those beside `columns` (null: none) are not wanted.
    """

    place: Place
    offset: Integer
    bytes_max: Integer
    columns: tuple[str, ...] | None = None


class AwaitEnds(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Offsets`, the readable ends, as soon as one is not `ends` or the time is over."""

    places: tuple[Place, ...]
    ends: tuple[Integer, ...]
    timeout_us: Integer


class TakeEpoch(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Epoch`: the next of an owner."""

    owner: str


class Prepare(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`."""

    writer: WriterName
    number: Count
    participants: tuple[tuple[str, int], ...]


class Decide(msgspec.Struct, tag=True, frozen=True):
    """Asks for `Done`."""

    writer: WriterName
    number: Count
    outcome: Literal["commit", "abort"]
    manifest: str | None


Request = (
    ListTopics
    | CreateTopic
    | AlterTopic
    | Repartition
    | Follow
    | DeleteTopic
    | CleanTopic
    | DescribeTopic
    | FindEnds
    | FindStableEnds
    | FindSequence
    | FindTime
    | Append
    | Sync
    | SyncAll
    | Verify
    | Read
    | AwaitEnds
    | TakeEpoch
    | Prepare
    | Decide
    | GroupRequest
)


class Done(msgspec.Struct, tag=True, frozen=True):
    """It was done."""


class Topics(msgspec.Struct, tag=True, frozen=True):
    """The `topic.json` of each topic."""

    configs: tuple[str, ...]


class Description(msgspec.Struct, tag=True, frozen=True):
    """What `Topic.describe` returns, as JSON."""

    description: msgspec.Raw


class Cleaned(msgspec.Struct, tag=True, frozen=True):
    """What was done to each partition."""

    cleanings: tuple[Cleaning, ...]


class Ends(msgspec.Struct, tag=True, frozen=True):
    """Offsets of a partition, and its segments as (base offset, readable bytes)."""

    first_offset: Integer
    written_end: Integer
    durable_end: Integer
    settled_end: Integer
    segments: tuple[tuple[int, int], ...]
    closed: bool


class Offsets(msgspec.Struct, tag=True, frozen=True):
    """Offsets, in the order in which they were asked for."""

    offsets: tuple[Integer, ...]


class Appended(msgspec.Struct, tag=True, frozen=True):
    """Where rows were put, and the partition's losses up to then: for their `Sync`."""

    base_offset: Integer
    end_offset: Integer
    losses: Integer | None


class Frames(msgspec.Struct, tag=True, frozen=True):
    """Frames that lie side by side in a segment, whose bytes are beside it; or none.

    `next_offset` is where to read on; in a compacted topic there may be offsets without rows
    before it, and before the first frame. `head` are the first bytes of the segment, `path` and
    `position` say where on the server the frames are, for messages. `gaps` are the bytes that were
    left out, for nobody wants them: where in the frames each begins, and how many they are.
    """

    next_offset: Integer
    head: bytes = b""
    path: str = ""
    position: Integer = 0
    gaps: tuple[tuple[Integer, Integer], ...] = ()


class Epoch(msgspec.Struct, tag=True, frozen=True):
    """The writer that an owner has from now on."""

    writer: WriterName


class Failure(msgspec.Struct, tag=True, frozen=True):
    """What was asked for was refused, or went wrong; the stream goes on."""

    error: str
    message: str


Answer = (
    Done
    | Cleaned
    | Topics
    | Description
    | Ends
    | Offsets
    | Appended
    | Frames
    | Epoch
    | Failure
    | GroupAnswer
)

_requests = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """Return the JSON of a message."""
    return msgspec.json.encode(message)


def decode_request(content: bytes | memoryview) -> Request:
    """Return the request in `content`; raises `ProtocolError`."""
    try:
        _check_size(len(content))
        return _requests.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"this is no request that a log of version 1 knows: {error}; update the server"
        raise ProtocolError(message) from error


def decode_answer(content: bytes | memoryview) -> Answer:
    """Return the answer in `content`; raises `ProtocolError`."""
    try:
        _check_size(len(content))
        return _answers.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"this is no answer of a log of version 1: {error}; update the client"
        raise ProtocolError(message) from error


def failure_of(error: MillstreamError) -> Failure:
    """Return an error as it travels."""
    return Failure(type(error).__name__, str(error))


def error_of(failure: Failure) -> MillstreamError:
    """Return the error that a server had: of the same type, where that is one of ours."""
    kind = getattr(errors, failure.error, None)
    if not (isinstance(kind, type) and issubclass(kind, MillstreamError)):
        kind = LogError
    found: MillstreamError = kind(failure.message)
    return found


def _check_size(size_bytes: int) -> None:
    if size_bytes > MESSAGE_BYTES_MAX:
        message = f"a message has {size_bytes} bytes of JSON; {MESSAGE_BYTES_MAX} are allowed"
        raise ProtocolError(message)
