from __future__ import annotations

import pytest

import millstream as ms
from millstream import col
from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.plan import nodes
from millstream.plan.placement import distribution_of, stamped_sources
from millstream.plan.rewrites import sinks_to_physical
from millstream.plan.walk import in_order
from millstream.runtime.graph import KEY_GROUPS, key_groups_of_worker, partitions_of_worker
from tests.dsl.known_topics import KnownTopics


def physical(one: Stream) -> nodes.Node:
    return sinks_to_physical([nodes.Sink(one.node, "x")])[0].input


def test_a_topic_written_by_key_lies_right_where_partitions_go_round(log: KnownTopics) -> None:
    keyed = physical(stream("keyed", log=log).filter(col("year") > 1).rename({"origin": "from"}))
    assert distribution_of(keyed, 2).keys == ("from",)
    assert distribution_of(keyed, 3).keys is None
    assert (
        "3 workers share the 4 partitions of 'keyed' unevenly" in distribution_of(keyed, 3).reason
    )


@pytest.mark.parametrize("parallelism", [1, 2, 4, 8])
def test_partition_and_worker_of_a_key_group_agree(parallelism: int) -> None:
    partitions = 8
    for worker in range(parallelism):
        groups = key_groups_of_worker(worker, parallelism)
        mine = {group * partitions // KEY_GROUPS for group in groups}
        assert mine == set(partitions_of_worker(worker, parallelism, partitions))


def test_a_key_that_was_computed_anew_is_another(log: KnownTopics) -> None:
    changed = stream("keyed", log=log).with_columns(origin=col("origin").str.lower())
    assert distribution_of(physical(changed), 2).keys is None


def test_results_of_windows_lie_by_their_keys(flights: Stream) -> None:
    hours = flights.key_by("origin").window(ms.tumbling("1h")).agg(n=ms.count())
    assert distribution_of(physical(hours), 2).keys == ("origin",)
    assert distribution_of(physical(hours.late()), 1).keys == ("origin",)
    # Late rows stay where they were read: only combined rows cross.
    assert distribution_of(physical(hours.late()), 2).keys is None


def test_only_rows_that_reach_a_window_are_stamped(flights: Stream, log: KnownTopics) -> None:
    other = stream("keyed", log=log)
    hours = flights.union(other).key_by("origin").window(ms.tumbling("1h")).agg(n=ms.count())
    days = hours.window(ms.tumbling("1d")).agg(n=ms.sum("n"))
    plain = stream("flights", log=log).filter(col("year") > 1)
    order = in_order([nodes.Sink(days.node, "x"), nodes.Sink(plain.node, "y")])
    stamped = stamped_sources(order)
    sources = [each for each in order if isinstance(each, nodes.StreamSource)]
    assert {each.topic for each in sources if id(each) in stamped} == {"flights", "keyed"}
    assert len(stamped) == 2
    assert id(plain.node.inputs[0]) not in stamped
