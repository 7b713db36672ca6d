"""Job graph → job graph: what becomes of rows that cannot be computed, and rows' positions.

With dead letters, every operator that may fail on a row has a second output. Those of a stage are
united and go to the job's dead-letter topic, in the same transactions as its results.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from millstream.operators.dedup import DedupConfig
from millstream.operators.event_times import EventTimesConfig, TimeRange
from millstream.operators.expression import columns_of
from millstream.operators.fused import FusedConfig
from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.lookup import LookupConfig
from millstream.operators.map_batches import MapBatchesConfig
from millstream.operators.operator import POSITION_COLUMN, OperatorConfig
from millstream.operators.poison import DEAD_LETTER_PORT, DEAD_LETTERS, ErrorPolicy, OnError
from millstream.operators.process import ProcessConfig
from millstream.operators.union import UnionConfig
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.operators.window_combine import WindowCombineConfig
from millstream.runtime.graph import Edge, JobGraph, OperatorNode, SinkNode, SourceNode, Stage
from millstream.runtime.replay import SUFFIX

Failing: TypeAlias = (
    FusedConfig | MapBatchesConfig | ProcessConfig | LookupConfig | EventTimesConfig
)
"""What can have rows that cannot be computed, and is told what becomes of them."""

DEAD_LETTERS_NAME = "dead-letters"


def dead_letter_topic(job: str) -> str:
    """Return the name of a job's dead-letter topic."""
    return f"{job}{SUFFIX}"


def graph_to_policy(graph: JobGraph, on_error: OnError) -> JobGraph:
    """Return the graph with the policy in each operator that may fail, and what it needs."""
    if on_error != "fail":
        graph = _with_checked_times(graph)
    topics = tuple(each.topic for stage in graph.stages for each in _streams(stage))
    with_letters = on_error == "dlq" and any(map(_may_fail, _operators(graph)))
    with_positions = with_letters or any(map(_reads_position, _operators(graph)))
    # A function that takes rows in order knows where each was read, and needs the topics' names.
    in_order = any(isinstance(each.config, ProcessConfig) for each in _operators(graph))
    if on_error == "fail" and not with_positions and not in_order:
        return graph
    stages = []
    for stage in graph.stages:
        operators = tuple(
            _with_policy(each, ErrorPolicy(on_error, graph.name, each.name, each.location, topics))
            for each in stage.operators
        )
        made = replace(stage, operators=operators)
        if with_letters:
            made = _with_sink(made, graph.name)
        stages.append(made)
    if with_positions:
        stages = _with_positions(stages)
    return replace(graph, stages=tuple(stages))


def _with_checked_times(graph: JobGraph) -> JobGraph:
    """Return the graph with the times of rows checked before each operator that goes by them."""
    stages = []
    for stage in graph.stages:
        operators: list[OperatorNode] = []
        for each in stage.operators:
            made = each
            if (config := _checking(each.config)) is not None:
                check = OperatorNode(f"{each.name}-times", config, each.inputs, each.location)
                operators.append(check)
                made = replace(each, inputs=(Edge(check.name),))
            operators.append(made)
        stages.append(replace(stage, operators=tuple(operators)))
    return replace(graph, stages=tuple(stages))


def _checking(config: OperatorConfig) -> EventTimesConfig | None:
    """Return what checks the times by which an operator goes, if it does."""
    match config:
        case WindowCombineConfig(aggregate=aggregate):
            return EventTimesConfig(aggregate.input_schema, aggregate.time_range)
        case WindowAggregateConfig() if not config.partial:
            return EventTimesConfig(config.input_schema, config.time_range)
        case DedupConfig(schema=schema, time_column=str(time)):
            return EventTimesConfig(schema, TimeRange(time))
        case GroupAggregateConfig(input_schema=schema, time_column=str(time)):
            return EventTimesConfig(schema, TimeRange(time))
    return None


def _operators(graph: JobGraph) -> list[OperatorNode]:
    return [each for stage in graph.stages for each in stage.operators]


def _streams(stage: Stage) -> list[SourceNode]:
    return [each for each in stage.sources if each.role == "stream"]


def _may_fail(node: OperatorNode) -> bool:
    return isinstance(node.config, Failing) and node.config.may_fail


def _reads_position(node: OperatorNode) -> bool:
    config = node.config
    if not isinstance(config, FusedConfig):
        return False
    parts = [each for _, each in config.outputs]
    parts += [] if config.predicate is None else [config.predicate]
    return any(POSITION_COLUMN in columns_of(each) for each in parts)


def _with_policy(node: OperatorNode, policy: ErrorPolicy) -> OperatorNode:
    if not _may_fail(node):
        return node
    assert isinstance(node.config, Failing)
    return replace(node, config=replace(node.config, policy=policy))


def _with_sink(stage: Stage, job: str) -> Stage:
    edges = tuple(Edge(e.name, DEAD_LETTER_PORT) for e in stage.operators if _may_fail(e))
    if not edges:
        return stage
    suffix = f"-{stage.index}" if stage.index else ""
    union = OperatorNode(f"{DEAD_LETTERS_NAME}{suffix}", UnionConfig(DEAD_LETTERS), edges)
    sink = SinkNode(
        f"sink-{DEAD_LETTERS_NAME}{suffix}",
        dead_letter_topic(job),
        Edge(union.name),
        DEAD_LETTERS,
    )
    return replace(stage, operators=(*stage.operators, union), sinks=(*stage.sinks, sink))


def _with_positions(stages: list[Stage]) -> list[Stage]:
    made, number = [], 0
    for stage in stages:
        sources = []
        for each in stage.sources:
            if each.role == "stream":
                sources.append(replace(each, position=number))
                number += 1
            else:
                sources.append(each)
        made.append(replace(stage, sources=tuple(sources)))
    return made
