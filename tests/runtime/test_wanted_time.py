"""A time column is left unread only where nothing looks at it."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.fused import FusedConfig
from millstream.operators.union import UnionConfig
from millstream.runtime.graph import Edge, OperatorNode, SinkNode, SourceNode, Stage
from millstream.runtime.wanted_time import wants_time

TIME, NUMBER = pa.timestamp("us", tz="UTC"), pa.int64()
SCHEMA = pa.schema({"time": TIME, "value": NUMBER})
SOURCE = SourceNode("events", "events", "stream", SCHEMA, time_column="time")
VALUE, AT = Column("value", NUMBER), Column("time", TIME)
LATER = Call("greater", (AT, Constant(0, TIME)), pa.bool_())
NARROW = Call("cast", (VALUE,), pa.int8())


def fused(*outputs: TypedExpression, predicate: Call | None = None) -> FusedConfig:
    return FusedConfig(SCHEMA, predicate, tuple((f"out{n}", x) for n, x in enumerate(outputs)))


@pytest.mark.parametrize(
    ("configs", "source", "wanted"),
    [
        ([fused(VALUE)], SOURCE, False),
        ([fused(VALUE), fused(VALUE)], SOURCE, False),
        ([fused(VALUE), fused(AT)], SOURCE, True),
        ([fused(VALUE, predicate=LATER)], SOURCE, True),
        ([fused(NARROW)], SOURCE, True),
        ([fused(VALUE), UnionConfig(SCHEMA)], SOURCE, True),
        ([fused(VALUE)], replace(SOURCE, stamped=True), True),
        ([fused(VALUE)], replace(SOURCE, time_column=None), True),
        ([fused(VALUE)], replace(SOURCE, processing_time=True), True),
        ([fused(Constant(1, NUMBER))], replace(SOURCE, schema=SCHEMA.remove(1)), True),
    ],
)
def test_the_time_is_wanted_by_whoever_may_look_at_it(
    configs: list[FusedConfig], source: SourceNode, wanted: bool
) -> None:
    operators = [OperatorNode(str(n), x, (Edge("events"),)) for n, x in enumerate(configs)]
    stage = Stage(0, (source,), (), tuple(operators), (), ())
    assert wants_time(stage, source) == wanted


def test_what_is_written_as_it_is_read_is_read_whole() -> None:
    sink = SinkNode("copy", "copy", Edge("events"), SCHEMA)
    assert wants_time(Stage(0, (SOURCE,), (), (), (), (sink,)), SOURCE)
