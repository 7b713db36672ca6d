"""Carries out on a log what clients ask for; knows no sockets.

One object serves all clients, from any number of threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pyarrow as pa

from millstream.errors import (
    FencedError,
    InvalidTopicError,
    OptionError,
    ProtocolError,
    SchemaMismatchError,
    TopicExistsError,
    UnknownTopicError,
)
from millstream.log.bells import DECISIONS, Bells, bell_of
from millstream.log.columns import OPTIONAL_COLUMNS, columns_of_rows
from millstream.log.frame_header import FLAG_CONTROL
from millstream.log.log import Log
from millstream.log.partition import AppendResult, Partition
from millstream.log.remote import messages as m
from millstream.log.remote.frame_feed import FrameFeeds
from millstream.log.remote.group_messages import GroupRequest
from millstream.log.remote.group_service import GroupService
from millstream.log.remote.rows import bytes_of, decode_rows
from millstream.log.remote.sequences import client_of
from millstream.log.topic import Topic
from millstream.log.topic_config import TopicConfig
from millstream.log.transactions import GROUP_PARTICIPANT, Writer

CLIENTS_MAX = 65_536
"""Whose last append is remembered; a client that comes back after so many others is unknown."""


class LogService:
    """The log behind a server.

    Parameters
    ----------
    open_log
        Returns the log, opened anew.
    is_closing
        Tells whether the server is being closed: then nobody waits any longer.
    """

    def __init__(self, open_log: Callable[[], Log], is_closing: Callable[[], bool]) -> None:
        self._is_closing = is_closing
        # A log belongs to one thread at a time; its partitions to any. What goes through a whole
        # topic has a log of its own: it may take long, and nobody who appends waits for it.
        self._open_log = open_log
        self._log = open_log()
        self._lock = threading.RLock()
        self._observed = open_log()
        self._observing = threading.Lock()
        self._bells: Bells | None = None
        self._groups = GroupService(open_log, self._writer)
        self._partitions: dict[m.Place, Partition] = {}
        self._known_writers: set[tuple[int, int]] = set()
        self._last_appends: OrderedDict[tuple[int, m.Place], _LastAppend] = OrderedDict()

    def answer(
        self, request: m.Request, body: pa.RecordBatch | None, feeds: FrameFeeds
    ) -> tuple[m.Answer, pa.Buffer | None]:
        """Carry out a request and return the answer, and the bytes that go with it.

        Raises
        ------
        MillstreamError
            What the client is to be told.
        """
        if body is not None and not isinstance(request, m.Append):
            message = f"{type(request).__name__} comes without bytes; got {body.num_rows}"
            raise ProtocolError(message)
        if isinstance(request, GroupRequest):
            return self._groups.answer(request), None
        match request:
            case m.Append():
                return self._append(request, body), None
            case m.Read(place=place, offset=0) if self._is_missing(place):
                return m.Frames(0), None
            case m.Read(place=place):
                return feeds.read(request, self._partition(place))
            case m.AwaitEnds():
                return self._await_ends(request), None
            case m.SyncAll(participants=participants, losses=losses):
                if len(participants) != len(losses):
                    message = f"{len(participants)} participants with {len(losses)} losses"
                    raise ProtocolError(message)
                self._sync_all(participants, losses)
                return m.Done(), None
            case m.Sync(place=place, until_offset=until_offset, losses=losses_before):
                self._partition(place).sync(until_offset, losses_before)
                return m.Done(), None
            case m.Verify(place=place):
                self._partition(place).verify()
                return m.Done(), None
            case m.FindEnds(place=place):
                return _ends_of(self._partition(place)), None
            case m.FindSequence(place=place, owner_id=owner_id):
                return m.Offsets((self._partition(place).last_sequence(owner_id),)), None
            case m.FindTime(place=place, timestamp_us=timestamp_us):
                return m.Offsets((self._partition(place).offset_at_time(timestamp_us),)), None
            case m.TakeEpoch() | m.Prepare() | m.Decide():
                return self._transact(request), None
            case m.CleanTopic(topic=topic):
                # It may take long: nobody waits for it but who asked.
                return m.Cleaned(tuple(self._open_log().clean(topic))), None
            case m.DescribeTopic() | m.FindStableEnds():
                with self._observing:
                    return self._observe(request), None
            case _:
                with self._lock:
                    return self._list_or_change(request), None

    def _observe(self, request: m.DescribeTopic | m.FindStableEnds) -> m.Answer:
        log = self._observed
        match request:
            case m.DescribeTopic(topic=topic):
                return m.Description(msgspec.Raw(msgspec.json.encode(log.topic(topic).describe())))
            case m.FindStableEnds(topic=topic_id, generation=generation, partitions=partitions):
                found = _topic(log, topic_id)
                return m.Offsets(tuple(found.stable_end(each, generation) for each in partitions))

    def _list_or_change(self, request: m.Request) -> m.Answer:
        log = self._log
        match request:
            case m.ListTopics():
                return m.Topics(tuple(each.to_json().decode() for each in log.configs()))
            case m.CreateTopic(config=config, if_not_exists=if_not_exists):
                _create(log, _config_of(config), if_not_exists)
            case m.AlterTopic(topic=topic, config=changes, columns=columns):
                log.alter_topic(topic, config=changes, add_columns=_fields_of(columns))
            case m.Repartition(topic=topic, partitions=partitions):
                log.repartition(topic, partitions)
            case m.Follow(topic=topic, generation=generation):
                log.topic(topic).follow(generation)
            case m.DeleteTopic(topic=name, topic_id=topic_id):
                if (name, topic_id) in [(each.name, each.id) for each in log.configs()]:
                    log.delete_topic(name)
                for place in [each for each in self._partitions if each.topic == topic_id]:
                    del self._partitions[place]
            case _:
                message = f"{type(request).__name__} is no request of version 1; update the server"
                raise ProtocolError(message)
        return m.Done()

    def _append(self, request: m.Append, body: pa.RecordBatch | None) -> m.Appended:
        place = request.place
        if place.topic == m.CONTROL:
            message = "nobody appends to the control topic but the server itself"
            raise OptionError(message)
        self._log.refuse_mirror()
        partition = self._partition(place)
        if body is not None and body.nbytes > m.BODY_BYTES_MAX:
            message = f"rows of {body.nbytes} bytes come at once; {m.BODY_BYTES_MAX} are allowed"
            raise ProtocolError(message)
        if not set(request.columns).issubset([*partition.schema.names, *OPTIONAL_COLUMNS]):
            with self._lock:
                _topic(self._log, place.topic).refresh()  # somebody added columns
        rows = decode_rows(bytes_of(body), _columns(partition, request.columns), request.checksum)
        if request.flags & FLAG_CONTROL and rows.num_rows:
            message = f"a control marker has no rows; got {rows.num_rows}"
            raise ProtocolError(message)
        if request.follows is not None:
            if request.transaction:
                message = (
                    f"append {request.sequence} follows another of its owner, and belongs to "
                    f"transaction {request.transaction}; a named producer appends outside of them"
                )
                raise ProtocolError(message)
            if request.owner_id == 0:
                message = f"append {request.sequence} follows another of its owner; it has none"
                raise ProtocolError(message)
            # The log itself knows whether it is stored.
            return m.Appended(*self._append_to(partition, request, rows))
        last = self._last_append(client_of(request.sequence), place)
        # Held meanwhile: where a line broke, the append may come again while it is under way.
        with last.lock:
            if last.sequence != request.sequence or last.result is None:
                last.sequence, last.result = request.sequence, None
                last.result = self._append_once(partition, request, rows)
            return m.Appended(*last.result)

    def _append_once(
        self, partition: Partition, request: m.Append, rows: pa.RecordBatch
    ) -> AppendResult:
        """Append rows, unless another server, or this one in an earlier life, did already."""
        found = _stored(partition, request) if request.is_repeated else None
        return self._append_to(partition, request, rows) if found is None else found

    def _append_to(
        self, partition: Partition, request: m.Append, rows: pa.RecordBatch
    ) -> AppendResult:
        return partition.append(
            rows,
            owner_id=request.owner_id,
            epoch=request.epoch,
            sequence=request.sequence,
            transaction=request.transaction,
            flags=request.flags,
            fence=self._fence(request.owner_id, request.epoch, request.transaction),
            follows=request.follows,
        )

    def _last_append(self, client: int, place: m.Place) -> _LastAppend:
        with self._lock:
            key = client, place
            last = self._last_appends.setdefault(key, _LastAppend())
            self._last_appends.move_to_end(key)
            if len(self._last_appends) > CLIENTS_MAX:
                self._last_appends.popitem(last=False)
            return last

    def close(self) -> None:
        """End what is led for clients."""
        self._groups.close()

    def _fence(self, owner_id: int, epoch: int, transaction: int) -> Callable[[], None] | None:
        """Return what refuses, inside the append, a writer that is not the newest."""
        writer = self._writer(owner_id, epoch, transaction)
        transactions = self._log.transactions
        return None if writer is None else lambda: transactions.check(writer)

    def _writer(self, owner_id: int, epoch: int, transaction: int) -> Writer | None:
        """Return the writer that these name, or `None`: nobody; one that never was is refused."""
        if owner_id == 0:
            if epoch or transaction:
                message = f"a transaction has an owner; {transaction} of epoch {epoch} has none"
                raise ProtocolError(message)
            return None
        transactions = self._log.transactions
        if (owner_id, epoch) not in self._known_writers:
            with self._lock:
                transactions.refresh()
                current = transactions.current_epoch(owner_id)
                if not 1 <= epoch <= current:
                    message = f"owner {owner_id} has epoch {current}; nobody was given {epoch}"
                    raise FencedError(message)
                if len(self._known_writers) >= CLIENTS_MAX:
                    self._known_writers.clear()
                self._known_writers.add((owner_id, epoch))
        return Writer(transactions.owner(owner_id), owner_id, epoch)

    def _transact(self, request: m.TakeEpoch | m.Prepare | m.Decide) -> m.Answer:
        transactions = self._log.transactions
        match request:
            case m.TakeEpoch(owner=owner):
                with self._lock:
                    writer = transactions.writer(owner)
                return m.Epoch(m.WriterName(writer.owner, writer.owner_id, writer.epoch))
            case m.Prepare(number=number, participants=participants):
                self._sync_all(participants, [None] * len(participants))
                with self._lock:
                    transactions.prepare(_writer(request.writer), number, participants)
            case m.Decide(number=number, outcome=outcome, manifest=manifest):
                content = None if manifest is None else manifest.encode()
                with self._lock:
                    transactions.decide(_writer(request.writer), number, outcome, content)
        return m.Done()

    def _sync_all(
        self, participants: Sequence[tuple[str, int]], losses: Sequence[int | None]
    ) -> None:
        """Make partitions durable outside of the lock: a disk may take its time."""
        for (topic, partition), losses_before in zip(participants, losses, strict=True):
            with self._lock:
                if topic.startswith(GROUP_PARTICIPANT):
                    self._log.sync_participant((topic, partition))
                    continue
                found = self._log.topic(topic).participant(partition)
            if found is not None:
                found.sync(losses=losses_before)

    def _await_ends(self, request: m.AwaitEnds) -> m.Offsets:
        if len(request.places) != len(request.ends) or not request.places:
            message = f"{len(request.places)} partitions with {len(request.ends)} ends"
            raise ProtocolError(message)
        for place in request.places:
            self._end(place)  # raises where there is no such partition
        clock = self._log.clock
        deadline_us = clock.monotonic_us() + min(request.timeout_us, m.WAIT_US_MAX)
        bells = self._bells
        if bells is None:  # there is a folder for them once there is a partition to wait for
            bells = self._bells = Bells(self._log.path, self._log.storage, clock)
        numbers = [_bell(place) for place in request.places]
        closed = [self._is_closed(place) for place in request.places]
        while True:
            rung = bells.listen(numbers)
            ends = tuple(self._end(place) for place in request.places)
            left_us = deadline_us - clock.monotonic_us()
            changed = ends != request.ends or closed != [
                self._is_closed(place) for place in request.places
            ]
            if changed or left_us <= 0 or self._is_closing():
                return m.Offsets(ends)
            bells.wait(rung, left_us)

    def _end(self, place: m.Place) -> int:
        """Return the offset behind the last row that readers may see."""
        return 0 if self._is_missing(place) else self._partition(place).durable_end

    def _is_closed(self, place: m.Place) -> bool:
        return not self._is_missing(place) and self._partition(place).is_closed

    def _is_missing(self, place: m.Place) -> bool:
        """Return `True` iff `place` is the control topic and nobody ever owned anything."""
        if place.topic != m.CONTROL or place in self._partitions:
            return False
        with self._lock:
            return self._log.transactions.partition() is None

    def _partition(self, place: m.Place) -> Partition:
        found = self._partitions.get(place)
        if found is None:
            with self._lock:
                if place.topic == m.CONTROL:
                    control = self._log.transactions.partition()
                    if control is None:
                        message = "the log has no control topic: nobody ever owned anything"
                        raise UnknownTopicError(message)
                    found = control
                else:
                    found = _topic(self._log, place.topic).partition(
                        place.partition, place.generation
                    )
                self._partitions[place] = found
        return found


class _LastAppend:
    """The last append of a client to a partition."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sequence = -1
        self.result: AppendResult | None = None


