"""Logical plan → `runtime.graph.JobGraph` for a parallelism: names, stages, exchanges.

An aggregate needs all rows of a key on one worker. Where they may lie elsewhere, an exchange
ends the stage and the aggregate opens the next one. Between two exchanges everything runs in
one stage, batch by batch, by function call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.expression import Column
from millstream.operators.failing import python_parts
from millstream.operators.fused import FusedConfig
from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.group_combine import GroupCombineConfig
from millstream.operators.operator import ChangeMode, OperatorConfig
from millstream.operators.poison import OnError
from millstream.operators.process import LATE_PORT
from millstream.operators.table_join import TableJoinConfig
from millstream.operators.union import UnionConfig
from millstream.operators.window_aggregate import Aggregate, WindowAggregateConfig
from millstream.operators.window_combine import WindowCombineConfig
from millstream.plan.aggregates import AggregateColumn
from millstream.plan.dead_letters import graph_to_policy
from millstream.plan.nodes import (
    ChangeRows,
    Consolidate,
    Dedup,
    Explode,
    Fused,
    GroupAggregate,
    LateRows,
    LatestRows,
    Limit,
    Lookup,
    MapBatches,
    Node,
    Peek,
    Process,
    Sink,
    StreamSource,
    TableJoin,
    TableSource,
    Top,
    Union,
    WindowAggregate,
)
from millstream.plan.operator_configs import (
    OfKeys,
    limit_of,
    operator_in_place,
    operator_of_keys,
    order_notes,
)
from millstream.plan.placement import (
    Distribution,
    Keyed,
    distribution_of,
    is_combined,
    needs_exchange,
    positioned_sources,
    stamped_sources,
)
from millstream.plan.rewrites import sinks_to_physical, sources_to_partitions
from millstream.plan.walk import changed_tables, in_order, source_partitions
from millstream.runtime.graph import (
    Edge,
    ExchangeNode,
    JobGraph,
    OperatorNode,
    SinkNode,
    SourceNode,
    Stage,
)

OPERATION_COLUMN = pa.field("_op", pa.int8())
"""Says of a table's row whether it is a value or a tombstone; comes with a table's rows."""


@dataclass(frozen=True)
class CompiledJob:
    """A job graph and what `explain` tells about how it came about.

    Parameters
    ----------
    graph
        What the runtime takes.
    plan
        The rewritten plan that was compiled.
    notes
        By operator name: why there is an exchange before it, or why not; what is not
        deterministic about it.
    steps
        By operator name: the filters and projections that are done in its one pass.
    topic_columns
        By source name: how many columns its topic has, of which it may read fewer.
    """

    graph: JobGraph
    plan: tuple[Sink, ...]
    notes: dict[str, tuple[str, ...]]
    steps: dict[str, tuple[str, ...]]
    topic_columns: dict[str, int]


def compile_job(
    sinks: Sequence[Sink],
    name: str,
    parallelism: int,
    partitions: Mapping[str, int] | None = None,
    on_error: OnError = "fail",
) -> JobGraph:
    """Return the job graph of a plan.

    Operator names are the same for every parallelism, so that state can move.

    Parameters
    ----------
    sinks
        The plan's roots; what they share is computed once.
    name
        The job's name.
    parallelism
        How many workers share the rows.
    partitions
        How many partitions are read of a topic, by its name, where that is not what it had when
        the plan was made.
    on_error
        What becomes of a row that cannot be computed.
    """
    if partitions:
        sinks = sources_to_partitions(sinks, partitions)
    return graph_to_policy(compile_plan(sinks, name, parallelism).graph, on_error)


def compile_plan(sinks: Sequence[Sink], name: str, parallelism: int) -> CompiledJob:
    """Return the job graph of a plan together with the notes for `explain`."""
    plan = sinks_to_physical(sinks)
    order = in_order(plan)
    columns = {
        each.topic: len(each.topic_schema)
        for each in in_order(sinks)
        if isinstance(each, StreamSource | TableSource)
    }
    builder = _Builder(name, parallelism, order)
    for node in order:
        builder.add(node)
    graph = builder.graph()
    read = {each.name: columns[each.topic] for stage in graph.stages for each in stage.sources}
    return CompiledJob(graph, plan, builder.notes, builder.steps, read)


@dataclass
class _StageParts:
    sources: list[SourceNode] = field(default_factory=list)
    receives: list[ExchangeNode] = field(default_factory=list)
    operators: list[OperatorNode] = field(default_factory=list)
    sends: list[ExchangeNode] = field(default_factory=list)
    sinks: list[SinkNode] = field(default_factory=list)


class _Builder:
    """The graph so far: where each plan node's rows come out, and in which stage."""

    def __init__(self, name: str, parallelism: int, order: Sequence[Node]) -> None:
        self.name = name
        self.parallelism = parallelism
        self.partitions = source_partitions(order)
        self.stamped = stamped_sources(order)
        self.positioned = positioned_sources(order)
        self.changed = changed_tables(order)
        self.stages: list[_StageParts] = []
        self.edges: dict[int, Edge] = {}
        self.stage_of: dict[int, int] = {}
        self.tables: dict[tuple[int, int], Edge] = {}
        self.late: dict[int, tuple[Edge, int]] = {}
        self.exchanges: dict[tuple[int, tuple[str, ...], int], Edge] = {}
        self.notes: dict[str, tuple[str, ...]] = {}
        self.steps: dict[str, tuple[str, ...]] = {}
        self.names: set[str] = set()

    def graph(self) -> JobGraph:
        stages = tuple(
            Stage(
                index,
                tuple(parts.sources),
                tuple(parts.receives),
                tuple(parts.operators),
                tuple(parts.sends),
                tuple(parts.sinks),
            )
            for index, parts in enumerate(self.stages)
        )
        return JobGraph(self.name, self.parallelism, stages)

    def add(self, node: Node) -> None:
        match node:
            case StreamSource():
                self._add_stream(node)
            case TableSource():
                # Where it is joined, each stage reads all of it.
                if id(node) in self.changed:
                    self._add_table_changes(node)
            case Fused():
                config = FusedConfig(node.input.schema, node.predicate, node.outputs)
                kind = "filter" if _only_filters(node) else "select"
                notes = python_notes(node)
                name = self._add_operator(node, kind, config, [node.input], notes)
                self.steps[name] = node.steps
            case TableJoin():
                self._add_join(node)
            case Explode() | Peek() | MapBatches() | Lookup() | ChangeRows() | Consolidate():
                kind, placed = operator_in_place(node)
                self._add_operator(node, kind, placed, [node.input])
            case WindowAggregate():
                self._add_aggregate(node)
            case GroupAggregate():
                self._add_group(node)
            case LatestRows() | Top() | Dedup() | Process():
                self._add_keyed(node, *operator_of_keys(node), order_notes(node))
            case Limit():
                self._add_limit(node)
            case LateRows():
                self.edges[id(node)], self.stage_of[id(node)] = self.late[id(node.aggregate)]
            case Union():
                self._add_union(node)
            case Sink():
                self._add_sink(node)
            case _:
                message = f"a {type(node).__name__} must have been rewritten before compiling"
                raise AssertionError(message)

    def _stage(self, index: int) -> _StageParts:
        while len(self.stages) <= index:
            self.stages.append(_StageParts())
        return self.stages[index]

    def _place(self, node: Node, edge: Edge, beside: Node) -> None:
        self.edges[id(node)] = edge
        self.stage_of[id(node)] = self.stage_of[id(beside)]

    def _unique(self, wanted: str) -> str:
        base = re.sub(r"[^A-Za-z0-9_.-]", "_", wanted)
        name, number = base, 2
        while name in self.names:
            name, number = f"{base}-{number}", number + 1
        self.names.add(name)
        return name

    def _add_stream(self, node: StreamSource) -> None:
        name = self._unique(node.name or f"source-{node.topic}")
        source = SourceNode(
            name,
            node.topic,
            "stream",
            pa.schema(each for each in node.schema if each.name != node.processing_time),
            time_column=node.time_column,
            lateness_us=node.lateness_us,
            stamped=id(node) in self.stamped,
            position=self.positioned.get(id(node)),
            idle_timeout_us=node.idle_timeout_us,
            where=node.where,
            location=node.location,
            processing_time=node.processing_time is not None,
        )
        self._stage(0).sources.append(source)
        self.edges[id(node)], self.stage_of[id(node)] = Edge(name), 0

    def _add_operator(
        self,
        node: Node,
        kind: str,
        config: OperatorConfig,
        inputs: Sequence[Node],
        notes: tuple[str, ...] = (),
        *,
        edges: Sequence[Edge] | None = None,
        stage: int | None = None,
    ) -> str:
        name = self._unique(node.name or kind)
        at = self.stage_of[id(inputs[0])] if stage is None else stage
        taken = tuple(self.edges[id(each)] for each in inputs) if edges is None else tuple(edges)
        self._stage(at).operators.append(OperatorNode(name, config, taken, node.location))
        self.edges[id(node)], self.stage_of[id(node)] = Edge(name), at
        notes += _mode_notes(node)
        if notes:
            self.notes[name] = notes
        return name

    def _add_join(self, node: TableJoin) -> None:
        stage = self.stage_of[id(node.stream)]
        config = TableJoinConfig(
            node.stream.schema,
            node.table.schema,
            node.stream_keys,
            node.table_keys,
            node.table.keys,
            node.how,
            added=node.added,
        )
        edges = (self.edges[id(node.stream)], self._table_edge(node.table, stage))
        notes: tuple[str, ...] = ()
        if node.many_matches:
            key = ", ".join(node.table.keys)
            notes = (f"many matches: a row goes out once with each (the table's key is {key})",)
        if node.table.event_time is None:
            notes += ("not deterministic: joins by arrival",)
        kind = f"join-{node.table.topic}"
        self._add_operator(node, kind, config, [node.stream], notes, edges=edges)

    def _table_edge(self, table: TableSource, stage: int) -> Edge:
        """Return the table's rows in `stage`, where every worker reads all of them."""
        if (id(table), stage) in self.tables:
            return self.tables[id(table), stage]
        name = self._unique(table.name or f"table-{table.topic}")
        read = _read_of(table)
        source = SourceNode(
            name,
            table.topic,
            "table",
            read,
            time_column=None,
            location=table.location,
        )
        self._stage(stage).sources.append(source)
        edge = Edge(name)
        if any(own != column for own, column in table.columns):
            edge = self._renamed_table(table, read, stage, edge)
        self.tables[id(table), stage] = edge
        return edge

    def _add_table_changes(self, node: TableSource) -> None:
        """Add a source of which each worker reads its share, as upserts."""
        name = self._unique(node.name or f"changes-{node.topic}")
        read = _read_of(node)
        source = SourceNode(name, node.topic, "stream", read, changes=True, location=node.location)
        self._stage(0).sources.append(source)
        edge = Edge(name)
        if any(own != column for own, column in node.columns):
            edge = self._renamed_table(node, read, 0, edge)
        self.edges[id(node)], self.stage_of[id(node)] = edge, 0

    def _add_group(self, node: GroupAggregate) -> None:
        stage, edge = self.stage_of[id(node.input)], self.edges[id(node.input)]
        config = GroupAggregateConfig(
            node.input.schema,
            node.columns,
            _aggregates(node.aggregates),
            node.takes_changes,
            time_column=node.input.row_time,
            ttl_us=node.ttl_us,
        )
        notes = (self._exchange_note(node, distribution_of(node.input, self.parallelism)),)
        kind = "-".join(("group", *node.columns))
        if is_combined(node, self.parallelism):
            combine = self._unique("-".join(("combine", *node.columns)))
            self._stage(stage).operators.append(
                OperatorNode(combine, GroupCombineConfig(config), (edge,), node.location)
            )
            edge = self._sent(Edge(combine), node.columns, config.partial_schema, stage)
            stage, config = stage + 1, replace(config, partial=True)
        elif needs_exchange(node, self.parallelism):
            stage, edge = self._exchange(node.input, node.columns, stage + 1)
        name = self._add_operator(
            node, kind, config, [node.input], notes, edges=(edge,), stage=stage
        )
        self.late[id(node)] = Edge(name, 1), stage

    def _add_keyed(
        self,
        node: OfKeys,
        kind: str,
        config: OperatorConfig,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Add an operator to which all rows of a key go as they are."""
        stage, edge = self.stage_of[id(node.input)], self.edges[id(node.input)]
        notes = (
            *notes,
            self._exchange_note(node, distribution_of(node.input, self.parallelism)),
        )
        if needs_exchange(node, self.parallelism):
            stage, edge = self._exchange(node.input, node.columns, stage + 1)
        kind = "-".join((kind, *node.columns))
        name = self._add_operator(
            node, kind, config, [node.input], notes, edges=(edge,), stage=stage
        )
        port = LATE_PORT if isinstance(node, Process) else 1
        self.late[id(node)] = Edge(name, port), stage

    def _add_limit(self, node: Limit) -> None:
        """Add a limit of all rows, and before they cross to its worker one of each worker's."""
        stage, edge = self.stage_of[id(node.input)], self.edges[id(node.input)]
        notes = (self._exchange_note(node, distribution_of(node.input, self.parallelism)),)
        if needs_exchange(node, self.parallelism):
            share = self._unique("limit-share")
            self._stage(stage).operators.append(
                OperatorNode(share, limit_of(node, is_share=True), (edge,), node.location)
            )
            edge, stage = self._sent(Edge(share), (), node.schema, stage), stage + 1
        self._add_operator(
            node, "limit", limit_of(node), [node.input], notes, edges=(edge,), stage=stage
        )

    def _renamed_table(self, table: TableSource, read: pa.Schema, stage: int, edge: Edge) -> Edge:
        outputs = tuple(
            (own, Column(column, read.field(column).type)) for own, column in table.columns
        )
        operation = (OPERATION_COLUMN.name, Column(OPERATION_COLUMN.name, OPERATION_COLUMN.type))
        config = FusedConfig(read.append(OPERATION_COLUMN), None, (*outputs, operation))
        name = self._unique(f"rename-{table.topic}")
        self._stage(stage).operators.append(OperatorNode(name, config, (edge,), table.location))
        return Edge(name)

    def _add_aggregate(self, node: WindowAggregate) -> None:
        have = distribution_of(node.input, self.parallelism)
        stage, edge = self.stage_of[id(node.input)], self.edges[id(node.input)]
        config = WindowAggregateConfig(
            node.input.schema,
            node.columns,
            node.event_time,
            node.window,
            _aggregates(node.aggregates),
            node.allowed_lateness_us,
            emits_changes=node.emits_changes,
            interval_us=node.interval_us,
        )
        notes = (self._exchange_note(node, have),)
        kind = "-".join(("window", *node.columns))
        if is_combined(node, self.parallelism):
            self._add_combined(node, kind, config, notes)
            return
        if needs_exchange(node, self.parallelism):
            stage, edge = self._exchange(node.input, node.columns, stage + 1)
        name = self._add_operator(
            node, kind, config, [node.input], notes, edges=(edge,), stage=stage
        )
        self.late[id(node)] = Edge(name, 1), stage

    def _add_combined(
        self,
        node: WindowAggregate,
        kind: str,
        config: WindowAggregateConfig,
        notes: tuple[str, ...],
    ) -> None:
        """Add an aggregate whose rows are combined before they cross to its worker."""
        stage = self.stage_of[id(node.input)]
        combine = self._unique("-".join(("combine", *node.columns)))
        merged = replace(config, partial=True)
        edges = (self._sent(Edge(combine), node.columns, config.partial_schema, stage),)
        name = self._add_operator(
            node, kind, merged, [node.input], notes, edges=edges, stage=stage + 1
        )
        self._stage(stage).operators.append(
            OperatorNode(
                combine,
                WindowCombineConfig(config),
                (self.edges[id(node.input)],),
                node.location,
                restores_from=name,
            )
        )
        self.late[id(node)] = Edge(combine, 1), stage

    def _sent(self, edge: Edge, keys: tuple[str, ...], schema: pa.Schema, stage: int) -> Edge:
        """Send combined rows of `stage` to the next one by the hash of `keys`."""
        name = self._unique("-".join(("exchange", *(keys or ("all",)))))
        exchange = ExchangeNode(name, edge, keys, schema)
        self._stage(stage).sends.append(exchange)
        self._stage(stage + 1).receives.append(exchange)
        return Edge(name)

    def _exchange(self, source: Node, keys: tuple[str, ...], to: int) -> tuple[int, Edge]:
        """Send the rows of `source` to stage `to` by the hash of `keys`; return where they are."""
        wanted = (id(source), keys, to)
        if wanted in self.exchanges:
            return to, self.exchanges[wanted]
        name = self._unique("-".join(("exchange", *(keys or ("all",)))))
        exchange = ExchangeNode(name, self.edges[id(source)], keys, source.schema)
        self._stage(self.stage_of[id(source)]).sends.append(exchange)
        self._stage(to).receives.append(exchange)
        self.exchanges[wanted] = Edge(name)
        return to, Edge(name)

    def _exchange_note(self, node: Keyed, have: Distribution) -> str:
        keys = ", ".join(node.columns)
        if self.parallelism == 1:
            return "no exchange: one worker has all rows"
        if have.keys == node.columns:
            return f"no exchange: {have.reason}"
        if not node.columns:
            kinds = {WindowAggregate: "window", GroupAggregate: "aggregate", Limit: "limit"}
            what = kinds.get(type(node), "top")
            return f"exchange to one worker: the {what} is over all rows, without a key"
        combined = is_combined(node, self.parallelism)
        how = "; rows are combined before they cross" if combined else ""
        return f"exchange by {keys}: {have.reason}{how}"

    def _add_union(self, node: Union) -> None:
        stage = max(self.stage_of[id(each)] for each in node.streams)
        edges = []
        for each in node.streams:
            edge = self.edges[id(each)]
            if self.stage_of[id(each)] < stage:
                # Rows reach a later stage only through an exchange; any spread will do.
                _, edge = self._exchange(each, _spread_keys(each), stage)
            edges.append(edge)
        config = UnionConfig(node.schema)
        self._add_operator(node, "union", config, node.streams, edges=edges, stage=stage)

    def _add_sink(self, node: Sink) -> None:
        name = self._unique(node.name or f"sink-{node.topic}")
        sink = SinkNode(
            name,
            node.topic,
            self.edges[id(node.input)],
            node.schema,
            key_columns=node.key_columns,
            time_column=node.event_time,
            partitions=node.partitions or self.partitions,
            kind=node.kind,
            upsert=node.upsert,
            location=node.location,
        )
        self._stage(self.stage_of[id(node.input)]).sinks.append(sink)
        self._place(node, Edge(name), node.input)


def _aggregates(columns: Sequence[AggregateColumn]) -> tuple[Aggregate, ...]:
    return tuple(each.over_columns() for each in columns)


def _read_of(table: TableSource) -> pa.Schema:
    """Return the columns that are read of a table's topic, under their names there."""
    return pa.schema(
        table.topic_schema.field(column).with_name(column) for _, column in table.columns
    )


def _mode_notes(node: Node) -> tuple[str, ...]:
    """Return what rows are to each other before and behind a node, where they are no facts."""
    taken = {each.mode for each in node.inputs}
    if taken | {node.mode} == {ChangeMode.APPEND}:
        return ()
    before = " and ".join(sorted(each.value for each in taken))
    return (f"takes {before}, gives {node.mode.value}",)


def python_notes(node: Fused) -> tuple[str, ...]:
    """Return what of a fused node goes through Python, row after row, and why."""
    parts = [expression for _, expression in node.outputs]
    if node.predicate is not None:
        parts.append(node.predicate)
    found = dict.fromkeys(text for each in parts for text in python_parts(each))
    return tuple(f"through Python, row after row: {each}" for each in found)


def _only_filters(node: Fused) -> bool:
    """Return whether no column is computed or renamed, though some may be left out."""
    return node.predicate is not None and all(
        isinstance(expression, Column) and expression.name == name
        for name, expression in node.outputs
    )


def _spread_keys(node: Node) -> tuple[str, ...]:
    if node.keys:
        return node.keys
    return tuple(each.name for each in node.schema if not pat.is_nested(each.type))
