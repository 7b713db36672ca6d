from __future__ import annotations

import pyarrow as pa
import pytest

from millstream import col
from millstream.dsl.binding import bind
from millstream.dsl.stream import Stream
from millstream.operators.expression import Call, Column
from millstream.operators.failing import may_fail
from millstream.plan import nodes
from millstream.plan.fusion import FUSED_SIZE_MAX, chains_to_fused
from millstream.plan.text import expression_text
from millstream.plan.walk import in_order


def fused(*streams: Stream) -> list[nodes.Fused]:
    sinks = [nodes.Sink(each.node, f"sink{i}") for i, each in enumerate(streams)]
    return [each for each in in_order(chains_to_fused(sinks)) if isinstance(each, nodes.Fused)]


def test_a_chain_becomes_one_node_by_substitution(flights: Stream) -> None:
    (node,) = fused(
        flights.filter(col("year") > 2000)
        .select("origin", late=col("dep_delay") - 15)
        .filter(col("late") > 0)
        .select(hours=col("late") / 60)
    )
    assert node.predicate is not None
    assert expression_text(node.predicate) == "(year > 2000) and ((dep_delay - 15.0) > 0.0)"
    assert [(name, expression_text(each)) for name, each in node.outputs] == [
        ("hours", "(dep_delay - 15.0) ÷ 60.0")
    ]
    assert node.steps == (
        "filter year > 2000",
        "select origin, late = dep_delay - 15.0",
        "filter late > 0.0",
        "select hours = late ÷ 60.0",
    )


def test_what_is_shared_stays_a_node_of_its_own(flights: Stream) -> None:
    late = flights.filter(col("dep_delay") > 15)
    found = fused(late.select("origin"), late.select("dest"))
    assert [each.steps for each in found] == [
        ("filter dep_delay > 15.0",),
        ("select origin",),
        ("select dest",),
    ]
    assert found[1].input is found[2].input is found[0]


def test_a_projection_that_changes_nothing_goes(flights: Stream) -> None:
    assert fused(flights.select(*flights.schema.names)) == []


def test_a_shared_node_under_one_that_went_stays_shared(flights: Stream) -> None:
    late = flights.filter(col("dep_delay") > 15)
    same = late.select(*flights.schema.names)
    found = fused(same.select("origin"), late)
    assert len(found) == 2
    assert found[1].input is found[0]


def test_what_can_fail_does_not_see_rows_that_a_filter_took(flights: Stream) -> None:
    numbers = flights.filter(col("dest") != "unknown").with_columns(n=col("dest").cast("int64"))
    assert len(fused(numbers)) == 1  # outputs are computed for the rows that passed
    assert len(fused(numbers.filter(col("year") > 2000))) == 1
    assert len(fused(numbers.filter(col("n") > 1))) == 2
    kept = flights.filter(col("dest") != "unknown").with_columns(n=col("year").cast("float64"))
    assert len(fused(kept)) == 1
    before = flights.with_columns(n=col("dest").cast("int64")).filter(col("n") > 1)
    assert len(fused(before)) == 1


def test_expressions_do_not_grow_without_bound(flights: Stream) -> None:
    doubled = flights.select(x=col("dep_delay"))
    for _ in range(30):
        doubled = doubled.select(x=col("x") + col("x"))
    found = fused(doubled)
    assert 2 <= len(found) <= 30
    assert all(sum(map(size, dict(each.outputs).values())) <= FUSED_SIZE_MAX for each in found)


def size(expression: object) -> int:
    return 1 + sum(map(size, expression.arguments)) if isinstance(expression, Call) else 1


def test_the_last_name_given_stays(flights: Stream) -> None:
    (node,) = fused(flights.filter(col("year") > 1).named("first").select("origin"))
    assert node.name == "first"


@pytest.mark.parametrize(
    ("source", "target", "fails"),
    [
        (pa.int8(), pa.int64(), False),
        (pa.int64(), pa.int8(), True),
        (pa.uint8(), pa.int16(), False),
        (pa.uint16(), pa.int16(), True),
        (pa.int8(), pa.uint8(), True),
        (pa.int64(), pa.float64(), False),
        (pa.float32(), pa.float64(), False),
        (pa.float64(), pa.float32(), True),
        (pa.float64(), pa.int64(), True),
        (pa.bool_(), pa.int8(), False),
        (pa.string(), pa.int64(), True),
        (pa.int64(), pa.string(), False),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), False),
        (pa.duration("us"), pa.int64(), False),
        (pa.timestamp("s"), pa.timestamp("us"), True),
    ],
)
def test_which_casts_can_fail(source: pa.DataType, target: pa.DataType, fails: bool) -> None:
    cast = Call("cast", (Column("x", source),), target)
    assert may_fail(cast) is fails
    assert may_fail(bind(col("x").is_null(), pa.schema({"x": source}))) is False
