"""What a job will do, and did: the plan as written, its stages, and their counters, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from millstream.operators.operator import ChangeMode, OperatorCounters
from millstream.plan.columns import identity_outputs
from millstream.plan.compile import CompiledJob, compile_plan
from millstream.plan.draw import job_to_html
from millstream.plan.nodes import (
    AsTable,
    ChangeRows,
    Dedup,
    Explode,
    Filter,
    Fused,
    GroupAggregate,
    KeyBy,
    LateRows,
    Limit,
    Lookup,
    MapBatches,
    Node,
    Peek,
    Process,
    Project,
    Sink,
    StreamSource,
    TableJoin,
    TableSource,
    Top,
    Union,
    WindowAggregate,
)
from millstream.plan.stage_text import (
    counters_text,
    exchange_text,
    operator_text,
    sink_text,
    source_text,
)
from millstream.plan.text import duration_text, expression_text, window_text
from millstream.runtime.graph import Stage

Counters = Mapping[str, OperatorCounters]
"""What each operator did in a run, by its name, summed over the workers."""


@dataclass(frozen=True)
class Explanation:
    """An explained job: text where it is printed, a picture in a notebook.

    Parameters
    ----------
    text
        The plan as it was written, then its stages.
    html
        The stages drawn as SVG, with the text below.
    """

    text: str
    html: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def explain_job(
    sinks: Sequence[Sink], name: str, parallelism: int, counters: Counters | None = None
) -> Explanation:
    """Return what a job will do at a parallelism and, with `counters`, what it did.

    Parameters
    ----------
    sinks
        The plan as the user wrote it.
    name
        The job's name.
    parallelism
        How many workers share the rows; decides where exchanges are.
    counters
        What the operators counted in a run, by name.
    """
    compiled = compile_plan(sinks, name, parallelism)
    workers = "1 worker" if parallelism == 1 else f"{parallelism} workers"
    lines = [f"job {name}, {workers}", "", "plan"]
    lines += [f"  {line}" for line in plan_lines(sinks)]
    lines += ["", "stages"]
    for stage in compiled.graph.stages:
        lines += [f"  {line}" for line in _stage_lines(stage, compiled, counters)]
    text = "\n".join(lines)
    return Explanation(text, job_to_html(compiled, text))


def plan_lines(sinks: Sequence[Sink]) -> list[str]:
    """Return the plan as a tree, sinks first; what is shared is shown once and referred to."""
    shown: dict[int, int] = {}
    lines: list[str] = []
    for sink in sinks:
        lines += _tree(sink, "", "", shown)
    return lines


def _tree(node: Node, head: str, tail: str, shown: dict[int, int]) -> Iterator[str]:
    if id(node) in shown:
        yield f"{head}{_node_text(node).partition(': ')[0]} (the same as above)"
        return
    shown[id(node)] = len(shown)
    yield f"{head}{_node_text(node)}{_place(node)}"
    inputs = node.inputs
    for index, each in enumerate(inputs):
        last = index == len(inputs) - 1
        branch, gap = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield from _tree(each, f"{tail}{branch}", f"{tail}{gap}", shown)


def _place(node: Node) -> str:
    return f"    · {node.location.rsplit('/', 1)[-1]}" if node.location else ""


def _node_text(node: Node) -> str:
    named = f" as {node.name!r}" if node.name else ""
    changes = "" if node.mode is ChangeMode.APPEND else f" [{node.mode.value}]"
    return f"{_TEXTS[type(node)](node)}{named}{changes}"


def _stream_text(node: StreamSource) -> str:
    time = "without event time"
    if node.event_time is not None:
        time = f"event time {node.event_time}, lateness {duration_text(node.lateness_us)}"
    elif node.processing_time is not None:
        time = f"processing time {node.processing_time}, not deterministic"
    return f"stream {node.topic} ({time})"


def _table_text(node: TableSource) -> str:
    version = f"versions by {node.event_time}" if node.event_time else "one version, no time"
    return f"table {node.topic} (key {', '.join(node.topic_keys)}; {version})"


def _project_text(node: Project) -> str:
    before, after = node.input.schema.names, node.schema.names
    computed = [
        f"{name} = {expression_text(expression)}"
        for name, expression in node.outputs
        if (name, expression) not in identity_outputs(node.input.schema)
    ]
    if after[: len(before)] == before and computed:
        return f"with columns {', '.join(computed)}"
    kept = [name for name in after if not any(each.startswith(f"{name} = ") for each in computed)]
    return f"select {', '.join([*kept, *computed])}"


def _join_text(node: TableJoin) -> str:
    pairs = zip(node.stream_keys, node.table_keys, strict=True)
    on = ", ".join(one if one == other else f"{one} = {other}" for one, other in pairs)
    many = ", many matches" if node.many_matches else ""
    warning = "" if node.table.event_time else " [not deterministic: joins by arrival]"
    return f"{node.how} join on {on}{many}{warning}"


def _results_text(node: WindowAggregate | GroupAggregate) -> str:
    return ", ".join(
        f"{each.name} = {each.over_columns().function_text}"
        f"({', '.join(expression_text(argument) for argument in each.arguments)}"
        f"{each.over_columns().parameter_text})"
        for each in node.aggregates
    )


def _group_text(node: GroupAggregate) -> str:
    by = f"by {', '.join(node.columns)}" if node.columns else "over all rows"
    kept = "" if node.ttl_us is None else f", kept for {duration_text(node.ttl_us)}"
    return f"running aggregates {by}{kept}: {_results_text(node)}"


def _aggregate_text(node: WindowAggregate) -> str:
    by = f" by {', '.join(node.columns)}" if node.columns else " over all rows"
    allowed = node.allowed_lateness_us
    grace = f", open {duration_text(allowed)} longer" if allowed else ""
    windows, changes = window_text(node.window), ", as changes" if node.emits_changes else ""
    if node.interval_us is not None:
        changes += f" every {duration_text(node.interval_us)}"
    return f"windows of {windows} on {node.event_time}{by}{grace}{changes}: {_results_text(node)}"


def _top_text(node: Top) -> str:
    keys = f" by {', '.join(node.columns)}" if node.columns else ""
    which = "least" if node.ascending else "greatest"
    tied = " with those tied" if node.ties else ""
    rank = "" if node.rank is None else f", rank in {node.rank}"
    return f"top {node.limit}{tied}{keys}, the {which} {', '.join(node.by)} first{rank}"


def _dedup_text(node: Dedup) -> str:
    within = "" if node.within_us is None else f" within {duration_text(node.within_us)}"
    return f"first row by {', '.join(node.columns)}{within}"


def _process_text(node: Process) -> str:
    order = "in the order of event time" if node.in_order else "as they arrive"
    kept = "" if node.ttl_us is None else f" for {duration_text(node.ttl_us)}"
    state = f"; keeps {', '.join(node.state.names)}{kept}" if node.state.names else ""
    return f"rows by {', '.join(node.columns)} through {node.function_name}, {order}{state}"


def _sink_text(node: Sink) -> str:
    if node.kind == "memory":
        return "collect"
    return f"to {node.topic}{' (the latest row of each key)' if node.upsert else ''}"


def _fused_text(node: Fused) -> str:
    return "; ".join(node.steps) or "select"


_TEXTS: dict[type, Callable[..., str]] = {
    StreamSource: _stream_text,
    TableSource: _table_text,
    Filter: lambda node: f"filter {expression_text(node.predicate)}",
    Project: _project_text,
    Fused: _fused_text,
    Explode: lambda node: f"a row for each item of {', '.join(node.columns)}",
    KeyBy: lambda node: f"key by {', '.join(node.columns)}",
    TableJoin: _join_text,
    WindowAggregate: _aggregate_text,
    GroupAggregate: _group_text,
    AsTable: lambda node: f"table by {', '.join(node.columns)}",
    Top: _top_text,
    Dedup: _dedup_text,
    Limit: lambda node: f"the first {node.count} rows",
    Peek: lambda node: f"show each batch to {node.function_name}",
    MapBatches: lambda node: (
        f"batches through {node.function_name}{', row for row' if node.same_rows else ''}: "
        f"{', '.join(node.result.names)}"
    ),
    Lookup: lambda node: "; ".join(each.describe() for each in node.calls),
    Process: _process_text,
    ChangeRows: lambda node: f"a row for each change, with {node.column}",
    LateRows: lambda _: "rows that came too late",
    Union: lambda node: f"union of {len(node.streams)} streams",
    Sink: _sink_text,
}


def _stage_lines(stage: Stage, compiled: CompiledJob, counters: Counters | None) -> Iterator[str]:
    yield f"stage {stage.index}"
    for source in stage.sources:
        yield f"  {source.name}: {source_text(source, compiled)}"
    for received in stage.receives:
        yield f"  {received.name}: receives rows {exchange_text(received)}"
    for operator in stage.operators:
        inputs = ", ".join(each.node for each in operator.inputs)
        yield f"  {operator.name} ◀ {inputs}: {operator_text(operator, compiled)}"
        for note in compiled.notes.get(operator.name, ()):
            yield f"      {note}"
        if counters is not None and operator.name in counters:
            yield f"      {counters_text(counters[operator.name])}"
    for sent in stage.sends:
        yield f"  {sent.name} ◀ {sent.input.node}: sends rows {exchange_text(sent)}"
    for sink in stage.sinks:
        yield f"  {sink.name} ◀ {sink.input.node}: {sink_text(sink)}"
