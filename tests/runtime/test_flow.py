"""What takes an edge's rows inside a stage: operators, sends to other workers, sinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from millstream.clock import Clock, ManualClock
from millstream.errors import CorruptSegmentError, JobError
from millstream.operators.operator import Emit, OperatorCounters
from millstream.runtime.activity import OperatorActivity
from millstream.runtime.flow import OperatorInputs, SendInput, SinkInput
from millstream.runtime.gathering import Consumer
from millstream.runtime.graph import Edge, ExchangeNode, OperatorNode
from millstream.runtime.hosts.memory_channel import MemoryChannel
from millstream.runtime.messages import Barrier, Batch, End, Message, Watermark
from millstream.windows.watermark import WATERMARK_MIN
from tests.runtime.kit import EVENTS, events

EVENT = events(1)


@dataclass
class Around:
    """What a consumer knows of its stage."""

    transaction: int = 5
    reading: str = "events/0, offsets 3 to 4"
    bounded: bool = False
    rests: int = 0
    clock: Clock = field(default_factory=ManualClock)
    activity: dict[str, OperatorActivity] = field(
        default_factory=lambda: {"mine": OperatorActivity()}
    )

    def place_of_failure(self, operator: str) -> str:
        return f"the place of {operator}'s row"


class Notes:
    """A consumer that writes down what it is given."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        self.found.append(rows.num_rows)
        yield from ()

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        self.found.append((watermark_us, idle))
        yield from ()

    def end(self) -> Iterator[None]:
        self.found.append("end")
        yield from ()


@dataclass(frozen=True)
class Config:
    """Of an operator with two outputs."""

    timed: bool = False
    output_schemas: tuple[pa.Schema, ...] = (EVENTS, EVENTS)


class Doubling:
    """Gives each batch out twice, once a port; keeps time 10 behind; flushes one row."""

    def __init__(self, error: Exception | None = None) -> None:
        self.counters = OperatorCounters()
        self.error = error

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        if self.error is not None:
            raise self.error
        yield Emit(0, batch)
        yield Emit(1, batch.slice(0, 1))

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        if watermark_us >= 100:
            yield Emit(0, EVENT)

    def output_watermark(self, watermark_us: int) -> int:
        return max(watermark_us - 10, WATERMARK_MIN)

    def on_end(self) -> Iterator[Emit]:
        yield Emit(0, EVENT)


class Keeping(Doubling):
    """Holds a row back until it is asked for it."""

    held_rows = 1

    def pass_on(self) -> Iterator[Emit]:
        if self.held_rows:
            self.held_rows = 0
            yield Emit(0, EVENT)


def operator(
    inputs: int = 1,
    *,
    around: Around | None = None,
    timed: bool = False,
    error: Any = None,
    running: Any = None,
) -> tuple[OperatorInputs, Doubling, Notes, Notes]:
    """An operator, and notes of its two outputs."""
    node: Any = OperatorNode("mine", Config(timed), (Edge("rows"),) * inputs, "job.py:7")  # type: ignore[arg-type]  # the parts that are used
    running = running or Doubling(error)
    first, second = Notes(), Notes()
    consumers: dict[Edge, Sequence[Consumer]] = {
        Edge("mine"): [first],
        Edge("mine", 1): [second],
    }
    made = OperatorInputs(node, running, consumers, around or Around(), held_rows=2)
    return made, running, first, second


def done(work: Iterator[None]) -> None:
    assert list(work) == []