def _bell(place: m.Place) -> int:
    return DECISIONS if place.topic == m.CONTROL else bell_of(place.topic, place.partition)


def _topic(log: Log, topic_id: str) -> Topic:
    """Return a topic by its id."""
    names = [each.name for each in log.configs() if each.id == topic_id]
    if not names:
        message = (
            f"no topic with the id {topic_id!r} in the log {log.path}: it was deleted; open the "
            "topic anew"
        )
        raise UnknownTopicError(message)
    return log.topic(names[0])


def _stored(partition: Partition, request: m.Append) -> AppendResult | None:
    """Return where an append is that was carried out before, or `None`: it was not."""
    partition.sync()  # or it could not be seen
    cursor = partition.frames(max(request.since, partition.first_offset))
    while (frame := cursor.next()) is not None:
        header = frame.header
        if (header.sequence, header.owner_id) == (request.sequence, request.owner_id):
            return AppendResult(header.base_offset, header.end_offset, partition.losses)
    return None


def _columns(partition: Partition, names: Sequence[str]) -> pa.Schema:
    """Return the columns that rows come with: the partition's, in its order."""
    schema = columns_of_rows(partition.schema, names)
    if list(names) != schema.names:
        message = f"partition {partition.name} has the columns {schema.names}; got {list(names)}"
        raise SchemaMismatchError(message)
    return schema


