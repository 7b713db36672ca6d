"""What takes the rows, watermarks and ends of an edge inside a stage.

Everything is a generator: it yields where an outlet has no room, and is resumed when there
may be some. So an operator rests in the middle of its output without a thread or a copy. It
also rests between pieces of output, however many come of one input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import JobError, MillstreamError, RowError, SpillError
from millstream.operators.exchange import split_by_worker
from millstream.operators.operator import WAIT, Emit, Holding, Operator
from millstream.operators.spilling import Spilling
from millstream.runtime.activity import OperatorActivity
from millstream.runtime.channels import Outlet
from millstream.runtime.gathering import Consumer
from millstream.runtime.graph import Edge, ExchangeNode, OperatorNode
from millstream.runtime.messages import Batch, End, Message, Watermark
from millstream.runtime.sink import Sink
from millstream.windows.watermark import WATERMARK_MIN, WatermarkMerge


class Surroundings(Protocol):
    """What a consumer needs to know of its stage."""

    transaction: int
    reading: str
    bounded: bool
    rests: int
    clock: Clock
    activity: dict[str, OperatorActivity]

    def place_of_failure(self, operator: str) -> str:
        """Return where the row was read on which an operator fails, as far as can be told."""
        ...


class OperatorInputs:
    """All inputs of one operator, and the way of its output.

    Parameters
    ----------
    node, operator
        What runs.
    consumers
        Of every edge of the stage.
    surroundings
        Of the stage, for messages.
    held_rows
        The most rows that the operator may hold back.
    """

    def __init__(
        self,
        node: OperatorNode,
        operator: Operator,
        consumers: Mapping[Edge, Sequence[Consumer]],
        surroundings: Surroundings,
        held_rows: int,
    ) -> None:
        self._node = node
        self._operator = operator
        self._holding = operator if isinstance(operator, Holding) else None
        self._held_rows = held_rows
        self._consumers = consumers
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._activity = surroundings.activity[node.name]
        self._edges = [Edge(node.name, port) for port in range(len(node.config.output_schemas))]
        self._merge = WatermarkMerge(len(node.inputs))
        self._watermarks = [WATERMARK_MIN] * len(node.inputs)
        self._ended: set[int] = set()

    def input(self, index: int) -> Consumer:
        """Return input `index`."""
        return _OperatorInput(self, index)

    @property
    def holds(self) -> bool:
        """`True` iff the operator holds rows back."""
        if isinstance(self._operator, Spilling):
            return self._operator.holds_back
        return self._holding is not None and self._holding.held_rows > 0

    def pass_on(self) -> Iterator[None]:
        """Pass on what the operator holds back, and the watermark that waited for it."""
        if isinstance(self._operator, Spilling):
            if self._operator.holds_back:
                yield from self._emitted(self._operator.catch_up())
                yield from self._pass_watermark()
        elif self._holding is not None:
            yield from self._emitted(self._holding.pass_on())

    def rows(self, index: int, rows: pa.RecordBatch) -> Iterator[None]:
        """Give rows to the operator, and its output to who takes it."""
        self._activity.came_in(rows)
        yield from self._emitted(self._operator.on_batch(index, rows))
        if self._holding is not None and self._holding.held_rows > self._held_rows:
            yield from self.pass_on()

    def watermark(self, index: int, watermark_us: int, idle: bool) -> Iterator[None]:
        """Merge an input's watermark with the others'; act where the least one moved."""
        self._watermarks[index] = watermark_us
        if not self._merge.update(index, watermark_us, idle):
            return
        yield from self._emitted(self._operator.on_watermark(self._merge.value_us))
        if self._merge.idle and self._holding is not None:
            yield from self.pass_on()  # from now on nobody waits for this worker
        yield from self._pass_watermark()

    def _pass_watermark(self) -> Iterator[None]:
        """Tell who takes the output how far time is."""
        passed = self._operator.output_watermark(self._merge.value_us)
        idle = self._merge.idle and not self._has_results_to_come()
        for edge in self._edges:
            for consumer in self._consumers.get(edge, ()):
                yield from consumer.watermark(passed, idle)

    def end(self, index: int) -> Iterator[None]:
        """Note an input's end; with the last one the operator flushes."""
        self._ended.add(index)
        yield from self.watermark(index, self._watermarks[index], True)
        if len(self._ended) < len(self._watermarks):
            return
        yield from self._emitted(self._operator.on_end())
        for edge in self._edges:
            for consumer in self._consumers.get(edge, ()):
                yield from consumer.end()

    def _has_results_to_come(self) -> bool:
        """Return `True` iff the end of the run gives out what is open now.

        Inputs that are read to their ends hold back nobody, but what is open then comes later
        than the watermark of a worker or stream that got further.
        """
        if isinstance(self._operator, Spilling) and self._operator.holds_back:
            return True
        open_count = self._operator.counters.state_keys if self._node.config.timed else 0
        return self._surroundings.bounded and open_count > 0

    def _emitted(self, output: Iterator[Emit]) -> Iterator[None]:
        ports = set()
        while (emit := self._next(output)) is not None:
            if emit is WAIT:
                yield
                continue
            if emit.port in ports:
                # A row that matches a million others must not keep a worker from all else.
                self._surroundings.rests += 1
                yield
            ports.add(emit.port)
            self._activity.went_out(emit.batch)
            for consumer in self._consumers.get(self._edges[emit.port], ()):
                yield from consumer.rows(emit.batch)

    def _next(self, output: Iterator[Emit]) -> Emit | None:
        """Return the operator's next piece; its failure names it and the user's line."""
        start_us = self._clock.monotonic_us()
        try:
            return next(output, None)
        except RowError as error:
            at = error.place or self._surroundings.place_of_failure(self._node.name)
            raise JobError(self._failure(str(error), at), operator=self._node.name) from error
        except MillstreamError as error:
            if not isinstance(error, JobError):
                raise
            kind = SpillError if isinstance(error, SpillError) else JobError
            raise kind(self._failure(str(error)), operator=self._node.name) from error
        except Exception as error:
            reason = self._failure(f"{type(error).__name__}: {error}")
            raise JobError(reason, operator=self._node.name) from error
        finally:
            self._activity.busy_us += self._clock.monotonic_us() - start_us

    def _failure(self, reason: str, reading: str = "") -> str:
        node, reading = self._node, reading or self._surroundings.reading
        where = f"{node.location}: " if node.location else ""
        at = f" (at {reading})" if reading else ""
        return f"{where}operator {node.name!r} failed{at}: {reason}"


