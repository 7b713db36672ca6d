"""A process of the simulation: everything that somebody may do to a log, one thing at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from millstream.errors import FencedError, OffsetOutOfRangeError
from millstream.log import Log
from millstream.log.backup import back_up
from millstream.log.producer import Producer
from millstream.log.reader import PartitionReader
from millstream.storage_memory import MemoryStorage
from tests.log.simulated.journal import PLACES, SCHEMA, History, Place, Sent, check_row, id_of

if TYPE_CHECKING:
    from tests.log.simulated.simulation import Simulation, Transaction

NAMES: dict[str, tuple[Place, ...]] = {"n": (("a", 0), ("a", 1)), "m": (("t", 0),)}
"""Named producers, and where each appends to."""

TRANSACTIONAL = (("a", 0), ("a", 1), ("b", 0), ("t", 0))
GROUP = "g"
COMMITTED_PLACE = ("a", 0)


class Process:
    """One life of a process: everything it has open, and what it waits for."""

    def __init__(self, world: Simulation, name: str, life: int) -> None:
        self.world = world
        self.name = name
        self.life = life
        self.random = world.random
        self.storage: MemoryStorage = world.disk.storage(f"{name}{life}")
        self.actions: list[Callable[[], None]] = [
            self.append, self.append_named, self.flush, self.transact, self.read,
            self.look_at_all, self.clean, self.clean_aside, self.erase, self.alter,
            self.commit_offset, self.back_up,
        ]  # fmt: skip
        self.weights = [5, 4, 3, 6, 5, 1, 2, 1, 0.7, 1, 1, 0.3]
        self.forget()

    def forget(self) -> None:
        """Open everything anew, as after an error of the disk; what was under way is forgotten."""
        self._log: Log | None = None
        self.transaction: Transaction | None = None
        self.producers: dict[str, Producer] = {}
        self.named: dict[str, tuple[Producer, int]] = {}
        """Named producers, and which of their appends comes next."""
        self.pending: dict[str, list[Sent]] = defaultdict(list)
        self.readers: dict[Place, tuple[PartitionReader, History]] = {}

    @property
    def log(self) -> Log:
        if self._log is None:
            self._log = Log("/log", storage=self.storage, clock=self.world.clock)
        return self._log

    def act(self) -> None:
        (chosen,) = self.random.choices(self.actions, self.weights)
        chosen()

    def new_sent(self, place: Place) -> Sent:
        """Return rows that nobody sent before."""
        world, rng = self.world, self.random
        first, count = len(world.by_id), rng.randrange(1, 5)
        ids = list(range(first, first + count))
        keys = [rng.randrange(4) for _ in ids]
        sent = Sent(place, ids, keys, self.life, "x" * rng.randrange(0, 200))
        sent.deletes = place[0] == "t" and rng.random() < 0.2
        if sent.deletes or rng.random() < 0.2:
            sent.values["_headers"] = _headers
        if rng.random() < 0.2:
            sent.values["_timestamp"] = _timestamp
        columns = world.columns.get(place[0], [])
        if columns and not sent.deletes and rng.random() < 0.5:
            name = rng.choice(columns)
            sent.values[name] = partial(_more, name)
        world.sent.append(sent)
        world.by_id.update(dict.fromkeys(ids, sent))
        return sent

    def write(self, producer: Producer, sent: Sent, **options: Any) -> None:
        """Give rows to a producer."""
        rows = _rows(sent)
        if sent.deletes:
            options.pop("partition")
            options.pop("sequence", None)
            producer.delete(rows, **options)
            return
        producer.append(rows, **options)

    def producer(self, topic: str) -> Producer:
        if topic not in self.producers:
            self.producers[topic] = self.log.producer(topic)
        return self.producers[topic]

    def append(self) -> None:
        topic, partition = place = self.random.choice(PLACES)
        sent = self.new_sent(place)
        self.write(self.producer(topic), sent, partition=partition)
        if topic == "os":
            sent.known = True
        else:
            self.pending[topic].append(sent)

    def append_named(self) -> None:
        """Append what a named producer did not get acknowledged yet, or what comes next."""
        world = self.world
        name = self.random.choice(list(world.named))
        work = world.named[name]
        try:
            if name not in self.named:
                topic = NAMES[name][0][0]
                producer = self.log.producer(topic, name=name)
                done = next((i for i, each in enumerate(work) if not each.known), len(work))
                self.named[name] = producer, done
            producer, index = self.named[name]
            if index == len(work):
                sent = self.new_sent(self.random.choice(NAMES[name]))
                sent.deletes = False
                work.append(sent)
            sent = work[index]
            self.write(producer, sent, partition=sent.place[1], sequence=index + 1)
            self.named[name] = producer, index + 1
            if self.random.random() < 0.5:
                producer.flush()
                for each in work[: index + 1]:
                    each.known = True
                world.counts["named"] += 1
        except FencedError:
            world.counts["fenced producers"] += 1
            self.named.pop(name, None)

    def flush(self) -> None:
        for topic, producer in self.producers.items():
            producer.flush()
            for sent in self.pending.pop(topic, []):
                sent.known = True

    def transact(self) -> None:
        """Begin a transaction, add to it, or decide it."""
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            transaction = self.world.begin(self)
        try:
            chance = self.random.random()
            if chance < 0.6:
                self.append_in(transaction)
                self.transaction = transaction  # after an error it is left to its fate
            elif chance < 0.7 and not transaction.has_offsets:
                self.commit_offset_in(transaction)
                self.transaction = transaction
            elif chance < 0.9:
                self.commit(transaction)
            else:
                transaction.state = "aborted"  # whatever becomes of the decision
                self.log.transactions.decide(transaction.writer, transaction.number, "abort")
        except FencedError:
            self.world.counts["fenced"] += 1
            transaction.state = "aborted"
            assert self.world.taken[transaction.writer.owner] > 1, "fenced by nobody"

    def append_in(self, transaction: Transaction) -> None:
        topic, partition = place = self.random.choice(TRANSACTIONAL)
        superseded = transaction.state == "aborted"
        producer = self.log.producer(topic, writer=transaction.writer)
        sent = self.new_sent(place)
        transaction.sent.append(sent)
        self.write(producer, sent, partition=partition, transaction=transaction.number)
        assert not superseded, "an append that should have been fenced"

    def commit_offset_in(self, transaction: Transaction) -> None:
        transaction.has_offsets = True
        with self.world.committing(transaction) as offset:
            self.log.group(GROUP).commit(
                {COMMITTED_PLACE: offset}, transaction.writer, transaction.number
            )

    def commit_offset(self) -> None:
        with self.world.committing(None) as offset:
            self.log.group(GROUP).commit({COMMITTED_PLACE: offset})

    def commit(self, transaction: Transaction) -> None:
        writer, number = transaction.writer, transaction.number
        superseded = transaction.state == "aborted"
        participants = sorted({each.place for each in transaction.sent})
        if transaction.has_offsets:
            participants.append((f"group:{GROUP}", 0))
        if self.random.random() < 0.5:
            self.log.transactions.prepare(writer, number, participants)
        else:
            self.log.transactions.sync(participants)
        if not superseded:
            transaction.state = "committing"
        self.log.transactions.decide(writer, number, "commit")
        assert not superseded, "a decision that should have been fenced"
        transaction.state = "committed"
        self.world.counts["commits"] += 1

    def read(self) -> None:
        """Read on in one partition; what comes must be what anybody saw there, and stay."""
        place = self.random.choice(PLACES)
        topic = self.log.topic(place[0])
        if place not in self.readers:
            partition = topic.partition(place[1])
            start = self.random.randrange(partition.first_offset, partition.durable_end + 1)
            history = History(place, start, start)
            self.readers[place] = self.reader(place, start), history
            self.world.histories.append(history)
        reader, history = self.readers[place]
        try:
            while (batch := reader.read_table(self.random.randrange(1, 9))) is not None:
                for row in batch.to_pylist():
                    check_row(row, place, self.world.by_id[id_of(row)])
                    history.rows.append((row["_offset"], id_of(row)))
                assert reader.position > history.rows[-1][0]
                history.position = reader.position
            history.position = reader.position
        except OffsetOutOfRangeError:
            assert reader.position < topic.partition(place[1]).first_offset, "nothing was removed"
            self.world.counts["overtaken"] += 1
            del self.readers[place]

    def reader(self, place: Place, start: int | None = None, isolation: Any = None) -> Any:
        columns = ["id", "key", "pad", "_offset", "_headers", "_timestamp"]
        return self.log.topic(place[0]).reader(
            place[1], offset=start, columns=columns, isolation=isolation or "read_committed"
        )

    def look_at_all(self) -> None:
        """A transaction that shows in one partition shows in every one that is read later.

        As far as these are stable: an older transaction may hold back what lies behind it.
        """
        shown: set[int] = set()
        places = [("a", 0), ("a", 1)]  # of the others rows are removed
        self.random.shuffle(places)
        for place in places:
            reader = self.reader(place)
            ids = set(_ids(reader))
            held_back = set(_ids(self.reader(place, reader.position, "read_uncommitted")))
            for transaction in self.world.transactions:
                of_place = {
                    number
                    for each in transaction.sent
                    if each.place == place
                    for number, key in zip(each.ids, each.keys, strict=True)
                    if not self.world.may_be_erased(place[0], key, number)
                }
                if id(transaction) in shown or of_place & ids:
                    assert of_place <= ids | held_back, f"{transaction} is seen in part"
                    shown.add(id(transaction))

    def clean(self) -> None:
        topic = self.random.choice("abt")
        for each in self.log.clean(topic):
            self.world.counts["removed"] += each.segments_removed
            self.world.counts["moved"] += each.segments_moved
            self.world.counts["compacted"] += each.compacted.rows_dropped

    def clean_aside(self) -> None:
        """Do what an append has left for a thread of its own."""
        self.storage.run_waiting()

    def erase(self) -> None:
        topic, key = self.random.choice("at"), self.random.randrange(4)
        keys = pa.table({"key": pa.array([key], pa.int8())})
        self.world.erasing(topic, key, partial(self.log.erase, topic, keys))

    def alter(self) -> None:
        """Add a column, or compress what comes in another way."""
        topic = self.random.choice("abt")
        names = self.world.columns[topic]
        if self.random.random() < 0.5:
            kind = self.random.choice(["none", "lz4", "zstd"])
            self.log.alter_topic(topic, config={"compression.type": kind})
            return
        world = self.world
        world.counts[f"columns of {topic}"] += 1
        name = f"more{world.counts[f'columns of {topic}']}"
        self.log.alter_topic(topic, add_columns=[pa.field(name, _type_of(name))])
        names.append(name)

    def back_up(self) -> None:
        """Back up, unless somebody is at it: one at a time may."""
        if not self.world.is_backing_up:
            self.world.back_up(lambda: back_up(self.log, "/spare").number)


def _ids(reader: PartitionReader) -> list[int]:
    ids: list[int] = []
    while (batch := reader.read_table()) is not None:
        ids += [id_of(row) for row in batch.to_pylist()]
    return ids


def _rows(sent: Sent) -> pa.RecordBatch:
    if sent.deletes:
        columns: dict[str, Any] = {"key": pa.array(sent.keys, pa.int8())}
    else:
        pads = [sent.pad] * len(sent.ids)
        arrays = [pa.array(sent.ids), pa.array(sent.keys, pa.int8()), pa.array(pads)]
        columns = dict(zip(SCHEMA.names, arrays, strict=True))
    for name, value in sent.values.items():
        values = [value(each) for each in sent.ids]
        columns[name] = pa.array(values, _type_of(name))
    return pa.record_batch(columns)


_TYPES = {
    "_headers": pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())])),
    "_timestamp": pa.timestamp("us", "UTC"),
}
_MORE_TYPES = (pa.int64(), pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.int64()))


def _type_of(name: str) -> pa.DataType:
    return _TYPES.get(name) or _MORE_TYPES[_number_of(name) % len(_MORE_TYPES)]


def _number_of(name: str) -> int:
    return int(name.removeprefix("more"))


def _headers(number: int) -> object:
    return [{"key": "id", "value": b"%d" % number}]


def _timestamp(number: int) -> object:
    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=number)


def _more(name: str, number: int) -> object:
    value = number * 10 + _number_of(name)
    return (value, f"{value}", [value])[_number_of(name) % len(_MORE_TYPES)]
