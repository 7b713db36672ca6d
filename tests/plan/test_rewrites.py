from __future__ import annotations

import millstream as ms
from millstream import col
from millstream.dsl.stream import Stream
from millstream.operators.expression import Column
from millstream.plan import nodes
from millstream.plan.rewrites import aggregates_to_columns, key_by_to_nothing
from millstream.plan.walk import in_order

HOUR = ms.tumbling("1h")


def test_keys_are_nothing_once_aggregates_and_sinks_have_them(flights: Stream) -> None:
    sink = flights.key_by("origin").to("x").node
    (rewritten,) = key_by_to_nothing([sink])
    assert isinstance(rewritten.input, nodes.StreamSource)
    assert rewritten.key_columns == ("origin",)


def test_arguments_become_columns_and_equal_ones_one(flights: Stream) -> None:
    hours = (
        flights.key_by("origin")
        .window(HOUR)
        .agg(
            mean=ms.mean(col("dep_delay") / 60),
            most=ms.max(col("dep_delay") / 60),
            least=ms.min("dep_delay"),
        )
    )
    sinks = [nodes.Sink(hours.node, "x"), nodes.Sink(hours.late().node, "late")]
    results, late = aggregates_to_columns(sinks)
    aggregate = results.input
    assert isinstance(aggregate, nodes.WindowAggregate)
    names = [
        each.argument.name for each in aggregate.aggregates if isinstance(each.argument, Column)
    ]
    assert names == ["__argument_0", "__argument_0", "dep_delay"]
    assert aggregate.schema == hours.schema
    # The late rows are those of the same operator, as they were before the projection.
    assert late.schema == flights.schema
    assert aggregate in in_order([late])
