"""What a log promises, checked where a simulation ends, and of each backup that was made in it.

Every acknowledged row is there once, in order and as it was sent; of a transaction all rows or
none; nothing that anybody could read has changed or gone, but for what retention and compaction
take away; and readers got all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from millstream.errors import UnknownGroupError
from millstream.log import Log
from millstream.log.backup import restore
from tests.log.simulated.journal import PLACES, JournalRow, Place, Sent, check_row, id_of
from tests.log.simulated.process import COMMITTED_PLACE, GROUP

if TYPE_CHECKING:
    from tests.log.simulated.simulation import Simulation, Transaction

RETENTION_BYTES = 2_500
COLUMNS = ["id", "key", "pad", "_offset", "_headers", "_timestamp"]


class Expected:
    """What a log, all of whose transactions are decided, has to show of a journal.

    Parameters
    ----------
    world
        The simulation.
    log
        The log itself, or one that was restored.
    places
        What is looked at.
    """

    def __init__(self, world: Simulation, log: Log, places: Iterable[Place]) -> None:
        self.log = log
        self.ends = {each: log.topic(each[0]).durable_ends()[each[1]] for each in places}
        journal = world.onlooker.rows
        self.rows = {each: journal[each][:end] for each, end in self.ends.items()}
        self.place_of = {
            row.id: offset for each in places for offset, row in enumerate(self.rows[each])
        }
        log.transactions.refresh()

    def is_committed(self, row: JournalRow) -> bool:
        if row.transaction is None:
            return True
        return self.log.transactions.decision(*row.transaction) == "committed"

    def committed(self, place: Place) -> dict[int, JournalRow]:
        """Return the rows that count, by offset."""
        return {at: row for at, row in enumerate(self.rows[place]) if self.is_committed(row)}

    def has(self, sent: Sent) -> bool | None:
        """Return whether rows are there; `None`: some of them."""
        there = {each in self.place_of for each in sent.ids}
        return there.pop() if len(there) == 1 else None


def check_log(world: Simulation) -> None:
    """Open the log once more, decide what is open, and compare it with what was told."""
    log = Log("/log", storage=world.disk.storage("end"), clock=world.clock)
    _settle(log)
    for topic, _ in PLACES:
        log.topic(topic).durable_ends()  # recovers what nobody opened since the last power cut
    world.onlooker.look()
    expected = Expected(world, log, PLACES)
    for place, end in expected.ends.items():
        assert end == len(world.onlooker.rows[place]), f"{place} ends at {end}"
    ids = Counter(row.id for rows in expected.rows.values() for row in rows)
    twice = [world.by_id[each] for each, count in ids.items() if count > 1]
    assert not twice, f"rows are there twice: {twice}"
    known = {each for each in world.sent if each.known}
    committed = {each for each in world.transactions if each.state == "committed"}
    check_known(world, expected, known, committed)
    for place in PLACES:
        if expected.rows[place]:  # else it has no rows: its end says so
            check_place(world, expected, place)
            check_order(world, expected, place)
    check_histories(world, expected)
    check_offsets(world, log)
    check_erasures(world, expected)
    control = log.transactions.partition()
    world.counts["shortened"] += control is not None and control.first_offset > 0
    world.counts["rows kept"] += sum(len(each.ids) for each in known)


def check_backups(world: Simulation) -> None:
    """Restore the last backup, and compare it with what was told before it was begun."""
    if not world.backups:
        return
    backup = world.backups[-1]
    storage = world.disk.storage("restore")
    restore("/spare", "/restored", storage, backup.number)
    log = Log("/restored", storage=storage, clock=world.clock)
    _settle(log)
    # Of `os` a power cut may have taken back what was backed up.
    is_cut = world.counts["power cuts"] != backup.power_cuts
    places = [each for each in PLACES if each[0] != "os" or not is_cut]
    expected = Expected(world, log, places)
    known = {each for each in backup.rows if each.place in places}
    check_known(world, expected, known, backup.transactions)
    for place in places:
        if expected.rows[place]:
            check_place(world, expected, place)


def check_known(
    world: Simulation, expected: Expected, known: set[Sent], committed: set[Transaction]
) -> None:
    """Appends are there whole or not at all, transactions too; what is known is there."""
    in_transactions = {sent for each in world.transactions for sent in each.sent}
    for sent in world.sent:
        if sent.place in expected.ends:
            there = expected.has(sent)
            assert there is not None, f"{sent} is there in part"
            assert there or sent not in known, f"{sent} was acknowledged and is gone"
    assert not in_transactions & known
    decision = expected.log.transactions.decision
    for each in world.transactions:
        key = each.writer.owner_id, each.writer.epoch, each.number
        is_committed = decision(*key) == "committed"
        if each in committed:
            assert is_committed, f"{each} was committed and is not"
        if each.state in {"open", "aborted"}:
            assert not is_committed, f"{each} was not committed and is"
        if is_committed:
            for sent in each.sent:
                if sent.place in expected.ends:
                    assert expected.has(sent), f"{each} is there in part"


def check_place(world: Simulation, expected: Expected, place: Place) -> None:
    """A reader from the first row on gets what it should, and the table has the latest rows."""
    topic = expected.log.topic(place[0])
    partition = topic.partition(place[1])
    first = partition.first_offset
    if place[0] == "b" and first:
        assert sum(size for _, size in partition.segments()) >= RETENTION_BYTES
    else:
        assert first == 0, f"{place} begins with {first}"
    more = [each for each in topic.schema.names if each not in COLUMNS]
    reader = topic.reader(place[1], columns=COLUMNS + more)
    found = []
    while (batch := reader.read_table()) is not None:
        for row in batch.to_pylist():
            check_row(row, place, world.by_id[id_of(row)])
            found.append((row["_offset"], id_of(row)))
    committed = expected.committed(place)
    check_reading(world, found, {at: row for at, row in committed.items() if at >= first}, place)
    if place[0] == "t":
        check_table(world, topic.latest().select(["key", "id"]).to_pylist(), committed.values())


def check_table(
    world: Simulation, found: list[dict[str, int]], committed: Iterable[JournalRow]
) -> None:
    """The table has the latest row of each key, or, where that was erased, none."""
    ids = {row["key"]: row["id"] for row in found}
    assert len(ids) == len(found), "a key has two rows"
    latest = {row.key: row for row in committed}
    assert ids.keys() <= latest.keys()
    for key, row in latest.items():
        expected = {None if row.deletes else row.id}
        if world.may_be_erased("t", key, row.id):
            expected.add(None)
        assert ids.get(key) in expected, f"the table has {ids.get(key)}, the latest is {row}"


def check_reading(
    world: Simulation,
    found: list[tuple[int, int]],
    committed: dict[int, JournalRow],
    place: Place,
) -> None:
    """What was read is of `committed`, in order, and lacks only what may have been taken away."""
    offsets = [offset for offset, _ in found]
    assert offsets == sorted(set(offsets)), f"{place} was read out of order"
    for offset, number in found:
        row = committed.get(offset)
        assert row is not None, f"{number} at {offset} of {place} does not count"
        assert row.id == number, f"{number} at {offset} of {place}; it was {row}"
    last = {row.key: offset for offset, row in committed.items()}
    for offset in committed.keys() - set(offsets):
        row = committed[offset]
        may_go = place[0] == "t" and (row.deletes or last[row.key] > offset)
        may_go = may_go or world.may_be_erased(place[0], row.key, row.id)
        assert may_go, f"{row} at {offset} of {place} is missing"


def check_erasures(world: Simulation, expected: Expected) -> None:
    """What was erased is in no file that is read."""
    for each in world.erasures:
        for place, end in each.before.items() if each.known else ():
            reader = expected.log.topic(place[0]).reader(
                place[1], columns=["key", "_offset"], isolation="read_uncommitted"
            )
            while (batch := reader.read_table()) is not None:
                for row in batch.to_pylist():
                    assert row["_offset"] >= end or row["key"] != each.key, f"{row}; {each}"


def check_order(world: Simulation, expected: Expected, place: Place) -> None:
    """Rows of a life of a process are in the order in which it appended them.

    Those of a named producer are in the order of its sequences.
    """
    work_of = {sent: name for name, work in world.named.items() for sent in work}
    last: dict[object, int] = {}
    for row in expected.rows[place]:
        sent = world.by_id[row.id]
        line: object = work_of.get(sent, sent.life)
        order = world.named[work_of[sent]].index(sent) if sent in work_of else row.id
        assert last.get(line, -1) <= order, f"{sent} comes too late"
        last[line] = order


def check_histories(world: Simulation, expected: Expected) -> None:
    """Every reader got all that was to be read where it read, and is not beyond the end."""
    for each in world.histories:
        assert each.position <= expected.ends[each.place], f"{each} is beyond the end"
        committed = expected.committed(each.place)
        passed = {at: row for at, row in committed.items() if each.start <= at < each.position}
        # A later row that it did not get to may have replaced one before it came.
        last = {row.key: offset for offset, row in committed.items()}
        got = {offset for offset, _ in each.rows}
        if each.place[0] == "t":
            passed = {at: row for at, row in passed.items() if at in got or last[row.key] == at}
        check_reading(world, each.rows, passed, each.place)


def check_offsets(world: Simulation, log: Log) -> None:
    """The group's offset is that of the last commit that counts."""
    known = [
        each
        for each in world.commits
        if each.known and (each.transaction is None or each.transaction.state == "committed")
    ]
    try:
        found = log.group(GROUP).committed().get(COMMITTED_PLACE)  # type: ignore[call-overload]
    except UnknownGroupError:
        found = None
    if found is None:
        assert not known, f"{known[-1]} is gone"
        return
    commit = world.commits[found]
    transaction = commit.transaction
    assert transaction is None or transaction.state in {"committed", "committing"}, commit
    later = [each for each in known if each.began > commit.ended]
    assert not later, f"{commit} holds instead of {later}"


def _settle(log: Log) -> None:
    """Abort what is undecided, as the next life of each owner does."""
    for owner in log.transactions.owners():
        log.transactions.writer(owner)
