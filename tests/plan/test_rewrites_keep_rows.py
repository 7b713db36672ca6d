"""Random chains of verbs give the same rows compiled as read one by one."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from millstream import col, when
from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.operators.arrow_expression import evaluate
from millstream.plan import nodes
from millstream.plan.compile import compile_job
from tests.dsl.known_topics import KnownTopics
from tests.examples import examples

SCHEMA = pa.schema({"a": pa.int64(), "b": pa.int64(), "x": pa.float64(), "text": pa.string()})

Step = Callable[[Stream], Stream]

NUMBERS = st.integers(-20, 20)


def step(name: str, number: int) -> Step:
    """One verb; all of them keep the columns a, b, x, text."""
    steps: dict[str, Step] = {
        "filter": lambda rows: rows.filter(col("a") > number),
        "filter text": lambda rows: rows.filter(col("text").str.contains("b")),
        "filter null": lambda rows: rows.filter(col("x").is_null() | (col("b") < number)),
        "compute": lambda rows: rows.with_columns(a=col("a") + col("b"), x=col("x") * number),
        "choose": lambda rows: rows.with_columns(
            b=when(col("a") > col("b")).then(number).otherwise(col("a"))
        ),
        "texts": lambda rows: rows.with_columns(text=col("text") + "b"),
        "swap": lambda rows: rows.rename({"a": "b", "b": "a"}),
        "order": lambda rows: rows.select("text", "x", "b", "a"),
        "widen": lambda rows: rows.with_columns(extra=col("a")).filter(col("extra") < number),
        "narrow": lambda rows: (
            rows.drop(*({"extra"} & set(rows.schema.names)))
            if "extra" in rows.schema.names
            else rows
        ),
        "union": lambda rows: rows.union(rows.filter(col("a") < number)),
        "branch": lambda rows: rows.branch(col("a") > number, col("b") > 0)[1],
        "key": lambda rows: rows.key_by("a"),
        "explode": lambda rows: rows.with_columns(text=col("text").str.split("b")).explode("text"),
        "flat map": lambda rows: rows.flat_map(text=col("text").str.split("a")),
    }
    return steps[name]


NAMES = (
    "filter", "filter text", "filter null", "compute", "choose", "texts", "swap", "order",
    "widen", "narrow", "union", "branch", "key", "explode", "flat map",
)  # fmt: skip


def batches() -> st.SearchStrategy[pa.RecordBatch]:
    small = st.none() | NUMBERS
    row = st.fixed_dictionaries(
        {
            "a": small,
            "b": small,
            "x": small.map(lambda n: None if n is None else n / 2),
            "text": st.none() | st.sampled_from(["", "a", "b", "abc"]),
        }
    )
    made = st.lists(row, min_size=2, max_size=20)
    return made.map(lambda rows: pa.RecordBatch.from_pylist(rows, SCHEMA).slice(1))


def read(node: nodes.Node, batch: pa.RecordBatch) -> pa.Table:
    """What the plan means, one node after the other."""
    match node:
        case nodes.StreamSource():
            return pa.table(batch)
        case nodes.Filter():
            rows = one_batch(read(node.input, batch))
            return pa.table(rows.filter(evaluate(node.predicate, rows)))
        case nodes.Project():
            rows = one_batch(read(node.input, batch))
            return pa.table({name: evaluate(each, rows) for name, each in node.outputs})
        case nodes.Union():
            return pa.concat_tables([read(each, batch) for each in node.streams])
        case nodes.Explode():
            exploded = []
            for row in read(node.input, batch).to_pylist():
                items = row["text"] or ([None] if row["text"] is None and node.keep_nulls else [])
                exploded += [row | {"text": each} for each in items]
            return pa.Table.from_pylist(exploded, node.schema)
        case nodes.KeyBy() | nodes.Sink():
            return read(node.input, batch)
        case _:
            raise AssertionError(node)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [each.combine_chunks() for each in table.columns], schema=table.schema
    )


def run_compiled(sinks: list[nodes.Sink], batch: pa.RecordBatch) -> list[pa.Table]:
    """Push the batch through the operators of a job of one worker and no state."""
    (stage,) = compile_job(sinks, "job", 1).stages
    (source,) = stage.sources
    came: dict[str, list[pa.RecordBatch]] = {source.name: [batch.select(source.schema.names)]}
    for operator in stage.operators:
        running = operator.config.build()
        emitted = came.setdefault(operator.name, [])
        for index, edge in enumerate(operator.inputs):
            for each in came[edge.node]:
                emitted += [piece.batch for piece in running.on_batch(index, each)]
    return [
        pa.Table.from_batches(came[each.input.node], schema=each.schema) for each in stage.sinks
    ]


# Every example compiles kernels of its own, so a failing one is shown as it was found: to
# shrink it would take minutes.
@settings(max_examples=examples(40), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    batch=batches(),
    steps=st.lists(st.tuples(st.sampled_from(NAMES), NUMBERS), max_size=6),
    fork=st.integers(0, 6),
)
def test_compiled_chains_give_the_rows_of_the_plan(
    batch: pa.RecordBatch, steps: list[tuple[str, int]], fork: int
) -> None:
    log = KnownTopics()
    log.add("rows", SCHEMA)
    stages = [stream("rows", log=log)]
    for name, number in steps:
        stages.append(step(name, number)(stages[-1]))
    # A second sink taps the chain in its middle, so that a part of it is shared.
    ends = [stages[-1], stages[min(fork, len(stages) - 1)]]
    sinks = [nodes.Sink(each.node, f"sink{index}") for index, each in enumerate(ends)]
    for sink, rows in zip(sinks, run_compiled(sinks, batch), strict=True):
        expected = read(sink, batch)
        assert rows.schema.names == expected.schema.names
        assert ordered(rows) == ordered(expected)


def ordered(table: pa.Table) -> list[str]:
    return sorted(map(repr, table.to_pylist()))