class _OperatorInput:
    """One input of an operator."""

    def __init__(self, inputs: OperatorInputs, index: int) -> None:
        self._inputs = inputs
        self._index = index

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        return self._inputs.rows(self._index, rows)

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        return self._inputs.watermark(self._index, watermark_us, idle)

    def end(self) -> Iterator[None]:
        return self._inputs.end(self._index)


class SendInput:
    """Rows leave the stage: each goes to the worker that owns its key.

    Parameters
    ----------
    exchange
        By which key.
    outlets
        One a worker.
    """

    def __init__(self, exchange: ExchangeNode, outlets: Sequence[Outlet]) -> None:
        self._exchange = exchange
        self._outlets = outlets

    def has_room(self) -> bool:
        """Return `True` iff every worker's outlet takes a batch."""
        return all(each.has_room() for each in self._outlets)

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        """Send each worker its rows, resting while there is no room."""
        pieces = split_by_worker(rows, self._exchange.key_columns, len(self._outlets))
        for outlet, piece in zip(self._outlets, pieces, strict=True):
            if piece.num_rows:
                while not outlet.has_room():
                    yield
                outlet.send(Batch(piece))

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        """Tell every worker."""
        self.broadcast(Watermark(watermark_us, idle))
        yield from ()

    def end(self) -> Iterator[None]:
        """Tell every worker."""
        self.broadcast(End())
        yield from ()

    def broadcast(self, message: Message) -> None:
        """Send a message without rows to every worker; there is always room for it."""
        for each in self._outlets:
            each.send(message)


class SinkInput:
    """Rows end in a sink."""

    def __init__(self, sink: Sink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._surroundings = surroundings

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        """Append rows to the running transaction, resting while there is no room."""
        while not self._sink.has_room():
            yield
        self._sink.append(rows, self._surroundings.transaction)

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        """Do nothing: a topic has no watermark of its own."""
        yield from ()

    def end(self) -> Iterator[None]:
        """Do nothing: the last checkpoint flushes."""
        yield from ()
