from __future__ import annotations

import pyarrow as pa

import millstream as ms
from millstream import col
from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.dsl.table import Table, table
from millstream.plan import nodes
from millstream.plan.rewrites import sinks_to_physical
from millstream.plan.walk import in_order
from tests.dsl.known_topics import KnownTopics


def plan(*streams: Stream) -> list[nodes.Node]:
    sinks = [nodes.Sink(each.node, f"sink{i}") for i, each in enumerate(streams)]
    return in_order(sinks_to_physical(sinks))


def read_columns(*streams: Stream) -> dict[str, list[str]]:
    sources = nodes.StreamSource | nodes.TableSource
    return {each.topic: each.schema.names for each in plan(*streams) if isinstance(each, sources)}


def test_a_source_reads_what_is_used_and_its_time(flights: Stream) -> None:
    assert read_columns(flights.select(x=col("dep_delay") + 1)) == {
        "flights": ["scheduled", "dep_delay"]
    }


def test_a_source_without_use_reads_its_narrowest_column(log: KnownTopics) -> None:
    wide = pa.schema({"text": pa.string(), "n": pa.int64(), "small": pa.int8()})
    log.add("wide", wide)
    assert read_columns(stream("wide", log=log).select(one=1)) == {"wide": ["small"]}


def test_what_only_a_filter_uses_is_read_and_dropped(flights: Stream) -> None:
    nodes_ = plan(flights.filter(col("year") > 2000).select("origin"))
    (fused,) = (each for each in nodes_ if isinstance(each, nodes.Fused))
    assert fused.input.schema.names == ["scheduled", "origin", "year"]
    assert fused.schema.names == ["origin"]


def test_the_needs_of_several_sinks_add_up(flights: Stream) -> None:
    assert read_columns(flights.select("origin"), flights.select("dest")) == {
        "flights": ["scheduled", "origin", "dest"]
    }


def test_a_table_is_read_by_its_key_and_what_is_used(flights: Stream, airlines: Table) -> None:
    named = flights.join(airlines.rename({"year": "founded"}), on="carrier")
    assert read_columns(named.select("founded")) == {
        "flights": ["scheduled", "carrier"],
        "airlines": ["carrier", "founded"],
    }


def test_the_key_of_a_table_is_read_but_not_added_where_nobody_wants_it(
    log: KnownTopics, flights: Stream
) -> None:
    planes = table("planes", log=log).rename({"year": "built"})
    joined = flights.join(planes, on="dest")
    for wanted, added in (("changed", ("changed",)), ("built", ("built",)), ("dest", ())):
        every = plan(joined.select(wanted))
        (read,) = (each for each in every if isinstance(each, nodes.TableSource))
        assert set(read.schema.names) == {"built", "dest", *added}
        (join,) = (each for each in every if isinstance(each, nodes.TableJoin))
        assert join.added == added
        assert join.schema.names[-1] == (added or ("dest",))[0]


def test_late_rows_need_what_their_sink_takes(flights: Stream) -> None:
    hours = flights.key_by("origin").window(ms.tumbling("1h")).agg(n=ms.count())
    assert read_columns(hours)["flights"] == ["scheduled", "origin"]
    assert read_columns(hours, hours.late().select("dest"))["flights"] == [
        "scheduled",
        "origin",
        "dest",
    ]


def test_sinks_and_unions_get_their_columns_in_order(flights: Stream) -> None:
    late_first = flights.select("dep_delay", "scheduled", "origin")
    both = flights.select("origin", "scheduled", "dep_delay").union(late_first)
    every = plan(both.filter(col("dep_delay") > 1).select("origin"), flights)
    (union,) = (each for each in every if isinstance(each, nodes.Union))
    assert [each.schema.names for each in union.inputs] == [["origin", "dep_delay"]] * 2
    for sink in every:
        if isinstance(sink, nodes.Sink):
            assert sink.input.schema.names == sink.schema.names
    assert every[-1].schema == flights.schema


def test_a_sink_over_a_wider_node_is_trimmed(flights: Stream) -> None:
    narrow = flights.select("origin", "dest")
    joined = plan(narrow, narrow.select("dest"))
    assert [each.schema.names for each in joined if isinstance(each, nodes.Sink)] == [
        ["origin", "dest"],
        ["dest"],
    ]
