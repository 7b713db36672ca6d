"""Sinks: which rows are appended when, under which transaction, and what a checkpoint waits for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from millstream.errors import LogError
from millstream.log import Log
from millstream.log.fitting import FRAME_ROWS_MAX
from millstream.log.transactions import Writer
from millstream.runtime.background import AtOnce, Background
from millstream.runtime.graph import Edge, SinkNode
from millstream.runtime.sink import LogSink, MemorySink
from millstream.storage_memory import MemoryStorage
from tests.runtime.kit import EVENTS, Bench, event_log, events, rows_of

T = TypeVar("T")
NODE = SinkNode("sink-events", "events", Edge("rows"), EVENTS)


class Later:
    """Work that is done when the test says so."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._outcome: tuple[Any, BaseException | None] | None = None

    def run(self) -> None:
        try:
            self._outcome = self._work(), None
        except LogError as error:
            self._outcome = None, error

    def done(self) -> bool:
        return self._outcome is not None

    def result(self) -> Any:
        assert self._outcome is not None, "the work was not done yet"
        value, error = self._outcome
        if error is not None:
            raise error
        return value


class Beside:
    """A background that does nothing by itself."""

    def __init__(self) -> None:
        self.waiting: list[Later] = []

    def has_room(self) -> bool:
        return not self.waiting

    def submit(self, work: Callable[[], T], size_bytes: int = 0) -> Later:
        self.waiting.append(Later(work))
        return self.waiting[-1]

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0).run()


def sink(log: Log, background: Background | None = None) -> tuple[LogSink, Writer]:
    writer = log.transactions.writer("job test")
    return LogSink(NODE, log.producer("events", writer=writer), background or AtOnce()), writer


def transactions(log: Log) -> list[tuple[int, int]]:
    """Transaction and row count of each frame that was written."""
    partition = log.topic("events").partition(0)
    partition.sync()
    cursor, found = partition.frames(0), []
    while (frame := cursor.next()) is not None:
        found.append((frame.header.transaction, frame.header.row_count))
    return found


def test_rows_are_gathered_until_the_flush_of_their_transaction() -> None:
    log = event_log(Bench())
    filled, _ = sink(log)
    filled.append(events(1, 2), 5)
    filled.append(events(3), 5)
    assert transactions(log) == []
    assert filled.flush(5).result().keys() == {("events", 0)}
    filled.append(events(4), 6)
    filled.flush(6)
    assert transactions(log) == [(5, 3), (6, 1)]
    assert filled.rows_written == 4


def test_enough_rows_for_a_frame_are_appended_at_once() -> None:
    log = event_log(Bench())
    filled, _ = sink(log)
    half = events(*[1] * (FRAME_ROWS_MAX // 2))
    filled.append(half, 5)
    assert transactions(log) == []
    filled.append(half, 5)
    assert transactions(log) == [(5, FRAME_ROWS_MAX)]


def test_rows_that_would_not_fit_a_frame_begin_the_next() -> None:
    log = event_log(Bench())
    filled, _ = sink(log)
    most = FRAME_ROWS_MAX // 2 + 1
    filled.append(events(*[1] * most), 5)
    filled.append(events(*[2] * most), 5)
    assert transactions(log) == [(5, most)]
    filled.flush(5)
    assert transactions(log) == [(5, most), (5, most)]


def test_what_is_large_alone_is_not_copied_to_be_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    log = event_log(Bench())
    filled, _ = sink(log)
    monkeypatch.setattr("millstream.runtime.sink.FRAME_ALONE_BYTES", events(1, 2).nbytes)
    for batch in (events(1), events(2, 3), events(4), events(5, 6)):
        filled.append(batch, 5)
    filled.flush(5)
    assert transactions(log) == [(5, 4), (5, 2)]


def test_nobody_sees_rows_before_their_transaction_is_committed() -> None:
    log = event_log(Bench())
    filled, writer = sink(log)
    filled.append(events(1), 5)
    participants = filled.flush(5).result()
    log.transactions.sync(participants)
    assert rows_of(log, "events") == []
    log.transactions.decide(writer, 5, "commit")
    assert rows_of(log, "events", "value") == [(0,)]


def test_rows_of_united_streams_are_one_frame_though_they_differ_in_what_can_be_null() -> None:
    log = event_log(Bench())
    filled, _ = sink(log)
    required = pa.schema([each.with_nullable(False) for each in EVENTS])
    hidden = pa.field("_stamp", pa.int64())
    rows = events(1, 2)
    filled.append(pa.RecordBatch.from_arrays(rows.columns, schema=required), 5)
    filled.append(rows.append_column(hidden, pa.array([1, 2])), 5)
    filled.flush(5)
    assert transactions(log) == [(5, 4)]


def test_a_memory_sink_keeps_rows_in_their_order_and_in_its_schema() -> None:
    kept = MemorySink(NODE)
    assert kept.table().schema == EVENTS
    kept.append(events(2), 5)
    kept.append(events(1).append_column("_stamp", pa.array([1])), 5)
    assert kept.flush(5).result() == {}
    assert kept.table() == pa.Table.from_batches([events(2), events(1)])
    assert (kept.rows_written, kept.has_room()) == (2, True)


class TestBesideTheWorker:
    def test_appends_keep_their_order_and_their_transactions(self) -> None:
        log, beside = event_log(Bench()), Beside()
        filled, _ = sink(log, beside)
        filled.append(events(1, 2), 5)
        flushed = filled.flush(5)
        filled.append(events(3), 6)
        filled.flush(6)
        assert not filled.has_room()
        assert transactions(log) == []
        beside.run()
        assert transactions(log) == [(5, 2), (6, 1)]
        assert flushed.result().keys() == {("events", 0)}
        assert filled.has_room()

    @pytest.mark.parametrize("more_rows", [False, True])
    def test_a_checkpoint_is_not_complete_without_the_rows_of_an_append_that_failed(
        self, more_rows: bool
    ) -> None:
        log, beside = event_log(Bench()), Beside()
        filled, _ = sink(log, beside)
        filled.append(events(*[1] * FRAME_ROWS_MAX), 5)
        if more_rows:
            filled.append(events(2), 5)
        flushed = filled.flush(5)
        assert isinstance(log.storage, MemoryStorage)
        log.storage.fail("append", OSError(errno.ENOSPC, "No space left on device"))
        beside.run()
        with pytest.raises(LogError, match="No space left"):
            flushed.result()

    def test_an_append_that_failed_is_told_to_the_worker_with_its_next_rows(self) -> None:
        log, beside = event_log(Bench()), Beside()
        filled, _ = sink(log, beside)
        filled.append(events(*[1] * FRAME_ROWS_MAX), 5)
        assert isinstance(log.storage, MemoryStorage)
        log.storage.fail("append", OSError(errno.ENOSPC, "No space left on device"))
        beside.run()
        with pytest.raises(LogError, match="No space left"):
            filled.append(events(*[1] * FRAME_ROWS_MAX), 5)
