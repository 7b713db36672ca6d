from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.errors import ExpressionTypeError, PlanError
from millstream.operators.expression import Column
from millstream.plan import nodes
from millstream.plan.walk import in_order, with_inputs

SCHEMA = pa.schema({"at": pa.timestamp("us", "UTC"), "key": pa.string(), "n": pa.int64()})


def source(name: str = "events") -> nodes.StreamSource:
    return nodes.StreamSource(name, SCHEMA, ("key",), 2, "at", location="job.py:1")


def test_a_source_knows_keys_and_time() -> None:
    assert (source().keys, source().time_column) == (("key",), "at")


def test_keys_and_time_follow_a_projection() -> None:
    swapped = nodes.Project(
        source(), (("k", Column("key", pa.string())), ("at", Column("at", SCHEMA.field(0).type)))
    )
    assert (swapped.keys, swapped.time_column) == (("k",), "at")


def test_where_a_column_goes_out_twice_its_own_name_counts() -> None:
    key = Column("key", pa.string())
    for outputs in ((("copy", key), ("key", key)), (("key", key), ("copy", key))):
        assert nodes.Project(source(), outputs).keys == ("key",)


def test_nodes_check_themselves() -> None:
    with pytest.raises(ExpressionTypeError, match=r"job.py:9: a filter needs a condition"):
        nodes.Filter(source(), Column("n", pa.int64()), location="job.py:9")
    with pytest.raises(ExpressionTypeError, match=r"rows cannot be keyed by 'l'"):
        nested = nodes.StreamSource("t", pa.schema({"l": pa.list_(pa.int8())}))
        nodes.KeyBy(nested, ("l",))
    with pytest.raises(PlanError, match="two columns would be called 'key'"):
        nodes.KeyBy(source(), ("key", "key"))


def test_a_union_of_other_keys_has_none() -> None:
    one = source()
    other = nodes.KeyBy(source("more"), ("n",))
    assert nodes.Union((one, other)).keys == ()
    assert nodes.Union((one, source("more"))).keys == ("key",)
    untimed = nodes.StreamSource("rest", SCHEMA)
    assert nodes.Union((one, untimed)).time_column is None


def test_a_plan_is_walked_once_inputs_first() -> None:
    start = source()
    left, right = nodes.KeyBy(start, ("n",)), nodes.KeyBy(start, ("key",))
    sinks = [nodes.Sink(nodes.Union((left, right)), "a"), nodes.Sink(left, "b")]
    order = in_order(sinks)
    assert len(order) == 6
    for node in order:
        assert all(order.index(each) < order.index(node) for each in node.inputs)


def test_a_long_chain_can_be_walked() -> None:
    node: nodes.Node = source()
    for _ in range(5_000):
        node = nodes.KeyBy(node, ("n",))
    assert len(in_order([nodes.Sink(node, "a")])) == 5_002


def test_a_node_over_the_same_inputs_stays_itself() -> None:
    node = nodes.KeyBy(source(), ("n",))
    assert with_inputs(node, node.inputs) is node
    assert with_inputs(node, [source("other")]) is not node