def _ends_of(partition: Partition) -> m.Ends:
    # In this order: what is asked for later is never less.
    settled, durable = partition.settled_end, partition.durable_end
    written, segments = partition.written_end, tuple(partition.segments())
    return m.Ends(partition.first_offset, written, durable, settled, segments, partition.is_closed)


def _create(log: Log, config: TopicConfig, if_not_exists: bool) -> None:
    try:
        log.create_configured(config, if_not_exists=if_not_exists)
    except TopicExistsError:
        # Where the answer was lost, it was this request itself that created it.
        if replace(log.topic(config.name).config, id=config.id) != config:
            raise


def _config_of(content: str) -> TopicConfig:
    try:
        return TopicConfig.from_json(content.encode(), "the request")
    except (ValueError, OverflowError) as error:
        if isinstance(error, InvalidTopicError):
            raise
        message = f"the request describes no topic: {error}"
        raise InvalidTopicError(message) from error


def _fields_of(columns: bytes) -> list[pa.Field]:
    try:
        return list(pa.ipc.read_schema(pa.py_buffer(columns))) if columns else []
    except (pa.ArrowException, OSError) as error:
        message = f"the request names no columns to add: {error}"
        raise InvalidTopicError(message) from error


def _writer(name: m.WriterName) -> Writer:
    return Writer(name.owner, name.owner_id, name.epoch)
