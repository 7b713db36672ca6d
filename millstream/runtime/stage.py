"""One stage of one worker: messages and rows in, through its operators, to sinks and sends.

    sources ─┐                                  ┌─▶ sinks
             ├─▶ operator ─▶ operator ─▶ … ─────┤
    inlets ──┘        (function calls)          └─▶ sends: outlets to every worker

One input is worked on at a time. Where an outlet has no room the work rests, in the middle
of an operator's output if need be, and the worker turns to other stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import MillstreamError
from millstream.log.transactions import Unsynced
from millstream.operators.fused import FusedConfig
from millstream.operators.operator import Holding, Operator, StateSnapshot
from millstream.runtime.activity import OperatorActivity
from millstream.runtime.alignment import Alignment
from millstream.runtime.background import Pending
from millstream.runtime.channels import Channels, Inlet
from millstream.runtime.flow import OperatorInputs, SendInput, SinkInput
from millstream.runtime.gathering import Consumer, Gathering, Holder, Pacing
from millstream.runtime.graph import Edge, OperatorNode, Stage
from millstream.runtime.manifest import PartitionState
from millstream.runtime.messages import Barrier, Batch, End, Message, Watermark
from millstream.runtime.options import RunOptions
from millstream.runtime.poison import failing_row
from millstream.runtime.sink import Sink
from millstream.runtime.source import ReadRange, Source
from millstream.windows.watermark import WATERMARK_MIN, WatermarkMerge

FULL_SNAPSHOT_EVERY = 16
"""Every so many checkpoints state is written whole, which bounds how many files hold it."""


@dataclass(frozen=True, slots=True)
class StagePart:
    """What one stage of one worker adds to a checkpoint."""

    positions: dict[str, dict[int, PartitionState]]
    snapshots: dict[str, StateSnapshot]
    participants: tuple[Pending[Unsynced], ...]


class _Exchange:
    """The receiving side of an exchange: one inlet a sender, seen as one input."""

    def __init__(self, name: str, senders: int) -> None:
        self.edge = Edge(name)
        self.merge = WatermarkMerge(senders)
        self.watermarks = [WATERMARK_MIN] * senders
        self.ended: set[int] = set()
        self.senders = senders


class StageRunner:
    """Runs one stage for one worker.

    Parameters
    ----------
    stage
        What is wired to what.
    worker, parallelism
        Which worker this is, of how many.
    operators, sources, sinks
        The running parts, by name.
    channels
        To and from the other workers.
    transaction
        Number of the checkpoint, and so of the transaction, that rows belong to now.
    clock
        By which operators' computing is timed.
    options
        How many rows wait for others, and where.
    """

    def __init__(
        self,
        stage: Stage,
        worker: int,
        parallelism: int,
        operators: Mapping[str, Operator],
        sources: Mapping[str, Source],
        sinks: Mapping[str, Sink],
        channels: Channels,
        transaction: int,
        clock: Clock,
        options: RunOptions,
    ) -> None:
        self.stage = stage
        self.transaction = transaction
        self.reading = ""
        self._flowing: list[tuple[Source, ReadRange, pa.RecordBatch]] = []
        """What was read of sources and has not gone all its way: some may be gathered."""
        self.bounded = False
        """Whether the sources have ends, at which everything open is given out."""
        self.rests = 0
        """How often work rested although there was room."""
        self.ended = False
        self.clock = clock
        self.activity = {each.name: OperatorActivity() for each in stage.operators}
        self._worker = worker
        self._operators = operators
        self._sources = [sources[each.name] for each in stage.sources]
        self._sinks = [sinks[each.name] for each in stage.sinks]
        self._source_watermarks = {each.node.name: (WATERMARK_MIN, False) for each in self._sources}
        self._exchanges = {each.name: _Exchange(each.name, parallelism) for each in stage.receives}
        self._inlets: list[tuple[str, int, Inlet]] = [
            (each.name, sender, channels.inlet(each.name, sender))
            for each in stage.receives
            for sender in range(parallelism)
        ]
        self._sends = {
            each.name: SendInput(
                each,
                [channels.outlet(each.name, receiver) for receiver in range(parallelism)],
            )
            for each in stage.sends
        }
        self._alignment = Alignment((name, sender) for name, sender, _ in self._inlets)
        self._active: Iterator[None] | None = None
        self._turn = 0
        self._source_turn = 0
        self._last_checkpoint: int | None = None
        self._taken = 0
        self._finishing = False
        self._open_inputs = len(self._sources) + len(self._exchanges)
        self._aligned: int | None = None
        self._consumers: dict[Edge, list[Consumer]] = {}
        self._gatherings: list[Gathering] = []
        self._holders: list[Holder] = []
        """In topological order: what one passes on another may hold."""
        self._wire(options)

    @property
    def busy(self) -> bool:
        """`True` iff an input is worked on, so that nothing else can be taken."""
        return self._active is not None

    def has_room(self) -> bool:
        """Return `True` iff every outlet and every sink takes a batch."""
        sends, sinks = self._sends.values(), self._sinks
        return all(each.has_room() for each in sends) and all(each.has_room() for each in sinks)

    def has_message(self) -> bool:
        """Return `True` iff something arrived that may be taken."""
        return any(
            inlet.peek() is not None
            for name, sender, inlet in self._inlets
            if not self._alignment.is_held((name, sender))
        )

    def resume(self) -> bool:
        """Go on with the input that is worked on; return `False` where there is no room."""
        rests = self.rests
        if self._active is not None and next(self._active, True) is True:
            self._active = None
        return not self.busy or self.rests > rests

    def take_message(self, *, batches: bool) -> bool:
        """Take a message of some inlet and work on it; return `False` when there is none.

        Parameters
        ----------
        batches
            Whether rows may be taken; barriers, watermarks and ends may at any time. While a
            worker's tables load it tells itself of no watermark either, which holds back what
            it hears from others.
        """
        count = len(self._inlets)
        for step in range(count):
            name, sender, inlet = self._inlets[(self._turn + step) % count]
            if self._alignment.is_held((name, sender)):
                continue
            message = inlet.peek()
            if message is None or (isinstance(message, Batch) and not batches):
                continue
            inlet.take()
            self._turn += step + 1
            self._take(self._exchanges[name], sender, message)
            return True
        return False

    def read_source(self, *, tables: bool) -> bool:
        """Read rows of a table (or of a stream) and work on them; `False`: there are none."""
        for source in self._sources_in_turn(tables):
            rows = source.try_read()
            if rows is not None:
                self.reading = source.reading
                self._start(self._source_rows(source, rows))
                return True
        return False

    def advance_time(self) -> bool:
        """Pass on watermarks that changed without rows: a partition ended or became idle."""
        for source in self._sources:
            if source.watermark() != self._source_watermarks[source.node.name]:
                self._start(self._source_watermark(source))
                return True
        return False

    def pass_on_gathered(self) -> bool:
        """Pass on what waits for others; return `False` when nothing does."""
        if not any(each.holds for each in self._holders):
            return False
        self._start(chain.from_iterable(each.pass_on() for each in self._holders))
        return True

    def request_checkpoint(self, checkpoint: int) -> None:
        """Align at once where there are no inlets: the barrier starts here."""
        if not self._inlets:
            self._aligned = checkpoint

    def finish(self) -> None:
        """Let the sources end; what is open is flushed."""
        self._finishing = True

    def end_sources(self) -> bool:
        """Work on the end of the sources, once; return `False` when there is nothing to do."""
        if not self._finishing:
            return False
        self._finishing = False
        self._start(self._end_sources())
        return True

    def try_barrier(self) -> StagePart | None:
        """Take the stage's part of a checkpoint if it is aligned, and pass the barrier on."""
        checkpoint = self._aligned
        if checkpoint is None or self.busy:
            return None
        self.pass_on_gathered()  # it belongs before the barrier
        if self.busy:
            return None
        full = self._taken % FULL_SNAPSHOT_EVERY == 0
        since = None if full else self._last_checkpoint
        part = StagePart(
            {each.node.name: each.positions() for each in self._sources if self._owns(each)},
            self._snapshots(since, checkpoint),
            tuple(each.flush(self.transaction) for each in self._sinks),
        )
        assert not any(each.holds for each in self._holders), "they come before it"
        for send in self._sends.values():
            send.broadcast(Barrier(checkpoint))
        self._alignment.release()
        self._aligned = None
        self._last_checkpoint = checkpoint
        self._taken += 1
        self.transaction = checkpoint + 1
        return part

    def _sources_in_turn(self, tables: bool) -> list[Source]:
        """Return tables or streams, the one to be read first first.

        Of those with event time, that is the one furthest behind; those without take turns
        with them.
        """
        chosen = [each for each in self._sources if (each.node.role == "table") is tables]
        if len(chosen) < 2:
            return chosen
        self._source_turn += 1
        timed = [each for each in chosen if each.node.event_time is not None]
        timed.sort(key=lambda each: each.watermark()[0])
        takers = [timed] if timed else []
        takers += [[each] for each in chosen if each.node.event_time is None]
        turn = self._source_turn % len(takers)
        return [each for taker in (*takers[turn:], *takers[:turn]) for each in taker]

    def _owns(self, source: Source) -> bool:
        # Every worker reads a table from end to end; the first one's position is kept.
        return source.node.role == "stream" or self._worker == 0

    def _snapshots(self, since: int | None, checkpoint: int) -> dict[str, StateSnapshot]:
        snapshots = {}
        for node in self.stage.operators:
            if node.config.broadcast_state and self._worker != 0:
                continue
            snapshot = self._operators[node.name].snapshot(since, checkpoint)
            if snapshot is not None:
                snapshots[node.name] = snapshot
        return snapshots

    def _start(self, work: Iterator[None]) -> None:
        assert self._active is None, "one input at a time"
        self._active = work
        self.resume()

    def _take(self, exchange: _Exchange, sender: int, message: Message) -> None:
        match message:
            case Batch(rows=rows):
                self.reading = f"rows from worker {sender}"
                self._start(self._rows(exchange.edge, rows))
            case Watermark(watermark_us=watermark_us, idle=idle):
                exchange.watermarks[sender] = watermark_us
                if exchange.merge.update(sender, watermark_us, idle):
                    merge = exchange.merge
                    self._start(self._watermark(exchange.edge, merge.value_us, merge.idle))
            case Barrier(checkpoint=checkpoint):
                if self._alignment.on_barrier((exchange.edge.node, sender), checkpoint):
                    self._aligned = checkpoint
            case End():
                self._start(self._sender_ended(exchange, sender))

    def _sender_ended(self, exchange: _Exchange, sender: int) -> Iterator[None]:
        exchange.ended.add(sender)
        merge = exchange.merge
        if merge.update(sender, exchange.watermarks[sender], True):
            yield from self._watermark(exchange.edge, merge.value_us, merge.idle)
        if len(exchange.ended) == exchange.senders:
            yield from self._end(exchange.edge)

    def place_of_failure(self, operator: str) -> str:
        """Return where the row was read on which an operator fails, as far as can be told."""
        for source, read, rows in self._flowing:
            with suppress(MillstreamError):  # the log changed meanwhile; what failed first is told
                row = failing_row(self.stage, self._operators, source.node.name, rows, operator)
                if row is not None:
                    return source.place(read, row)
        return self.reading

    def _source_rows(self, source: Source, rows: pa.RecordBatch) -> Iterator[None]:
        if not any(each.holds for each in self._gatherings):
            self._flowing.clear()
        self._flowing.append((source, source.last_read, rows))
        yield from self._rows(Edge(source.node.name), rows)
        yield from self._source_watermark(source)

    def _source_watermark(self, source: Source) -> Iterator[None]:
        watermark = source.watermark()
        if watermark != self._source_watermarks[source.node.name]:
            self._source_watermarks[source.node.name] = watermark
            yield from self._watermark(Edge(source.node.name), *watermark)

    def _end_sources(self) -> Iterator[None]:
        for source in self._sources:
            yield from self._end(Edge(source.node.name))

    def _rows(self, edge: Edge, rows: pa.RecordBatch) -> Iterator[None]:
        for consumer in self._consumers.get(edge, ()):
            yield from consumer.rows(rows)

    def _watermark(self, edge: Edge, watermark_us: int, idle: bool) -> Iterator[None]:
        for consumer in self._consumers.get(edge, ()):
            yield from consumer.watermark(watermark_us, idle)

    def _end(self, edge: Edge) -> Iterator[None]:
        for consumer in self._consumers.get(edge, ()):
            yield from consumer.end()
        self._open_inputs -= 1
        self.ended = self._open_inputs == 0

    def _wire(self, options: RunOptions) -> None:
        """Make what takes the rows of each edge; consumers first need not exist yet."""
        filters = {each.name for each in self.stage.operators if _is_filter(each)}
        holding = {
            name
            for name, each in self._operators.items()
            if isinstance(each, Holding) and options.held_rows
        }
        for node in self.stage.operators:
            operator = self._operators[node.name]
            inputs = OperatorInputs(node, operator, self._consumers, self, options.held_rows)
            paced: list[Holder] = []
            for index, edge in enumerate(node.inputs):
                consumer = inputs.input(index)
                if node.name in holding:
                    consumer = Pacing(consumer, self.clock)
                    paced.append(consumer)
                if edge.node in filters:
                    consumer = self._gathered(consumer, options.gather_rows)
                self._consumers.setdefault(edge, []).append(consumer)
            self._holders += [*paced, inputs]
        for exchange in self.stage.sends:
            sent: Consumer = self._sends[exchange.name]
            # What was held back comes all at once.
            if exchange.input.node not in holding or exchange.input.port:
                sent = self._gathered(sent, options.send_rows)
            self._consumers.setdefault(exchange.input, []).append(sent)
        for node_sink, sink in zip(self.stage.sinks, self._sinks, strict=True):
            self._consumers.setdefault(node_sink.input, []).append(SinkInput(sink, self))

    def _gathered(self, consumer: Consumer, enough_rows: int) -> Gathering:
        """Return what gathers rows for a consumer."""
        gathering = Gathering(consumer, self, enough_rows)
        self._gatherings.append(gathering)
        self._holders.append(gathering)
        return gathering


def _is_filter(node: OperatorNode) -> bool:
    """Return `True` iff an operator may let pass few rows of a batch."""
    return isinstance(node.config, FusedConfig) and node.config.predicate is not None
