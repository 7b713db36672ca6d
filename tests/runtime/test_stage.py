"""A stage of one worker: what it takes from its inlets, and when it passes a barrier on."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.operators.expression import Call, Column, Constant
from millstream.operators.fused import FusedConfig
from millstream.operators.union import UnionConfig
from millstream.operators.window_aggregate import Aggregate, WindowAggregateConfig
from millstream.runtime.graph import Edge, ExchangeNode, OperatorNode, SinkNode, Stage
from millstream.runtime.messages import Barrier, Batch, End, Message, Watermark
from millstream.runtime.options import RunOptions
from millstream.runtime.sink import MemorySink
from millstream.runtime.stage import FULL_SNAPSHOT_EVERY, StageRunner
from millstream.windows.tumbling import Tumbling
from tests.runtime.kit import EVENTS, SECOND_US, Channels, events

IN, OUT = ExchangeNode("in", Edge("x"), ("key",), EVENTS), Edge("union")
UNION = OperatorNode("union", UnionConfig(EVENTS), (Edge("in"),))
SINK = SinkNode("sink", "rows", OUT, EVENTS, kind="memory")


class Played:
    """A second stage with an inlet from each of two workers."""

    def __init__(self, stage: Stage, limit_bytes: int = 10**6, send_rows: int = 1) -> None:
        self.channels = Channels(limit_bytes)
        self.sinks = {each.name: MemorySink(each) for each in stage.sinks}
        operators = {each.name: each.config.build() for each in stage.operators}
        self.stage = StageRunner(
            stage,
            0,
            2,
            operators,
            {},
            self.sinks,
            self.channels.of(0),
            5,
            ManualClock(),
            RunOptions(send_rows=send_rows, gather_rows=1000),
        )

    def send(self, sender: int, *messages: Message, exchange: str = "in") -> None:
        for each in messages:
            self.channels.between_workers(exchange, sender, 0).send(each)

    def take_all(self, *, batches: bool = True) -> None:
        while self.stage.take_message(batches=batches):
            pass

    def values(self) -> list[Any]:
        return self.sinks["sink"].table().column("value").to_pylist()

    def sent(self, exchange: str, receiver: int) -> list[Message]:
        channel, found = self.channels.between_workers(exchange, 0, receiver), []
        while channel.peek() is not None:
            found.append(channel.take())
        return found


def rows(*values: int) -> Batch:
    return Batch(events(*[1] * len(values), first=values[0]))


def passing() -> Played:
    return Played(Stage(1, (), (IN,), (UNION,), (), (SINK,)))


def test_senders_take_turns() -> None:
    played = passing()
    played.send(0, rows(0), rows(1), rows(2))
    played.send(1, rows(10), rows(11), rows(12))
    for _ in range(4):
        assert played.stage.take_message(batches=True)
    assert sorted(played.values()) == [0, 1, 10, 11]


def test_rows_behind_a_barrier_wait_until_the_stage_has_passed_it() -> None:
    #   0 ──0──B──1──
    #   1 ──10────11──B──12──
    played = passing()
    played.send(0, rows(0), Barrier(5), rows(1))
    played.send(1, rows(10))
    played.take_all()
    assert played.values() == [0, 10]
    assert played.stage.try_barrier() is None
    assert not played.stage.has_message()
    played.send(1, rows(11), Barrier(5), rows(12))
    played.take_all()
    assert played.values() == [0, 10, 11]
    part = played.stage.try_barrier()
    assert part is not None
    assert played.stage.transaction == 6
    assert played.stage.try_barrier() is None
    played.take_all()
    assert sorted(played.values()) == [0, 1, 10, 11, 12]


def test_while_tables_load_only_rows_wait() -> None:
    played = passing()
    played.send(0, Watermark(3, False), Barrier(5))
    played.send(1, Barrier(5), rows(1))
    played.take_all(batches=False)
    assert played.stage.try_barrier() is not None
    played.take_all(batches=False)
    assert played.values() == []
    played.take_all()
    assert played.values() == [1]


def test_it_ends_when_every_sender_has() -> None:
    played = passing()
    played.send(0, End())
    played.take_all()
    assert not played.stage.ended
    played.send(1, rows(1), End())
    played.take_all()
    assert (played.stage.ended, played.values()) == (True, [1])
    for sender in range(2):
        played.send(sender, Barrier(5))
    played.take_all()
    assert played.stage.try_barrier() is not None


COUNT = WindowAggregateConfig(
    EVENTS, ("key",), "time", Tumbling(10 * SECOND_US), (Aggregate("n", "count", None),)
)
NEXT = ExchangeNode("next", Edge("hours"), ("key",), COUNT.output_schemas[0])


def counting(limit_bytes: int = 10**6, send_rows: int = 1) -> Played:
    hours = OperatorNode("hours", COUNT, (Edge("in"),))
    return Played(Stage(1, (), (IN,), (hours,), (NEXT,), ()), limit_bytes, send_rows)


def test_the_watermark_is_the_least_of_the_senders_and_follows_the_rows_it_made() -> None:
    played = counting()
    played.send(0, Batch(events(1)), Watermark(30 * SECOND_US, False))
    played.send(1, Watermark(5 * SECOND_US, False))
    played.take_all()
    sent = [*played.sent("next", 0), *played.sent("next", 1)]
    assert sent == [Watermark(0, False)] * 2
    played.send(1, Watermark(20 * SECOND_US, False))
    played.take_all()
    found = {receiver: played.sent("next", receiver) for receiver in range(2)}
    assert sorted(len(each) for each in found.values()) == [1, 2]
    assert [each[-1] for each in found.values()] == [Watermark(20 * SECOND_US, False)] * 2


def test_a_barrier_waits_for_output_that_rests_and_follows_it() -> None:
    played = counting(limit_bytes=1)
    for key in "abcd":
        played.send(0, Batch(events(1, 11, 21, key=key)))
    for sender in range(2):
        played.send(sender, Watermark(12 * SECOND_US, False))
    for sender in range(2):
        played.send(sender, Watermark(25 * SECOND_US, False), Barrier(5))
    while not played.stage.busy and played.stage.take_message(batches=True):
        pass
    assert played.stage.busy
    assert played.stage.try_barrier() is None
    received: list[Message] = []
    part = None
    while part is None:
        played.stage.resume()
        received += [*played.sent("next", 0), *played.sent("next", 1)]
        if not played.stage.busy and not played.stage.take_message(batches=True):
            part = played.stage.try_barrier()
    received += [*played.sent("next", 0), *played.sent("next", 1)]
    results = [each.rows.num_rows for each in received if isinstance(each, Batch)]
    assert sum(results) == 8
    assert received[-2:] == [Barrier(5), Barrier(5)]
    rows_left = part.snapshots["hours"].rows
    assert isinstance(rows_left, pa.Table)
    assert rows_left.num_rows == 4


def test_a_barrier_follows_the_rows_that_were_gathered() -> None:
    played = counting(limit_bytes=1, send_rows=1000)
    for sender in range(2):
        played.send(sender, Batch(events(1)), Watermark(12 * SECOND_US, False), Barrier(5))
    played.take_all()
    assert [*played.sent("next", 0), *played.sent("next", 1)] == []
    assert played.stage.try_barrier() is not None
    received = [*played.sent("next", 0), *played.sent("next", 1)]
    assert sorted(map(str, map(type, received))) == sorted(
        map(str, [Batch, Watermark, Watermark, Barrier, Barrier])
    )
    assert played.sent("next", 0) == []
    assert isinstance(received[-1], Barrier)


def test_gathered_rows_are_sent_when_there_is_nothing_else_to_do() -> None:
    played = counting(send_rows=1000)
    for sender in range(2):
        played.send(sender, Batch(events(1)), Watermark(12 * SECOND_US, False))
    played.take_all()
    assert played.stage.pass_on_gathered()
    received = [*played.sent("next", 0), *played.sent("next", 1)]
    assert sum(each.rows.num_rows for each in received if isinstance(each, Batch)) == 1
    assert not played.stage.pass_on_gathered()


def test_what_a_filter_lets_pass_is_gathered() -> None:
    value = Column("value", pa.int64())
    few = Call("greater", (value, Constant(0, pa.int64())), pa.bool_())
    outputs = tuple((each.name, Column(each.name, each.type)) for each in EVENTS)
    filter_ = OperatorNode("filter", FusedConfig(EVENTS, few, outputs), (Edge("in"),))
    union = OperatorNode("union", UnionConfig(EVENTS), (Edge("filter"),))
    played = Played(Stage(1, (), (IN,), (filter_, union), (), (SINK,)))
    for sender in range(2):
        played.send(sender, Batch(events(1, 2, 3)), Batch(events(4, 5)), Barrier(5))
    played.take_all()
    assert played.sinks["sink"].rows_written == 0
    assert played.stage.try_barrier() is not None
    assert sorted(played.values()) == [1, 1, 1, 1, 2, 2]
    assert played.sinks["sink"].table().column("value").num_chunks == 1


def test_state_is_written_whole_first_and_then_every_so_often() -> None:
    played = counting()
    whole = []
    for checkpoint in range(5, 5 + 2 * FULL_SNAPSHOT_EVERY + 1):
        for sender in range(2):
            played.send(sender, Batch(events(1)), Barrier(checkpoint))
        played.take_all()
        part = played.stage.try_barrier()
        assert part is not None
        whole.append(part.snapshots["hours"].full)
        played.take_all()
    assert [index for index, full in enumerate(whole) if full] == [
        0,
        FULL_SNAPSHOT_EVERY,
        2 * FULL_SNAPSHOT_EVERY,
    ]


def test_a_stage_without_inlets_is_aligned_when_it_is_asked() -> None:
    played = Played(Stage(0, (), (), (), (), ()))
    assert played.stage.try_barrier() is None
    played.stage.request_checkpoint(5)
    assert played.stage.try_barrier() is not None
