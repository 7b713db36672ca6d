"""What runs in a stage, in words: one line, and a few words for the picture."""

from __future__ import annotations

from millstream.operators.expression import Column
from millstream.operators.fused import FusedConfig
from millstream.operators.operator import OperatorCounters
from millstream.operators.table_join import TableJoinConfig
from millstream.operators.union import UnionConfig
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.plan.compile import CompiledJob
from millstream.plan.text import expression_text, predicate_text, window_text
from millstream.runtime.graph import ExchangeNode, OperatorNode, SinkNode, SourceNode


def source_text(source: SourceNode, compiled: CompiledJob) -> str:
    """Return what a source reads, in one line."""
    known, read = compiled.topic_columns[source.name], source.schema.names
    columns = f"all {known} columns" if 1 < known == len(read) else ", ".join(read)
    if source.role == "table":
        return f"reads all of table {source.topic} on every worker: {columns}"
    if source.changes:
        return f"reads the changes of table {source.topic}: {columns}"
    time = f" by {source.event_time}" if source.event_time else ""
    if source.processing_time:
        time = f" by processing time, {source.time_column}"
    passed = f"; passes frames without {predicate_text(source.where)}" if source.where else ""
    return f"reads {source.topic}{time}: {columns}{passed}"


def source_brief(source: SourceNode, compiled: CompiledJob) -> str:
    """Return what a source reads, in a few words."""
    kind = "table" if source.role == "table" else "stream"
    known, read = compiled.topic_columns[source.name], len(source.schema)
    return f"{kind}, {read} of {known} columns"


def operator_text(operator: OperatorNode, compiled: CompiledJob) -> str:
    """Return what an operator does, in one line."""
    match operator.config:
        case FusedConfig() as config:
            steps = compiled.steps.get(operator.name) or (_outputs_text(config),)
            return f"{'fused: ' if len(steps) > 1 else ''}{'; '.join(steps)}"
        case TableJoinConfig() as config:
            many = ", many matches" if config.many_matches else ""
            return f"{config.how} join on {_pairs_text(config)}{many}"
        case WindowAggregateConfig() as config:
            results = ", ".join(each.describe() for each in config.aggregates)
            time = f"on {config.time_column}"
            return f"windows of {window_text(config.window)} {time}{_by_text(config)}: {results}"
        case UnionConfig():
            return f"union of {len(operator.inputs)} streams"
        case config:
            return config.describe()


def operator_brief(operator: OperatorNode, compiled: CompiledJob) -> str:
    """Return what an operator does, in a few words."""
    match operator.config:
        case TableJoinConfig() as config:
            return f"{config.how}, on {_pairs_text(config)}"
        case WindowAggregateConfig() as config:
            return f"{window_text(config.window)}{_by_text(config)}"
        case _:
            return operator_text(operator, compiled).removeprefix("fused: ")


def exchange_text(exchange: ExchangeNode) -> str:
    """Return how an exchange chooses the worker of a row."""
    keys = exchange.key_columns
    return f"by {', '.join(keys)}" if keys else "to the first worker"


def sink_text(sink: SinkNode) -> str:
    """Return where a sink writes, in one line."""
    if sink.kind == "memory":
        return "keeps rows in this process"
    by = f" by {', '.join(sink.key_columns)}" if sink.key_columns else ""
    if sink.upsert:
        return f"writes the latest row of each key to table {sink.topic}{by}"
    return f"appends to {sink.topic}{by}"


def counters_text(counters: OperatorCounters) -> str:
    """Return an operator's counters, in one line."""
    late = f", {counters.rows_late:,} late" if counters.rows_late else ""
    late += f", {counters.rows_failed:,} failed" if counters.rows_failed else ""
    return (
        f"{counters.rows_in:,} rows in, {counters.rows_out:,} out{late}; through "
        f"Numba {counters.rows_numba:,}, pyarrow {counters.rows_arrow:,}, "
        f"Python {counters.rows_python:,}"
    )


def _outputs_text(config: FusedConfig) -> str:
    outputs = (
        name
        if isinstance(expression, Column) and expression.name == name
        else f"{name} = {expression_text(expression)}"
        for name, expression in config.outputs
        if not name.startswith("_")
    )
    return f"select {', '.join(outputs)}"


def _pairs_text(config: TableJoinConfig) -> str:
    pairs = zip(config.stream_keys, config.table_keys, strict=True)
    return ", ".join(one if one == other else f"{one} = {other}" for one, other in pairs)


def _by_text(config: WindowAggregateConfig) -> str:
    return f" by {', '.join(config.key_columns)}" if config.key_columns else " over all rows"