class TestOperatorInputs:
    def test_each_output_goes_to_those_who_take_its_port(self) -> None:
        inputs, _, first, second = operator()
        done(inputs.input(0).rows(events(1, 2)))
        assert (first.found, second.found) == ([2], [1])

    def test_the_least_watermark_of_the_inputs_counts_and_results_leave_before_it(self) -> None:
        inputs, _, first, second = operator(2)
        done(inputs.input(0).watermark(150, False))
        assert first.found == []
        done(inputs.input(1).watermark(120, False))
        assert (first.found, second.found) == ([1, (110, False)], [(110, False)])
        done(inputs.input(0).watermark(160, False))
        assert len(first.found) == 2

    def test_it_rests_between_pieces_of_one_input(self) -> None:
        around = Around()
        inputs, running, first, second = operator(around=around)
        pieces = iter([Emit(0, EVENT), Emit(1, EVENT), Emit(0, EVENT), Emit(0, EVENT)])
        running.on_batch = lambda input_index, batch: pieces  # type: ignore[method-assign]
        work = inputs.input(0).rows(EVENT)
        next(work)
        assert (first.found, second.found, around.rests) == ([1], [1], 1)
        next(work)
        assert (first.found, around.rests) == ([1, 1], 2)
        assert next(work, "over") == "over"
        assert (first.found, around.rests) == ([1, 1, 1], 2)

    def test_an_idle_input_holds_back_nobody(self) -> None:
        inputs, _, first, _ = operator(2)
        done(inputs.input(0).watermark(50, False))
        done(inputs.input(1).watermark(WATERMARK_MIN, True))
        done(inputs.input(0).watermark(60, True))
        assert first.found == [(40, False), (50, True)]

    def test_it_ends_with_its_last_input_and_gives_out_what_is_open_before(self) -> None:
        inputs, _, first, second = operator(2)
        done(inputs.input(0).watermark(50, False))
        done(inputs.input(1).end())
        assert first.found == [(40, False)]
        done(inputs.input(0).end())
        assert first.found == [(40, False), (40, True), 1, "end"]
        assert second.found == [(40, False), (40, True), "end"]

    def test_what_is_held_back_leaves_before_nobody_waits_for_it_any_more(self) -> None:
        keeping = Keeping()
        inputs, _, first, _ = operator(2, running=keeping)
        done(inputs.input(0).watermark(50, True))
        done(inputs.input(1).watermark(60, False))
        assert inputs.holds
        assert first.found == [(50, False)]
        done(inputs.input(1).watermark(70, True))
        assert not inputs.holds
        assert first.found == [(50, False), 1, (60, True)]
        keeping.held_rows = 2
        done(inputs.pass_on())
        assert first.found[3:] == [1]

    def test_no_more_is_held_back_than_may_be(self) -> None:
        keeping = Keeping()
        inputs, _, first, _ = operator(running=keeping)
        for keeping.held_rows in (2, 3):
            done(inputs.input(0).rows(EVENT))
        assert first.found == [1, 1, 1]
        assert not inputs.holds

    @pytest.mark.parametrize(
        ("timed", "bounded", "open_count", "idle"),
        [
            (True, True, 1, False),
            (True, True, 0, True),
            (True, False, 1, True),
            (False, True, 1, True),
        ],
    )
    def test_in_a_bounded_run_an_operator_is_not_idle_while_something_is_open(
        self, timed: bool, bounded: bool, open_count: int, idle: bool
    ) -> None:
        inputs, running, first, _ = operator(timed=timed, around=Around(bounded=bounded))
        running.counters.state_keys = open_count
        done(inputs.input(0).watermark(50, True))
        assert first.found == [(40, idle)]

    def test_a_failure_names_operator_line_and_rows(self) -> None:
        for error, reason in (
            (ValueError("no"), "ValueError: no"),
            (JobError("a row has no event time"), "a row has no event time"),
        ):
            inputs, *_ = operator(error=error)
            with pytest.raises(JobError) as raised:
                done(inputs.input(0).rows(events(1)))
            assert str(raised.value) == (
                "job.py:7: operator 'mine' failed (at events/0, offsets 3 to 4): " + reason
            )
            assert raised.value.__cause__ is error

    def test_errors_of_the_log_pass_as_they_are(self) -> None:
        inputs, *_ = operator(error=CorruptSegmentError("damaged"))
        with pytest.raises(CorruptSegmentError, match=r"^damaged$"):
            done(inputs.input(0).rows(events(1)))

    def test_it_counts_what_passes_and_how_long_it_computes(self) -> None:
        around = Around()
        inputs, *_ = operator(around=around)
        done(inputs.input(0).rows(events(1, 2)))
        activity = around.activity["mine"]
        assert activity.bytes_in == events(1, 2).nbytes
        assert activity.bytes_out > activity.bytes_in


def send(parallelism: int, limit_bytes: int = 10**6) -> tuple[SendInput, list[MemoryChannel]]:
    channels = [MemoryChannel(limit_bytes) for _ in range(parallelism)]
    return SendInput(ExchangeNode("exchange", Edge("rows"), ("key",), EVENTS), channels), channels


def taken(channel: MemoryChannel) -> list[Message]:
    found = []
    while channel.peek() is not None:
        found.append(channel.take())
    return found


class TestSend:
    def test_rows_of_a_key_go_to_one_worker_and_the_rest_to_everybody(self) -> None:
        sent, channels = send(3)
        for key in "abcdef":
            done(sent.rows(events(1, 2, key=key)))
        done(sent.watermark(7, True))
        sent.broadcast(Barrier(5))
        done(sent.end())
        keys: list[str] = []
        for channel in channels:
            *batches, watermark, barrier, end = taken(channel)
            assert (watermark, barrier, end) == (Watermark(7, True), Barrier(5), End())
            for each in batches:
                assert isinstance(each, Batch)
                keys += each.rows.column("key").to_pylist()
        assert sorted(keys) == sorted("abcdef" * 2)

    def test_it_rests_where_there_is_no_room_and_goes_on_from_there(self) -> None:
        sent, channels = send(1, limit_bytes=1)
        (channel,) = channels
        rows = events(1)
        done(sent.rows(rows))
        assert not sent.has_room()
        work = sent.rows(rows)
        assert [next(work, "done") for _ in range(3)] == [None, None, None]
        channel.take()
        assert next(work, "done") == "done"
        assert [type(each) for each in taken(channel)] == [Batch]


class RoomySink:
    """A sink that has room when the test says so."""

    rows_written = 0

    def __init__(self) -> None:
        self.room = True
        self.appended: list[tuple[int, int]] = []

    def has_room(self) -> bool:
        return self.room

    def append(self, rows: pa.RecordBatch, transaction: int) -> None:
        self.appended.append((rows.num_rows, transaction))


class TestSinkInput:
    def test_rows_belong_to_the_transaction_of_the_moment_they_are_appended(self) -> None:
        sink: Any = RoomySink()
        around = Around()
        consumer = SinkInput(sink, around)
        done(consumer.rows(events(1)))
        sink.room = False
        work = consumer.rows(events(1, 2))
        assert next(work, "done") is None
        around.transaction, sink.room = 6, True
        assert next(work, "done") == "done"
        assert sink.appended == [(1, 5), (2, 6)]
        done(consumer.watermark(7, False))
        done(consumer.end())
