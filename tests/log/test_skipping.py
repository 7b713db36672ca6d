"""Reading with a condition gives the rows that fulfil it, and passes what cannot hold any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import (
    CorruptSegmentError,
    ExpressionTypeError,
    OptionError,
    UnknownColumnError,
)
from millstream.log import Log, Topic, index
from millstream.log.index import index_file_name
from millstream.log.predicate import Comparison, IsIn, IsNull, Not, Or, Predicate
from millstream.log.segment import segment_file_name
from tests.log.condition_kit import SCHEMA, chosen, predicates, rows, sql_of
from tests.log.log_kit import memory, memory_log, put
from tests.log.log_kit import rows as id_rows

IDS = pa.schema([("id", pa.int64()), ("text", pa.string())])


@pytest.fixture(autouse=True)
def every_frame_is_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "STRIDE", 1)


def sealed(topic: str, log: Log, frames: list[list[int]], segment_frames: int = 2) -> Topic:
    """A topic of one partition with these ids, some frames a segment, all sealed but the last."""
    size = 700 * segment_frames
    found = log.create_topic(topic, IDS, config={"segment.bytes": size})
    for ids in frames:
        put(log, topic, ids)
    return found


def ids(table: pa.Table) -> list[int]:
    found: list[int] = table.column("id").to_pylist()
    return found


frames_of_rows = st.lists(st.lists(rows(), min_size=1, max_size=3), min_size=1, max_size=6)


@settings(max_examples=60)
@given(frames_of_rows, predicates(), st.sampled_from([1, 5_000, 1 << 20]))
def test_any_condition_gives_what_duckdb_gives(
    frames: list[list[dict[str, Any]]], predicate: Predicate, segment_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(index, "STRIDE", 1)
        log = memory_log()
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": segment_bytes})
        with log.producer("x") as producer:
            for frame in frames:
                producer.append(pa.RecordBatch.from_pylist(frame, SCHEMA))
        everything = topic.to_arrow()
        found = topic.to_arrow(where=predicate)
        expected = chosen(everything, predicate)
    assert str(found.to_pylist()) == str(expected.to_pylist()), sql_of(predicate)  # NaN is NaN


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (("id", ">", 7), [8, 9, 10, 11]),
        (("id", "<", 1), [0]),
        (("id", "in", [3, 11]), [3, 11]),
        ([("id", ">=", 4), ("text", "is", None)], [4, 7, 10]),
        (("text", "=", "row 5"), [5]),
        (Not(Comparison("id", "<", 10)), [10, 11]),
        (Or((Comparison("id", "==", 0), IsNull("text"))), [0, 1, 4, 7, 10]),
        (pc.field("id") > 9, [10, 11]),
        (pc.field("id").isin([2, 5]) & ~(pc.field("id") == 5), [2]),
        (pc.field("id") + 1 > 11, [11]),
        ((pc.field("id") + 1 > 6) & (pc.field("id") < 8), [6, 7]),
    ],
)
def test_every_form_of_condition(where: object, expected: list[int]) -> None:
    topic = sealed("x", memory_log(), [[2 * i, 2 * i + 1] for i in range(6)])
    assert len(topic.partition(0).segments()) == 3
    assert ids(topic.to_arrow(where=where)) == expected
    assert topic.to_arrow(["text"], where=where).schema.names == ["text"]


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        (("idd", ">", 1), UnknownColumnError, "no column 'idd' for a condition; did you mean 'id'"),
        (("id", ">", "x"), ExpressionTypeError, "'id' of topic 'x' is int64, which cannot be"),
        (pc.field("idd") > 1, UnknownColumnError, "no column 'idd'"),
        (pc.field("id") > "x", ExpressionTypeError, "does not fit topic 'x'"),
        (("id", "==", None), OptionError, "nothing equals null"),
        (("id", "like", "x"), OptionError, "is no condition; the operators are"),
        (("id", "in", [None]), OptionError, "nothing equals null"),
        ("id > 1", OptionError, "a condition is (column, operator, value)"),
    ],
)
def test_a_condition_that_does_not_fit(where: object, error: type[Exception], words: str) -> None:
    topic = memory_log().create_topic("x", IDS)
    with pytest.raises(error) as raised:
        topic.to_arrow(where=where)
    assert words in str(raised.value)


def damage(log: Log, topic: Topic, base: int) -> None:
    """Flip a bit in the middle of each column's bytes of a segment."""
    path = f"{topic.partition(0).directory}/{segment_file_name(base)}"
    disk = memory(log)
    content = bytearray(disk.read_file(path))
    content[-40] ^= 1
    disk.write_file(path, bytes(content))


def test_what_is_refused_is_not_touched() -> None:
    log = memory_log()
    topic = sealed("x", log, [[i] for i in range(6)], segment_frames=1)
    bases = [base for base, _ in topic.partition(0).segments()]
    assert bases == list(range(6))
    for base in (0, 1, 4):
        damage(log, topic, base)
    assert ids(topic.to_arrow(where=("id", "in", [2, 3, 5]))) == [2, 3, 5]
    with pytest.raises(CorruptSegmentError):
        topic.to_arrow(where=("id", "==", 4))
    with pytest.raises(CorruptSegmentError):
        topic.to_arrow()


def test_a_damaged_segment_without_statistics_costs_only_who_reads_it() -> None:
    log = memory_log()
    topic = sealed("x", log, [[i] for i in range(4)], segment_frames=1)
    damage(log, topic, 1)
    memory(log).remove(f"{topic.partition(0).directory}/{index_file_name(1)}")
    with pytest.raises(CorruptSegmentError):
        topic.to_arrow(["id"], where=("text", "==", "row 3"))


def test_columns_are_read_only_where_a_row_is_wanted() -> None:
    log = memory_log()
    topic = log.create_topic("x", IDS)
    put(log, "x", [1, 2])
    put(log, "x", [3, 4])
    path = f"{topic.partition(0).directory}/{segment_file_name(0)}"
    content = bytearray(memory(log).read_file(path))
    content[content.index(b"row 2")] ^= 1
    memory(log).write_file(path, bytes(content))
    assert ids(topic.to_arrow(where=("id", ">", 2))) == [3, 4]
    with pytest.raises(CorruptSegmentError):
        topic.to_arrow(where=("id", ">", 1))


def test_flips_in_an_index_never_lose_a_row() -> None:
    log = memory_log()
    topic = sealed("x", log, [[0, 1], [2, 3], [4, 5], [6]], segment_frames=1)
    path = f"{topic.partition(0).directory}/{index_file_name(2)}"
    golden = memory(log).read_file(path)
    for position in range(0, len(golden), 5):
        content = bytearray(golden)
        content[position] ^= 1 << (position % 8)
        memory(log).write_file(path, bytes(content))
        again = Log("/log", storage=log.storage, clock=log.clock).topic("x")
        assert ids(again.to_arrow(["id"], where=("id", "==", 3))) == [3], position
        assert memory(log).read_file(path) == golden


class TestTransactions:
    @pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
    def test_rows_count_as_without_a_condition(self, isolation: Any) -> None:
        log = memory_log()
        topic = sealed("x", log, [[1], [2]], segment_frames=1)
        with log.transaction("a") as transaction:
            transaction.append("x", id_rows(3, 30))
        with pytest.raises(ZeroDivisionError), log.transaction("a") as transaction:
            transaction.append("x", id_rows(4, 40))
            raise ZeroDivisionError
        put(log, "x", [5, 50])
        writer = log.transactions.writer("b")
        with log.producer("x", writer=writer) as producer:
            producer.append(id_rows(6), transaction=1)
        put(log, "x", [7, 70])
        put(log, "x", [8])
        for where in [("id", ">", 9), ("id", "in", [3, 4, 70]), ("id", ">", 6), ("id", "<", 5)]:
            everything = topic.to_arrow(isolation=isolation)
            expected = everything.filter(
                pc.field("id").isin([i for i in ids(everything) if _fulfils(where, i)])
            )
            found = topic.to_arrow(where=where, isolation=isolation)
            assert ids(found) == ids(expected), where
            reader = topic.reader(0, where=where, isolation=isolation)
            while reader.read() is not None:
                pass
            end = topic.stable_end(0)
            assert reader.position == (end if isolation == "read_committed" else 12)


def _fulfils(where: tuple[str, str, Any], value: int) -> bool:
    _, operator, other = where
    return {"<": lambda: value < other, ">": lambda: value > other}.get(
        operator, lambda: value in other
    )()


def test_a_read_ends_where_it_is_told_to() -> None:
    topic = sealed("x", memory_log(), [[i] for i in range(8)], segment_frames=1)
    for until in range(9):
        reader = topic.reader(0, where=("id", ">=", 6))
        found = []
        while (batch := reader.read(until=until)) is not None:
            found += batch.column("id").to_pylist()
        assert found == [i for i in (6, 7) if i < until]
        assert reader.position == until


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=3), min_size=1, max_size=12),
    st.integers(0, 30),
    st.sampled_from([1, 2, 100]),
    st.sets(st.integers(0, 11)),
)
def test_times_that_are_passed_are_known_before_the_rows_behind(
    frames: list[list[int]], least: int, rows_max: int, in_transactions: set[int]
) -> None:
    """Each row that comes has the greatest time before it, of those that did not come, too."""
    schema = pa.schema([("n", pa.int64()), ("at", pa.timestamp("us", "UTC"))])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(index, "STRIDE", 1)
        log = memory_log()
        topic = log.create_topic("x", schema, time="at", config={"segment.bytes": 1_500})
        for number, times in enumerate(frames):
            batch = pa.record_batch([times, pa.array(times).cast(schema.types[1])], schema=schema)
            if number in in_transactions:
                with log.transaction("t") as transaction:
                    transaction.append("x", batch)
            else:
                with log.producer("x") as producer:
                    producer.append(batch)
        reader = topic.reader(0, where=("n", ">=", least), skips_only=True, time_column="at")
        everything = [each for frame in frames for each in frame]
        before = [max([-1, *everything[:i]]) for i in range(len(everything))]
        greatest, seen = -1, []
        for batch in _batches(reader, rows_max):
            passed = reader.take_passed_time()
            greatest = max(greatest, -1 if passed is None else passed)
            for value in batch.column("n").to_pylist():
                seen.append((value, greatest))
                greatest = max(greatest, value)
        passed = reader.take_passed_time()
        greatest = max(greatest, -1 if passed is None else passed)
    assert greatest == max(everything)
    assert reader.position == len(everything)
    expected = list(zip(everything, before, strict=True))
    wanted = [each for each in expected if each[0] >= least]
    assert [each for each in seen if each[0] >= least] == wanted


def _batches(reader: Any, rows_max: int) -> Iterator[pa.RecordBatch]:
    while (batch := reader.read(rows_max)) is not None:
        yield batch


def test_frames_are_passed_without_their_rows() -> None:
    log = memory_log()
    topic = sealed("x", log, [[i] for i in range(9)], segment_frames=1)
    reader = topic.reader(0, where=("id", "==", 7))
    assert ids(pa.table(reader.read())) == [7]
    many = IsIn("id", tuple(np.arange(100, 200).tolist()))
    assert topic.to_arrow(where=many).num_rows == 0
